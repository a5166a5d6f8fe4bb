import asyncio
import json
import signal
import subprocess
from datetime import UTC, datetime, timedelta

import click
import pytest

from berrymq_rpc import rpc
from berrymq_rpc.bus import AsyncQueue, Bus
from berrymq_rpc.cli.arguments import moment
from berrymq_rpc.cli.tail import Shown, widest_of
from berrymq_rpc.exchange import Node
from berrymq_rpc.identifier import Identifier
from berrymq_rpc.testing.nats_server import NatsServer

from .conftest import BERRYMQ, ENVIRONMENT, ROOT, SECONDS, endpoint_of, started_command


def test_tail(node, start, berrymq) -> None:
    with (
        start("tail", node.endpoint) as everything,
        start("tail", node.endpoint, "job:*", "--json") as jobs,
    ):
        assert everything.note() == f"following *@*:* at {node.endpoint}"
        text = f"following job:* at {node.endpoint}"
        assert json.loads(jobs.note()) == {"note": "following", "message": text}
        berrymq("send", node.endpoint, "job:done", "1", "a=b")
        berrymq("send", node.endpoint, "other@plant:done", "\x1b[2J")
        berrymq("send", node.endpoint, "job:left")
        assert [everything.line()[10:] for _ in range(3)] == [
            "job:done  1  a='b'",
            "other@plant:done  '\\x1b[2J'",
            "job:left",
        ]
        first, second = json.loads(jobs.line()), json.loads(jobs.line())
        assert (first["id"], first["args"], first["kwargs"]) == ("job:done", [1], {"a": "b"})
        assert second["id"] == "job:left"
        assert jobs.end(signal.SIGINT) == -signal.SIGINT
        assert jobs.rest("stderr") == [""]
        assert everything.end(signal.SIGTERM) == -signal.SIGTERM


def test_a_node_that_comes_back(start, berrymq) -> None:
    with start("serve", "--bind", "tcp://127.0.0.1:*") as node:
        endpoint = endpoint_of(node)
        with start("tail", endpoint, "--wait", "0.5") as running:
            running.note()
            node.process.kill()
            assert running.note() == f"connection to {endpoint} lost; waiting for it to come back"
            node.end()
            with started_command("serve", "--bind", endpoint) as again:
                endpoint_of(again)
                assert running.note() == (
                    f"connection to {endpoint} restored; messages sent meanwhile may be missing"
                )
                berrymq("send", endpoint, "a:b")
                assert running.line().endswith("  a:b")
                assert running.end(signal.SIGINT) == -signal.SIGINT
                assert running.rest("stderr") == [""]


def test_a_closed_output(node) -> None:
    """As of ``berrymq tail ... | head -1``."""
    with subprocess.Popen(
        [*BERRYMQ, "tail", node.endpoint],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        cwd=ROOT,
        text=True,
    ) as running:
        try:
            assert running.stdout is not None
            assert running.stderr is not None
            assert running.stderr.readline().startswith("following ")
            running.stdout.close()
            # At once, not when the next message comes.
            assert running.wait(SECONDS) == -signal.SIGPIPE
            assert running.stderr.read() == ""
        finally:
            running.kill()


def test_no_server(berrymq) -> None:
    result = berrymq("tail", "--wait", "0.2", "tcp://127.0.0.1:1")
    assert (result.returncode, result.stdout) == (3, "")
    assert "no server is listening on port 1 of 127.0.0.1" in result.stderr


def test_not_an_identifier(berrymq) -> None:
    result = berrymq("tail", "tcp://127.0.0.1:1", "a:b:c")
    assert (result.returncode, result.stdout) == (2, "")
    assert "'a:b:c' is not an identifier" in result.stderr


# -- several identifiers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identifiers", "widest"),
    [
        (["oven:hot"], "oven:hot"),
        (["oven:hot", "oven:cold"], "oven:*"),
        (["oven:hot", "door:hot"], "*:hot"),
        (["oven:*", "door:opened"], "*:*"),
        (["oven@plant:*", "oven:*"], "oven@*:*"),
        (["oven@plant:hot", "door@plant:hot"], "*@plant:hot"),
    ],
)
def test_one_queue_for_all(identifiers: list[str], widest: str) -> None:
    found = widest_of([Identifier(each) for each in identifiers])
    assert str(found) == widest
    assert all(found.is_match(each) for each in identifiers)


def test_several_identifiers(node, start, berrymq) -> None:
    with start("tail", node.endpoint, "oven:*", "oven:hot", "door:opened") as tail:
        assert tail.note() == f"following oven:* oven:hot door:opened at {node.endpoint}"
        for identifier in ("oven:hot", "door:closed", "door:opened", "oven:cold", "job:done"):
            berrymq("send", node.endpoint, identifier)
        # In their order, and each once.
        assert [tail.line()[10:] for _ in range(3)] == ["oven:hot", "door:opened", "oven:cold"]


