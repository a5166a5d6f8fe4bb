import asyncio

import pytest
import pytest_asyncio
from shop import Shop, pay

from berrymq_rpc import rpc


async def test_retry(berrymq):
    server = await berrymq.serve(Shop())
    client = await berrymq.client(server, timeout=5)
    server.method("charge").fails(ConnectionError("down"), times=2).then(returns=7)
    assert await pay(client, 5) == 7
    assert server.calls("charge") == [((5,), {})] * 3


async def test_gives_up(berrymq):
    server = await berrymq.serve(Shop())
    client = await berrymq.client(server)
    server.method("charge").fails(ConnectionError("down"))
    with pytest.raises(RuntimeError, match="not possible"):
        await pay(client, 5, tries=3)
    assert len(server.calls("charge")) == 3


async def test_server_restarts(berrymq):
    server = await berrymq.serve(Shop())
    client = await berrymq.client(server)
    assert await pay(client, 5) == 5
    server.kill()
    with berrymq.raises_within(rpc.ConnectionLostError, 4.0):
        await (await berrymq.client(server, connect_timeout=0.05)).rpc.charge(5)
    await server.restart()
    assert await pay(client, 5) == 10


async def test_slow_server(berrymq):
    server = await berrymq.serve(Shop())
    client = await berrymq.client(server)
    assert await pay(client, 1) == 1
    server.method("charge").hangs()
    with berrymq.raises_within(rpc.RPCTimeoutError, 2.0):
        await client.with_timeout(0.2).rpc.charge(5)
    await berrymq.until(lambda: server.expired("charge") == [((5,), {})])


async def test_lost_on_the_way(berrymq):
    server = await berrymq.serve(Shop())
    client = await berrymq.client(server)
    assert await client.rpc.charge(1) == 1
    berrymq.link(client).cut()
    assert await pay(client, 1) == 2


async def test_a_stream_and_a_notification(berrymq):
    server = await berrymq.serve(Shop())
    client = await berrymq.client(server)
    server.method("watch").returns(["planned"])
    assert [item async for item in client.rpc.watch(3)] == ["planned"]
    client.notify.log("done")
    await berrymq.until(lambda: server.notifications("log") == [(("done",), {})])


@pytest_asyncio.fixture
async def client(berrymq):
    server = await berrymq.serve(Shop())
    client = await berrymq.client(server)
    yield client
    client.close()
    await client.wait_closed()


async def test_an_async_fixture(client):
    assert await pay(client, 3) == 3


class TestInAClass:
    async def test_a_method(self, berrymq, client):
        assert await client.rpc.charge(amount=1) == 1

    @pytest.mark.parametrize("amount", [1, 2])
    async def test_parameters(self, berrymq, amount):
        server = await berrymq.serve(Shop())
        assert await (await berrymq.client(server)).rpc.charge(amount) == amount


async def test_messages(berrymq):
    bus = berrymq.bus()
    heard = berrymq.listen("oven:*")
    asyncio.get_running_loop().call_later(0.01, bus.twitter, "oven:log", 42)
    message = await heard.wait("oven:log", 42)
    assert message.args == (42,)
    heard.expect_none("oven:fire")


def test_a_plain_one_beside_them(berrymq):
    server = berrymq.sync_serve(Shop())
    assert berrymq.sync_client(server).rpc.charge(2) == 2
