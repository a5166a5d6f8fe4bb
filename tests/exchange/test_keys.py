"""Nodes with keys: all three styles, tokens that belong to a key, and keys that are removed."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.exchange.sync_node import SyncNode

ONE = rpc.KeyPair.generate()
OTHER = rpc.KeyPair.generate()
NEW = rpc.KeyPair.generate()
STRANGER = rpc.KeyPair.generate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ONE.save(tmp_path, "one").unlink()
    OTHER.save(tmp_path, "other").unlink()
    return tmp_path


def node(keys: rpc.KeyPair, folder: Path, **options: Any) -> Node:
    security = rpc.CurveServer(keys, folder)
    return Node("tcp://127.0.0.1:*", Bus(), security=security, **options)


def heard_by(node: Node, identifier: str) -> list[Any]:
    heard: list[Any] = []
    node.bus.regist_function(identifier, lambda message: heard.append(message.args[0]))
    return heard


@pytest.mark.parametrize("calls_back", [False, True])
async def test_interconnected(folder: Path, calls_back: bool, until: Any) -> None:
    async with node(ONE, folder) as one, node(OTHER, folder) as other:
        at_one, at_other = heard_by(one, "from:other"), heard_by(other, "from:one")
        callback = one.endpoints[0] if calls_back else None
        await one.interconnect(other.endpoints[0], callback=callback, server=OTHER.public)
        one.bus.twitter("from:one", 1)
        other.bus.twitter("from:other", 2)
        await until(lambda: at_one and at_other)
        assert (at_one, at_other) == ([2], [1])


async def test_one_way_and_by_a_queue(folder: Path) -> None:
    async with node(ONE, folder) as one, node(OTHER, folder) as other:
        heard = heard_by(other, "a:b")
        sender = await one.connect_oneway(other.endpoints[0], server=OTHER.public)
        assert await sender.send_message("a:b", 1) == "ok"
        assert heard == [1]
        queue = await one.connect_via_queue("job:*", other.endpoints[0], server=OTHER.public)
        other.bus.twitter("job:new", 5)
        assert (await queue.get(timeout=10)).args == (5,)


async def test_the_keys_of_others_in_the_value(folder: Path) -> None:
    async with node(OTHER, folder) as other:
        servers = {other.endpoints[0]: OTHER.public}
        security = rpc.CurveServer(ONE, folder, servers=servers)
        async with Node(None, Bus(), security=security) as one:
            connection = await one.connect_oneway(other.endpoints[0])
            assert await connection.send_message("a:b") == "ok"


async def test_a_key_that_is_not_known(folder: Path) -> None:
    async with node(ONE, folder) as one:
        for connect in (
            one.connect_oneway("tcp://127.0.0.1:9"),
            one.connect_via_queue("a:b", "tcp://127.0.0.1:9"),
            one.interconnect("tcp://127.0.0.1:9"),
        ):
            with pytest.raises(ValueError, match=r"the public key of .* is not known"):
                await connect
        # Nothing is left of the attempt.
        with pytest.raises(ValueError, match="the public key of"):
            await one.interconnect("tcp://127.0.0.1:9")
        assert one.connections == ()


async def test_a_key_that_cannot_be_asked_for(folder: Path) -> None:
    # To leave it out would be to talk to anybody.
    client = rpc.CurveClient(ONE, server=OTHER.public)
    async with (
        Node("tcp://127.0.0.1:*", Bus()) as plain,
        Node(None, Bus()) as without,
        Node(None, Bus(), security=client) as of_other,
    ):
        for one, text in ((without, "this node has no keys"), (of_other, "a CurveClient for")):
            for connect in (
                one.connect_oneway(plain.endpoints[0], server=ONE.public),
                one.connect_via_queue("a:b", plain.endpoints[0], server=ONE.public),
                one.interconnect(plain.endpoints[0], server=ONE.public),
            ):
                with pytest.raises(ValueError, match=text):
                    await connect
            with pytest.raises(ValueError, match="by the certificate of https://"):
                await one.connect_oneway("http://127.0.0.1:9", server=ONE.public)
            assert one.connections == ()


async def test_a_new_key_of_a_node_beside_the_old_one(folder: Path, until: Any) -> None:
    NEW.save(folder, "new").unlink()
    security = rpc.CurveServer([OTHER, NEW], folder)
    async with (
        node(ONE, folder) as one,
        Node(["tcp://127.0.0.1:*"] * 2, Bus(), security=security) as other,
        Node(None, Bus(), security=security) as third,
    ):
        heard = heard_by(other, "a:b")
        old, new = other.endpoints
        await one.connect_oneway(old, server=OTHER.public)
        await one.interconnect(new, server=NEW.public)
        one.bus.twitter("a:b", 1)
        await until(lambda: heard)
        with pytest.raises(rpc.AuthenticationError):
            await one.connect_oneway(new, server=OTHER.public)
        # It connects with the first.
        await third.interconnect(one.endpoints[0], server=ONE.public)
        with pytest.raises(ValueError, match="2 keys for 1 endpoints"):
            await third.listen("tcp://127.0.0.1:*")
        assert len(await third.listen(["tcp://127.0.0.1:*"] * 2)) == 2


async def test_a_node_that_only_connects(folder: Path, until: Any) -> None:
    async with node(ONE, folder) as one:
        client = rpc.CurveClient(OTHER, server=ONE.public)
        heard = heard_by(one, "a:b")
        async with Node(None, Bus(), security=client) as other:
            await other.interconnect(one.endpoints[0])
            other.bus.twitter("a:b", 1)
            await until(lambda: heard)


async def test_a_stranger_is_told(folder: Path) -> None:
    async with node(ONE, folder) as one, node(STRANGER, folder) as stranger:
        with pytest.raises(rpc.AuthenticationError) as refused:
            await stranger.connect_oneway(one.endpoints[0], server=ONE.public)
        assert refused.value.reason == "key"
        with pytest.raises(rpc.AuthenticationError) as refused:
            await stranger.interconnect(one.endpoints[0], server=OTHER.public)
        assert refused.value.reason == "handshake"


async def test_a_call_back_wants_the_key_that_came(folder: Path, until: Any) -> None:
    # Another server has taken the place where the caller says that it listens.
    async with (
        node(ONE, folder) as one,
        node(OTHER, folder) as other,
        node(STRANGER, folder) as stranger,
    ):
        heard = heard_by(stranger, "secret:plan")
        client = rpc.CurveClient(ONE, server=OTHER.public)
        async with await rpc.open_client(
            connect=other.endpoints[0], security=client, timeout=10
        ) as raw:
            await raw.rpc.interconnect(stranger.endpoints[0], None, 60, "one")
        other.bus.twitter("secret:plan", 1)
        # It waits at the link: a second node that may have it has got it by then.
        witness = heard_by(one, "secret:plan")
        await one.interconnect(other.endpoints[0], server=OTHER.public)
        other.bus.twitter("secret:plan", 2)
        await until(lambda: 2 in witness)
        assert heard == []


async def test_a_token_belongs_to_its_key(folder: Path) -> None:
    async with (
        node(ONE, folder) as one,
        await rpc.open_client(
            connect=one.endpoints[0],
            security=rpc.CurveClient(ONE, server=ONE.public),
            timeout=10,
        ) as owner,
        await rpc.open_client(
            connect=one.endpoints[0],
            security=rpc.CurveClient(OTHER, server=ONE.public),
            timeout=10,
        ) as thief,
    ):
        token = await owner.rpc.connect_via_queue("a:b", 60)
        one.bus.twitter("a:b", 1)
        assert await thief.rpc.get(token, False) == "invalid token"
        assert await thief.rpc.send_message(token, "a:b") == "invalid token"
        assert await thief.rpc.close_connection(token) == "invalid token"
        assert await thief.rpc.acknowledge(token, 1) == "invalid token"
        async for statuses in thief.rpc.keep_alive((token,)):
            assert statuses == {token: "invalid token"}
        assert (await owner.rpc.get(token, False))["args"] == (1,)
        oneway = await owner.rpc.connect_oneway(60)
        assert await thief.rpc.send_message(oneway, "a:b") == "invalid token"
        assert await owner.rpc.send_message(oneway, "a:b") == "ok"
        # A proposed token of somebody else is refused, whoever it belongs to.
        with pytest.raises(ValueError, match="this token is in use"):
            await thief.rpc.interconnect(None, token, 60)


async def test_the_tokens_of_a_removed_key_are_void(folder: Path, until: Any) -> None:
    async with node(ONE, folder) as one, node(OTHER, folder) as other:
        queue = await other.connect_via_queue("a:b", one.endpoints[0], server=ONE.public)
        await other.interconnect(one.endpoints[0], server=ONE.public)
        assert one.statistics()["connections"] == 2
        waiting = asyncio.ensure_future(queue.get())
        (folder / "other.key").unlink()
        await until(lambda: one.statistics()["connections"] == 0)
        with pytest.raises(rpc.ConnectionLostError):
            async with asyncio.timeout(10):
                await waiting


@pytest.mark.parametrize("wait", [..., None, 60])
def test_a_program_that_waits_for_a_node_is_told_that_it_is_refused(
    folder: Path, wait: Any
) -> None:
    with SyncNode(Bus(), security=rpc.CurveServer(ONE, folder)) as one:
        endpoint = one.init_connection(("127.0.0.1", 0))
        for security, server, reason in (
            (rpc.CurveServer(STRANGER, ()), ONE.public, "key"),
            (rpc.CurveServer(OTHER, ()), STRANGER.public, "handshake"),
            (None, None, "keys wanted"),
        ):
            with SyncNode(Bus(), security=security) as other:
                with pytest.raises(rpc.AuthenticationError) as refused:
                    other.interconnect(endpoint, wait=wait, server=server)
                assert refused.value.reason == reason


async def test_a_call_back_that_is_refused_is_tried_seldom(
    folder: Path, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with node(ONE, folder) as one, node(OTHER, folder / "nobody") as other:
        security = rpc.CurveClient(OTHER, server=ONE.public)
        async with await rpc.open_client(
            connect=one.endpoints[0], security=security, timeout=10
        ) as raw:
            # It has the key that `one` expects there, and does not authorize that of `one`.
            await raw.rpc.interconnect(other.endpoints[0], None, 60, "other")
            text = f"calling back {other.endpoints[0]}: "

            def told() -> list[float]:
                return [r.created for r in caplog.records if r.message.startswith(text)]

            await until(lambda: len(told()) == 2)
            assert "has not authorized this client's key" in caplog.text
            first, second = told()
            assert second - first > 0.9


def test_programs_without_asyncio(folder: Path) -> None:
    bus = Bus()
    with (
        SyncNode(bus, security=rpc.CurveServer(ONE, folder)) as one,
        SyncNode(Bus(), security=rpc.CurveServer(OTHER, folder)) as other,
    ):
        endpoint = one.init_connection(("127.0.0.1", 0))
        other.connect_via_queue(endpoint, "job:*", server=ONE.public)
        bus.twitter("job:new", 1)
        assert other.get(timeout=10).args == (1,)
        with pytest.raises(ValueError, match="the public key of"):
            other.connect_oneway(endpoint)