def test_messages_that_the_node_has_dropped(monkeypatch) -> None:
    written: list[str] = []

    class Notes:
        def note(self, word: str, text: str, style: str, **fields: object) -> None:
            written.append(f"{word}: {text} {fields}")

    show = Shown(Notes(), Notes(), False, False)  # type: ignore[arg-type]
    show.missed(0, "none were")
    show.missed(3, "3 messages were missed")
    assert written == ["missed: 3 messages were missed {'count': 3}"]


def test_since_is_for_a_cluster(node, berrymq) -> None:
    result = berrymq("tail", node.endpoint, "--since", "15m")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--since is for a cluster" in result.stderr


@pytest.mark.parametrize("text", ["yesterday", "0", "-1", "2999-01-01T00:00", "15w", ""])
def test_no_moment(text: str) -> None:
    with pytest.raises(click.BadParameter):
        moment(text)


def test_moments() -> None:
    assert moment("17") == 17
    assert moment("2026-01-31T10:00+00:00") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    local = moment("2026-01-31T10:00")
    assert isinstance(local, datetime)
    assert local == datetime(2026, 1, 31, 10).astimezone()
    for text, seconds in (("30s", 30), ("15m", 900), ("2h", 7200), ("1d", 86400)):
        found = moment(text)
        assert isinstance(found, datetime)
        assert abs((datetime.now(UTC) - found).total_seconds() - seconds) < 60


# -- what is kept -------------------------------------------------------------------------------


async def keep(server: NatsServer, namespace: str, count: int) -> datetime:
    """Have a durable queue keep some messages; the time before the last three."""
    bus = Bus()
    middle = datetime.now(UTC)
    durable = rpc.Durable(keep=timedelta(hours=1))
    async with Node(None, bus, cluster=server.url, namespace=namespace, durable=durable):
        await AsyncQueue("job:*", durable="workers", bus=bus).ready()
        await AsyncQueue("other:*", durable="others", bus=bus).ready()
        for number in range(count):
            if number == count - 3:
                middle = datetime.now(UTC)
            await bus.publish("job:new" if number % 2 else "job:old", number, durable=True)
            await bus.publish("other:new", number, durable=True)
    return middle


def test_since(nats_server: NatsServer, start, berrymq) -> None:
    middle = asyncio.run(keep(nats_server, "cli-since", 7))
    where = (nats_server.url, "job:*", "--namespace", "cli-since", "--json")
    with start("tail", *where, "--since", middle.isoformat()) as tail:
        assert [json.loads(tail.line())["args"] for _ in range(3)] == [[4], [5], [6]]
        assert json.loads(tail.note())["note"] == "following"
        sent = berrymq("send", nats_server.url, "job:live", "7", "--namespace", "cli-since")
        assert sent.returncode == 0
        live = json.loads(tail.line())
        assert (live["id"], live["args"]) == ("job:live", [7])
        assert tail.end(signal.SIGINT) == -signal.SIGINT
    with start("tail", *where, "other:*", "--since", "12") as tail:
        kept = [json.loads(tail.line()) for _ in range(4)]
    assert [(each["id"], each["args"]) for each in kept] == [
        ("other:new", [5]),
        ("job:old", [6]),
        ("other:new", [6]),
        ("job:live", [7]),
    ]
    assert [each["sequence"] for each in kept] == [12, 13, 14, 15]
    times = [datetime.fromisoformat(each["time"]) for each in kept]
    assert times == sorted(times)


def test_nothing_is_kept(nats_server: NatsServer, start_nats, berrymq) -> None:
    result = berrymq("tail", nats_server.url, "--namespace", "cli-empty", "--since", "1h")
    assert result.returncode == 1
    assert "no durable queue of the cluster cli-empty keeps messages" in result.stderr
    result = berrymq("tail", start_nats().url, "--since", "1h")
    assert result.returncode == 1
    assert "-js" in result.stderr


def test_what_comes_while_history_is_read(nats_server: NatsServer, start) -> None:
    """Each message once, in its order, kept or live."""
    place, namespace = nats_server.url, "cli-handover"

    async def publish() -> int:
        bus = Bus()
        durable = rpc.Durable(keep=timedelta(hours=1))
        number = 0
        async with Node(None, bus, cluster=place, namespace=namespace, durable=durable):
            await AsyncQueue("job:*", durable="workers", bus=bus).ready()
            await bus.publish("job:new", number, durable=True)
            with start(
                "tail", place, "--namespace", namespace, "--since", "1", "job:*", "--json"
            ) as tail:
                following = asyncio.create_task(asyncio.to_thread(tail.note))
                while number < 200 or (number < 2000 and not following.done()):
                    number += 1
                    await bus.publish("job:new", number, durable=True)
                assert json.loads(await following)["note"] == "following"
                await bus.publish("job:last", durable=True)
                shown = []
                while (line := json.loads(await asyncio.to_thread(tail.line)))["id"] != "job:last":
                    shown += line["args"]
        assert shown == list(range(number + 1))
        return number

    assert asyncio.run(publish()) >= 200
