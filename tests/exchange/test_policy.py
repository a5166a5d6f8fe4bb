"""Which messages each user may send to a node, and get from it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.bus import Empty
from berrymq_rpc.exchange.policy import Grants, Policy
from berrymq_rpc.exchange.sync_node import SyncNode
from berrymq_rpc.identifier import Identifier
from berrymq_rpc.jsonrpc.bridge import Bridge

PLANT = rpc.KeyPair.generate()
ALICE = rpc.KeyPair.generate()
BOB = rpc.KeyPair.generate()
CAROL = rpc.KeyPair.generate()

ANY = "*@*:*"


def grants(*identifiers: str) -> Grants:
    return Grants(map(Identifier, identifiers))


# -- what a grant covers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("granted", "asked", "is_covered"),
    [
        ("job:done", "job:done", True),
        ("job:done", "job:new", False),
        ("job:*", "job:done", True),
        ("job", "job:done", True),
        ("*:done", "job:done", True),
        ("*:*", "job:done", True),
        # A wildcard of the sender reaches the followers of all that it matches.
        ("job:done", "job:*", False),
        ("job:done", "job", False),
        ("job:done", "*:done", False),
        ("job:done", "*:*", False),
        ("job:*", "*:done", False),
        ("job:*", "*:*", False),
        ("job:*", "job:*", True),
        ("*:done", "*:done", True),
        ("*:done", "*:*", False),
        ("*:*", "*:*", True),
        # Namespaces: without one is not any.
        ("job:done", "job@plant:done", False),
        ("job@plant:done", "job:done", False),
        ("job@plant:done", "job@plant:done", True),
        ("job@plant:done", "job@other:done", False),
        ("job@*:done", "job:done", True),
        ("job@*:done", "job@plant:done", True),
        ("job@*:done", "job@*:done", True),
        ("job@plant:done", "job@*:done", False),
        ("job:done", "job@*:done", False),
        ("*:*", "job@plant:done", False),
        ("*@*:*", "*@*:*", True),
        # What is not an identifier.
        ("*@*:*", "", False),
        ("*@*:*", "a:b:c", False),
        ("*@*:*", "\ud800", False),
        ("*@*:*", "x" * 2000, False),
    ],
)
def test_what_a_grant_covers(granted: str, asked: str, is_covered: bool) -> None:
    one = grants("other:thing", granted)
    for _ in range(2):
        assert one.covers_text(asked) is is_covered
    assert not grants().covers_text(asked)


def test_each_of_several_grants_covers_by_itself() -> None:
    """Two grants that only together would cover do not."""
    assert not grants("job:a", "job:b").covers_text("job:*")


def test_remembered_answers_are_bounded() -> None:
    one = grants("job:*")
    for number in range(5000):
        assert one.covers_text(f"job:n{number}")
        assert not one.covers_text(f"other:n{number}")
    assert one.covers_text("job:n0")


def test_who_is_named_and_who_is_not() -> None:
    policy = Policy({"alice": ["job:*"], "*": ["chat:*"]}, {"alice": ["job:*"]})
    assert policy.sending("alice") == grants("job:*")
    assert policy.sending("bob") == policy.sending(None) == grants("chat:*")
    assert policy.receiving("bob") == policy.receiving(None) == grants()
    assert Policy().sending("alice") is Policy().receiving(None) is None
    assert Policy({}).sending("alice") == grants()
    # A user of that name gets nothing that others do not.
    assert policy.sending("*") == grants("chat:*")


@pytest.mark.parametrize(
    ("allowed", "error"),
    [
        ("alice", TypeError),
        (["alice"], TypeError),
        ({"alice": "job:*"}, TypeError),
        ({"alice": 5}, TypeError),
        ({"alice": [5]}, TypeError),
        ({5: ["job:*"]}, TypeError),
        ({"alice": [""]}, ValueError),
        ({"alice": ["_local:*"]}, ValueError),
    ],
)
@pytest.mark.parametrize("name", ["allow_send", "allow_receive"])
def test_what_is_no_policy(name: str, allowed: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Node(None, Bus(), **{name: allowed})


# -- nodes with keys ----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for keys, name in ((PLANT, "plant"), (ALICE, "alice"), (BOB, "bob"), (CAROL, "carol")):
        keys.save(tmp_path, name).unlink()
    return tmp_path


def node(keys: rpc.KeyPair, folder: Path, **options: Any) -> Node:
    security = rpc.CurveServer(keys, folder)
    return Node("tcp://127.0.0.1:*", Bus(), security=security, **options)


def heard_by(node: Node, identifier: str = ANY) -> list[Any]:
    """What arrives of other nodes, as identifiers."""
    heard: list[Any] = []

    def hear(message: Any) -> None:
        if message.name != "connection":
            heard.append(message.id)

    node.bus.regist_function(identifier, hear)
    return heard


def events_at(node: Node, action: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    node.bus.regist_function(f"connection:{action}", lambda message: events.append(message.kwargs))
    return events


SEND = {"alice": ["job:*", "last:*"], "*": ["chat:*", "last:*"]}


async def test_single_messages(folder: Path) -> None:
    async with (
        node(PLANT, folder, allow_send=SEND) as plant,
        node(ALICE, folder) as alice,
        node(BOB, folder) as bob,
    ):
        heard = heard_by(plant)
        where = plant.endpoints[0]
        by_alice = await alice.connect_oneway(where, server=PLANT.public)
        by_bob = await bob.connect_oneway(where, server=PLANT.public)
        assert await by_alice.send_message("job:done", 1) == "ok"
        assert await by_bob.send_message("chat:hello", 1) == "ok"
        for connection, user, identifier in (
            (by_alice, "alice", "chat:hello"),
            (by_alice, "alice", "*:done"),
            (by_alice, "alice", "*:*"),
            (by_bob, "bob", "job:done"),
            (by_bob, "bob", "job@plant:done"),
        ):
            with pytest.raises(rpc.PermissionDeniedError) as denied:
                await connection.send_message(identifier, 1)
            assert f"the user '{user}' may not send '{identifier}'" in str(denied.value)
        assert heard == ["job:done", "chat:hello"]
        assert plant.statistics()["messages_denied"] == 5
        # The program itself is no user.
        plant.bus.twitter("secret:thing")
        assert heard[2:] == ["secret:thing"]


async def interconnect(alice: Node, plant: Node, dials: str, calls_back: bool) -> None:
    dialer, other = (alice, plant) if dials == "alice" else (plant, alice)
    await dialer.interconnect(
        other.endpoints[0],
        callback=dialer.endpoints[0] if calls_back else None,
        server=PLANT.public if other is plant else ALICE.public,
    )


@pytest.mark.parametrize("calls_back", [False, True])
@pytest.mark.parametrize("dials", ["alice", "plant"])
async def test_batches_of_nodes(folder: Path, dials: str, calls_back: bool, until: Any) -> None:
    """What a node may not send is counted and reported, and the rest passes, in order."""
    async with (
        node(PLANT, folder, allow_send=SEND) as plant,
        node(ALICE, folder) as alice,
        node(CAROL, folder) as carol,
    ):
        heard, at_carol = heard_by(plant), heard_by(carol)
        refused = events_at(plant, "refused")
        missed_at_plant, missed_at_carol = events_at(plant, "missed"), events_at(carol, "missed")
        await carol.interconnect(plant.endpoints[0], server=PLANT.public)
        await interconnect(alice, plant, dials, calls_back)
        for number in range(100):
            alice.bus.twitter(f"job:n{number}", number)
            alice.bus.twitter(f"secret:n{number}", number)
            alice.bus.twitter(f"secret:n{number}", number, large=b"x" * 20_000)
        alice.bus.twitter("last:one")
        await until(lambda: "last:one" in at_carol)
        expected = [*(f"job:n{number}" for number in range(100)), "last:one"]
        assert heard == at_carol == expected
        assert plant.statistics()["messages_denied"] >= 200
        assert refused
        assert refused[0]["user"] == "alice"
        assert refused[0]["example"].startswith("secret:n")
        assert refused[0]["count"] >= 1
        assert not missed_at_plant
        assert not missed_at_carol
        for each in (plant, carol):
            assert each.statistics()["messages_missed"] == 0


@pytest.mark.parametrize("calls_back", [False, True])
@pytest.mark.parametrize("dials", ["alice", "plant"])
async def test_what_a_node_may_not_get(
    folder: Path, dials: str, calls_back: bool, until: Any
) -> None:
    """It is left out; neither the node nor one behind it reports a gap."""
    allowed = {"alice": ["job:*", "last:*"]}
    async with (
        node(PLANT, folder, allow_receive=allowed) as plant,
        node(ALICE, folder) as alice,
        node(CAROL, folder) as behind,
    ):
        at_alice, at_end = heard_by(alice), heard_by(behind)
        missed, missed_behind = events_at(alice, "missed"), events_at(behind, "missed")
        await behind.interconnect(alice.endpoints[0], server=ALICE.public)
        await interconnect(alice, plant, dials, calls_back)
        plant.bus.twitter("secret:first")
        for number in range(100):
            plant.bus.twitter(f"job:n{number}", number, large=b"x" * (number % 3 * 5000))
            plant.bus.twitter(f"secret:n{number}", number)
            plant.bus.twitter("*:everything", number)
        plant.bus.twitter("last:one")
        await until(lambda: "last:one" in at_end)
        expected = [*(f"job:n{number}" for number in range(100)), "last:one"]
        assert at_alice == at_end == expected
        assert plant.statistics()["messages_withheld"] == 201
        assert not missed
        assert not missed_behind
        for each in (alice, behind):
            assert each.statistics()["messages_missed"] == 0


async def test_who_is_not_named_gets_nothing(folder: Path, until: Any) -> None:
    async with (
        node(PLANT, folder, allow_receive={"alice": [ANY]}, allow_send={"alice": [ANY]}) as plant,
        node(ALICE, folder) as alice,
        node(BOB, folder) as bob,
    ):
        at_alice, at_bob, at_plant = heard_by(alice), heard_by(bob), heard_by(plant)
        for each in (alice, bob):
            await each.interconnect(plant.endpoints[0], server=PLANT.public)
        bob.bus.twitter("job:by_bob")
        plant.bus.twitter("job:by_plant")
        alice.bus.twitter("job:by_alice")
        await until(lambda: len(at_plant) == 2 == len(at_alice))
        await until(lambda: plant.statistics()["messages_denied"] == 1)
        assert at_bob == ["job:by_bob"]
        assert sorted(at_plant) == ["job:by_alice", "job:by_plant"]
        assert sorted(at_alice) == ["job:by_alice", "job:by_plant"]


async def test_a_message_that_comes_by_two_ways(folder: Path, until: Any) -> None:
    """What one link may not bring, another may, and it is taken once and in order."""
    allowed = {"bob": [ANY], "alice": ["job:*"]}
    async with (
        node(PLANT, folder, allow_send=allowed) as plant,
        node(ALICE, folder) as alice,
        node(BOB, folder) as bob,
    ):
        heard = heard_by(plant)
        await alice.interconnect(bob.endpoints[0], server=BOB.public)
        await bob.interconnect(plant.endpoints[0], server=PLANT.public)
        await alice.interconnect(plant.endpoints[0], server=PLANT.public)
        expected = []
        for number in range(200):
            identifier = f"{'secret' if number % 3 else 'job'}:n{number}"
            expected.append(identifier)
            alice.bus.twitter(identifier, number)
        await until(lambda: len(heard) == len(expected))
        assert heard == expected
        assert plant.statistics()["messages_missed"] == 0


async def test_the_answers_of_talk(folder: Path, until: Any) -> None:
    """They are messages as well: who may not send them does not answer."""
    allowed = {"alice": ["question:*"], "bob": ["answer:*"]}
    async with (
        node(PLANT, folder, allow_send=allowed) as plant,
        node(ALICE, folder) as alice,
        node(BOB, folder) as bob,
    ):
        answers: list[Any] = []
        plant.bus.regist_function("answer:*", lambda message: answers.append(message.args[0]))
        for each, name in ((alice, "alice"), (bob, "bob")):
            each.bus.regist_function("question:*", lambda message, name=name: name)
            await each.interconnect(plant.endpoints[0], server=PLANT.public)
        plant.bus.talk("question:who", "answer:who")
        await until(lambda: plant.statistics()["messages_denied"] == 1 and answers)
        assert answers == ["bob"]


async def test_values_of_the_users_own_pass_a_filter(folder: Path, until: Any) -> None:
    """A node that has no entry for them passes them on, split batches included."""

    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    table = {
        5: (Point, lambda point: bytes([point.x]), lambda data: Point(data[0])),
    }
    async with (
        node(PLANT, folder, allow_receive={"*": ["job:*"]}, allow_send={"*": ["job:*"]}) as plant,
        node(ALICE, folder, translation_table=table) as alice,
        node(BOB, folder, translation_table=table) as bob,
    ):
        points: list[int] = []
        bob.bus.regist_function("job:*", lambda message: points.append(message.args[0].x))
        for each in (alice, bob):
            await each.interconnect(plant.endpoints[0], server=PLANT.public)
        for number in range(50):
            alice.bus.twitter("job:new", Point(number))
            alice.bus.twitter("secret:new", Point(number))
        await until(lambda: len(points) == 50)
        assert points == list(range(50))


async def test_queues(folder: Path) -> None:
    allowed = {"alice": ["job:*"], "bob": ["job:done"]}
    async with (
        node(PLANT, folder, allow_receive=allowed) as plant,
        node(ALICE, folder) as alice,
        node(BOB, folder) as bob,
        node(CAROL, folder) as carol,
    ):
        where = plant.endpoints[0]

        async def queue(one: Node, identifier: str, shared: bool = False) -> Any:
            return await one.connect_via_queue(
                identifier, where, server=PLANT.public, shared=shared
            )

        by_alice = await queue(alice, ANY)
        by_bob = await queue(bob, "job:*")
        by_carol = await queue(carol, ANY)
        shared = [await queue(each, "job:*", True) for each in (alice, bob)]
        for identifier in ("secret:thing", "job:new", "*:done", "job:*", "job:done"):
            plant.bus.twitter(identifier)
        assert [(await by_alice.get(timeout=10)).id for _ in range(3)] == [
            "job:new",
            "job:*",
            "job:done",
        ]
        assert (await by_bob.get(timeout=10)).id == "job:done"
        # Users who may get different messages have no queue in common.
        assert [(await shared[0].get(timeout=10)).id for _ in range(3)] == [
            "job:new",
            "job:*",
            "job:done",
        ]
        assert (await shared[1].get(timeout=10)).id == "job:done"
        for empty in (by_alice, by_bob, by_carol, *shared):
            with pytest.raises(Empty):
                await empty.get(timeout=0)


async def test_users_with_the_same_grants_share_a_queue(folder: Path, until: Any) -> None:
    async with (
        node(PLANT, folder, allow_receive={"alice": ["job:*"], "bob": ["job:*"]}) as plant,
        node(ALICE, folder) as alice,
        node(BOB, folder) as bob,
    ):
        queues = [
            await each.connect_via_queue(
                "job:*", plant.endpoints[0], server=PLANT.public, shared=True
            )
            for each in (alice, bob)
        ]
        assert plant.statistics()["queues"] == 1
        await queues[0].close()
        plant.bus.twitter("job:new")
        assert (await queues[1].get(timeout=10)).id == "job:new"
        await queues[1].close()
        await until(lambda: plant.statistics()["queues"] == 0)


async def test_an_event_of_many_refusals_has_a_rate(
    folder: Path, caplog: pytest.LogCaptureFixture, until: Any
) -> None:
    caplog.set_level(logging.WARNING)
    async with (
        node(PLANT, folder, allow_send={"alice": ["last:*"]}) as plant,
        node(ALICE, folder) as alice,
    ):
        refused, heard = events_at(plant, "refused"), heard_by(plant)
        await alice.interconnect(plant.endpoints[0], server=PLANT.public)
        for number in range(3000):
            alice.bus.twitter("secret:thing", number)
            if number % 100 == 0:
                await asyncio.sleep(0)
        alice.bus.twitter("last:one")
        await until(lambda: heard)
        assert plant.statistics()["messages_denied"] == 3000
        assert 1 <= len(refused) < 20
    lines = [each for each in caplog.records if each.name == "berrymq_rpc.security"]
    assert "messages of alice by" in lines[0].getMessage()
    assert len(lines) < 20


async def test_a_peer_without_a_name() -> None:
    async with (
        Node("tcp://127.0.0.1:*", Bus(), allow_send={"alice": [ANY], "*": ["chat:*"]}) as plant,
        Node(None, Bus()) as other,
    ):
        sender = await other.connect_oneway(plant.endpoints[0])
        assert await sender.send_message("chat:hello") == "ok"
        with pytest.raises(rpc.PermissionDeniedError, match="a caller without a name may not send"):
            await sender.send_message("job:done")
        with pytest.raises(ValueError, match="not an identifier"):
            await sender.send_message("a:b:c")


async def test_a_key_without_a_name_is_named_by_itself() -> None:
    security = rpc.CurveServer(PLANT, {ALICE.public, BOB.public})
    options = {"allow_send": {ALICE.public: ["job:*"]}, "security": security}
    async with Node("tcp://127.0.0.1:*", Bus(), **options) as plant:
        for keys, may in ((ALICE, True), (BOB, False)):
            client = rpc.CurveClient(keys, server=PLANT.public)
            async with Node(None, Bus(), security=client) as other:
                sender = await other.connect_oneway(plant.endpoints[0])
                if may:
                    assert await sender.send_message("job:done") == "ok"
                else:
                    with pytest.raises(rpc.PermissionDeniedError):
                        await sender.send_message("job:done")


def test_a_node_for_threads(folder: Path) -> None:
    heard: list[str] = []
    bus = Bus()
    bus.regist_function("job:*", lambda message: heard.append(message.id))
    security = rpc.CurveServer(PLANT, folder)
    with SyncNode(bus, security=security, allow_send={"alice": ["job:new"]}) as plant:
        endpoint = plant.init_connection("tcp://127.0.0.1:*")
        client = rpc.CurveClient(ALICE, server=PLANT.public)
        with SyncNode(Bus(), security=client) as alice:
            alice.connect_oneway(endpoint)
            assert alice.send_message("job:new") == "ok"
            with pytest.raises(rpc.PermissionDeniedError):
                alice.send_message("job:done")
    assert heard == ["job:new"]


# -- users of a bridge --------------------------------------------------------------------------


TOKENS = {"open sesame": "alice", "close sesame": "bob"}


@asynccontextmanager
async def socket_of(url: str, token: str) -> AsyncIterator[Any]:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.ws_connect(url + "/ws") as socket,
    ):

        async def ask(method: str, *params: Any) -> Any:
            asked = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
            await socket.send_str(json.dumps(asked))
            while "id" not in (answer := await socket.receive_json(timeout=10)):
                pass
            return answer

        ask.socket = socket  # type: ignore[attr-defined]
        yield ask


async def test_the_functions_by_json_rpc() -> None:
    policy = {"alice": ["job:*"], "bob": ["chat:*"]}
    async with (
        Node(None, Bus(), allow_send=policy, allow_receive=policy) as plant,
        Bridge(plant) as bridge,
    ):
        heard = heard_by(plant)
        url = await bridge.serve_http(token=TOKENS)
        async with socket_of(url, "open sesame") as alice, socket_of(url, "close sesame") as bob:
            for ask in (alice, bob):
                token = (await ask("connect_oneway"))["result"]
                queue = (await ask("connect_via_queue", ANY))["result"]
                may, may_not = ("job:a", "chat:a") if ask is alice else ("chat:a", "job:a")
                assert (await ask("send_message", token, may))["result"] == "ok"
                error = (await ask("send_message", token, may_not))["error"]
                assert error["code"] == -32001
                assert (await ask("get_nowait", queue))["result"]["id"] == may
                assert (await ask("get_nowait", queue))["result"] == "timeout"
        assert heard == ["job:a", "chat:a"]


async def test_subscriptions() -> None:
    policy = {"alice": ["job:*"]}
    async with Node(None, Bus(), allow_receive=policy) as plant, Bridge(plant) as bridge:
        url = await bridge.serve_http(token=TOKENS)
        async with socket_of(url, "open sesame") as alice, socket_of(url, "close sesame") as bob:
            for ask in (alice, bob):
                assert (await ask("subscribe", ANY))["result"]
            for identifier in ("secret:thing", "*:done", "job:done"):
                plant.bus.twitter(identifier)
            message = await alice.socket.receive_json(timeout=10)
            assert message["params"]["id"] == "job:done"
            # The answer is the next text: no message has come before it.
            await bob.socket.send_str('{"jsonrpc": "2.0", "method": "connect_oneway", "id": 7}')
            assert (await bob.socket.receive_json(timeout=10))["id"] == 7


async def test_a_leaf_of_the_network_by_json_rpc() -> None:
    """A peer that interconnects without numbers gets and sends what it may."""
    policy = {"alice": ["job:*"]}
    async with (
        Node(None, Bus(), allow_receive=policy, allow_send=policy) as plant,
        Bridge(plant) as bridge,
    ):
        heard = heard_by(plant)
        url = await bridge.serve_http(token=TOKENS)
        async with socket_of(url, "open sesame") as alice:
            token = (await alice("interconnect", None, "my token", 100))["result"]
            assert (await alice("send_message", token, "job:mine"))["result"] == "ok"
            assert (await alice("send_message", token, "chat:mine"))["error"]["code"] == -32001
            for identifier in ("secret:thing", "job:done"):
                plant.bus.twitter(identifier)
            message = await alice.socket.receive_json(timeout=10)
            assert message["method"] == "send_message"
            assert message["params"][1] == "job:done"
        assert heard == ["job:mine", "secret:thing", "job:done"]


async def test_nodes_over_http(until: Any) -> None:
    """The user is the one of the token, in both directions."""
    policy = {"alice": ["job:*", "last:*"]}
    async with (
        Node(None, Bus(), allow_receive=policy, allow_send=policy) as plant,
        Node(None, Bus()) as alice,
        Bridge(plant) as bridge,
        Bridge(alice) as at_alice,
    ):
        heard_here, heard_there = heard_by(plant, "*:by_alice"), heard_by(alice, "*:by_plant")
        missed = [events_at(each, "missed") for each in (plant, alice)]
        await at_alice.serve_http()
        url = await bridge.serve_http(token={"sesame": "alice"})
        await alice.interconnect(url.replace("http://", "http://any:sesame@"))
        for number in range(20):
            for name in ("job", "secret"):
                alice.bus.twitter(f"{name}:by_alice", number)
                plant.bus.twitter(f"{name}:by_plant", number)
        for each, name in ((alice, "alice"), (plant, "plant")):
            each.bus.twitter(f"last:by_{name}")
        await until(lambda: len(heard_here) == len(heard_there) == 21)
        assert heard_here == ["job:by_alice"] * 20 + ["last:by_alice"]
        assert heard_there == ["job:by_plant"] * 20 + ["last:by_plant"]
        assert missed == [[], []]


# -- one message with an envelope ---------------------------------------------------------------


async def test_a_single_message_with_an_envelope(folder: Path, until: Any) -> None:
    async with node(PLANT, folder, allow_send={"alice": ["job:*"]}) as plant:
        heard, missed = heard_by(plant), events_at(plant, "missed")
        security = rpc.CurveClient(ALICE, server=PLANT.public)
        async with await rpc.open_client(
            connect=plant.endpoints[0], security=security, timeout=10
        ) as client:
            token = await client.rpc.interconnect(None, "a token", 100, "far")

            async def send(identifier: str, number: int) -> Any:
                envelope = {"origin": "far", "epoch": 1, "seq": number}
                return await client.rpc.send_message(token, identifier, (), {}, envelope)

            assert await send("job:a", 1) == "ok"
            with pytest.raises(rpc.PermissionDeniedError):
                await send("secret:b", 2)
            assert await send("job:c", 3) == "ok"
            await until(lambda: len(heard) == 2)
        assert heard == ["job:a", "job:c"]
        assert missed == []
        assert plant.statistics()["messages_denied"] == 1
