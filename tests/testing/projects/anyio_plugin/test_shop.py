import anyio
import pytest
from shop import Shop, pay

from berrymq_rpc import rpc


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_retry(berrymq):
    server = await berrymq.serve(Shop())
    client = await berrymq.client(server, timeout=5)
    server.method("charge").fails(ConnectionError("down"), times=2).then(returns=7)
    assert await pay(client, 5) == 7
    assert server.calls("charge") == [((5,), {})] * 3


async def test_in_a_task_group(berrymq):
    server = await berrymq.serve(Shop())
    client = await berrymq.client(server)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(pay, client, 1)
    assert len(server.calls("charge")) == 3


async def test_a_scope_is_cancelled(berrymq):
    server = await berrymq.serve(Shop())
    client = await berrymq.client(server)
    assert await client.rpc.charge(2) == 2
    server.method("charge").hangs()
    with anyio.move_on_after(0.2):
        await client.rpc.charge(1)
    await berrymq.until(lambda: server.cancelled("charge") == [((1,), {})])


async def test_frozen_server(berrymq):
    server = await berrymq.serve(Shop())
    client = await berrymq.client(server, limits=rpc.Limits(heartbeat=0.5))
    assert await client.rpc.charge(1) == 1
    server.freeze()
    with berrymq.raises_within(rpc.ConnectionLostError, 4.0):
        await client.rpc.charge(1)
    server.thaw()
    assert await pay(client, 1) >= 2


async def test_too_long(berrymq):
    with (
        pytest.raises(AssertionError, match=r"within 0\.05 s"),
        berrymq.raises_within(ValueError, 0.05),
    ):
        await anyio.sleep(10)
    await anyio.sleep(0)


@pytest.fixture
async def client(berrymq):
    server = await berrymq.serve(Shop())
    return await berrymq.client(server)


async def test_an_async_fixture(client):
    assert await pay(client, 3) == 3


@pytest.fixture
async def missing(client):
    pytest.skip("what the test needs is not there")


async def test_that_does_not_begin(missing): ...
