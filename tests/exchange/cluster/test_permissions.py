"""Nodes with the fewest permissions of NATS that they need, and what one that lacks some gets."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc.bus import AsyncQueue, Bus, Message
from berrymq_rpc.errors import AuthenticationError
from berrymq_rpc.exchange import Node
from berrymq_rpc.nats.options import Nats
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")

Until = Callable[..., Any]
StartNats = Callable[..., NatsServer]

PATIENCE = 10.0

PAGE = Path(__file__).resolve().parents[3] / "docs" / "howto" / "security.rst"


def subjects_of(what: str, operation: str) -> list[str]:
    """What the page says that a node needs: for ``"messages"``, or ``"durable queues"``."""
    text = PAGE.read_text(encoding="utf-8").partition("list-table:: Permissions of nodes")[2]
    text = re.split(r"\n\n(?=\S)", text)[0]
    rows = re.findall(r"   \* - ([\w ]+)\n     - ([\w, ]+)\n     - ``([^`]+)``", text)
    assert len(rows) > 10
    return [s for purpose, may, s in rows if purpose == what and operation in may.split(", ")]


MESSAGES_OUT = subjects_of("messages", "publish")
MESSAGES_IN = subjects_of("messages", "subscribe")
DURABLE_OUT = subjects_of("durable queues", "publish")
DURABLE_IN = subjects_of("durable queues", "subscribe")
LATER_OUT = subjects_of("delayed messages", "publish")
RETAINED_OUT = subjects_of("retained messages", "publish")
RETAINED_IN = subjects_of("retained messages", "subscribe")


def listed(subjects: list[str]) -> str:
    return ", ".join(f'"{subject}"' for subject in subjects)


def config(publish: list[str], subscribe: list[str], deny: tuple[str, ...] = ()) -> str:
    return (
        "authorization { users: [ { user: u, password: p, permissions: {\n"
        f"  publish: {{ allow: [{listed(publish)}], deny: [{listed(list(deny))}] }}\n"
        f"  subscribe: {{ allow: [{listed(subscribe)}] }}\n"
        "} } ] }\n"
    )


def node_at(server: NatsServer, bus: Bus) -> Node:
    place = Nats(server.url, user="u", password="p")
    return Node(None, bus, cluster=place, namespace="plant")


async def test_messages(start_nats: StartNats, until: Until) -> None:
    server = start_nats(config(MESSAGES_OUT, MESSAGES_IN))
    one, other = Bus(), Bus()
    answers: list[Any] = []
    other.regist_function("ask:*", lambda message: message.args[0] + 1)
    one.regist_function("answer:*", lambda message: answers.append(message.args[0]))
    refused: list[Message] = []
    for bus in (one, other):
        bus.regist_function("connection:refused", refused.append)
    async with node_at(server, one) as first, node_at(server, other) as second:
        assert await second.drain(PATIENCE)
        one.talk("ask:it", "answer:it", 1)
        assert await first.drain(PATIENCE)
        await until(lambda: answers == [2])
        await until(lambda: len(refused) >= 2)
    # They do without what is retained.
    assert {message.kwargs["example"] for message in refused} <= {
        "berrymq-retained.plant.forgotten.>",
        "$JS.API.STREAM.INFO.BERRYMQ_plant_RETAINED",
    }


async def test_retained_messages(start_nats: StartNats, until: Until) -> None:
    server = start_nats(
        config(MESSAGES_OUT + RETAINED_OUT, MESSAGES_IN + RETAINED_IN), jetstream=True
    )
    one, other = Bus(), Bus()
    refused: list[Message] = []
    heard: list[Any] = []
    for bus in (one, other):
        bus.regist_function("connection:refused", refused.append)
    one.retain("oven:*")
    async with node_at(server, one) as first, node_at(server, one) as second:
        one.twitter("oven:heat", 1)
        one.twitter("oven:heat", 2)
        one.twitter("oven:door", 3)
        assert await first.drain(PATIENCE)
        assert await second.drain(PATIENCE)
    async with node_at(server, other):
        other.regist_function("oven:*", lambda message: heard.append(message.args[0]))
        await until(lambda: sorted(heard) == [2, 3])
        other.forget("oven:*")
    last = Bus()
    async with node_at(server, last) as node:
        last.regist_function("oven:*", lambda message: heard.append("forgotten"))
        assert await node.settle(PATIENCE)
        last.retain("oven:*")
        last.twitter("oven:heat", 4)
        assert await node.drain(PATIENCE)
    assert heard == [*heard[:2], "forgotten"]
    assert refused == []


async def test_a_node_that_may_only_read_what_is_retained(
    start_nats: StartNats, until: Until
) -> None:
    """It hears it, and its own messages are not kept, of which it says so."""
    read = [*MESSAGES_OUT, "$JS.API.STREAM.INFO.BERRYMQ_plant_RETAINED"]
    read += [subject for subject in RETAINED_OUT if "CONSUMER" in subject]
    users = config([*MESSAGES_OUT, *RETAINED_OUT], MESSAGES_IN + RETAINED_IN)
    server = start_nats(users, jetstream=True)
    one, other, last = Bus(), Bus(), Bus()
    one.retain("oven:*")
    async with node_at(server, one) as node:
        one.twitter("oven:heat", 1)
        assert await node.drain(PATIENCE)
    server.reload(config(read, MESSAGES_IN + RETAINED_IN))
    heard: list[Any] = []
    refused: list[Message] = []
    other.regist_function("connection:refused", refused.append)
    async with node_at(server, other) as node:
        other.regist_function("oven:heat", lambda message: heard.append(message.args[0]))
        await until(lambda: heard == [1])
        other.retain("oven:*")
        other.twitter("oven:door", "open")
        await until(lambda: refused)
        assert await node.drain(PATIENCE)
    async with node_at(server, last) as node:
        last.regist_function("oven:*", lambda message: heard.append(message.args[0]))
        await until(lambda: heard == [1, 1])


async def test_durable_queues(start_nats: StartNats, until: Until) -> None:
    server = start_nats(
        config(MESSAGES_OUT + DURABLE_OUT + LATER_OUT, MESSAGES_IN + DURABLE_IN), jetstream=True
    )
    bus = Bus()
    refused: list[Message] = []
    bus.regist_function("connection:refused", refused.append)
    dead: list[Message] = []
    bus.regist_function("dead:*", dead.append)
    async with node_at(server, bus) as node:
        queue = AsyncQueue("job:*", durable="workers", tries=1, bus=bus)
        await queue.ready()
        await bus.publish("job:new", 1, durable=True)
        message = await queue.get(timeout=PATIENCE)
        await message.nak()
        await bus.publish("job:new", 2, durable=True)
        async with queue.get(timeout=PATIENCE) as message:
            assert message.args == (2,)
        await until(lambda: dead)
        assert await node.replay_dead("workers") == 1
        async with queue.get(timeout=PATIENCE) as message:
            assert message.args == (1,)
        await node.publish_later(0.01, "job:new", 3)
        async with queue.get(timeout=PATIENCE) as message:
            assert message.args == (3,)
        assert [each.name for each in await node.durable_queues()] == ["workers"]
        assert await queue.delete()
    assert [each for each in refused if "retained" not in each.kwargs["example"].lower()] == []


async def test_a_subject_that_is_refused(start_nats: StartNats, until: Until) -> None:
    server = start_nats(
        config(MESSAGES_OUT, MESSAGES_IN, deny=("berrymq.plant.secret.>",)), jetstream=True
    )
    bus = Bus()
    refused: list[Message] = []
    bus.regist_function("connection:refused", refused.append)
    async with node_at(server, bus) as node:
        bus.twitter("secret:plan")
        bus.twitter("open:plan")
        assert await node.drain(PATIENCE)
        secret = "berrymq.plant.secret.plan"
        await until(lambda: [each for each in refused if each.kwargs["example"] == secret])
        (only,) = [each for each in refused if each.kwargs["example"] == secret]
        assert secret in only.kwargs["reason"]
        with pytest.raises(AuthenticationError, match=r"\$JS\.API"):
            await AsyncQueue("job:*", durable="workers", bus=bus).ready()


async def test_a_wrong_password(start_nats: StartNats) -> None:
    server = start_nats(config(MESSAGES_OUT, MESSAGES_IN))
    place = Nats(server.url, user="u", password="wrong-secret")
    with pytest.raises(AuthenticationError) as caught:
        await Node(None, Bus(), cluster=place, namespace="plant").start()
    assert "wrong-secret" not in str(caught.value)
