import asyncio

import pytest
from shop import Bank, pay

from berrymq_rpc import rpc


async def test_pay(berrymq):
    server = await berrymq.serve(Bank())
    bank = await berrymq.client(server)
    assert await pay(bank, 5) == 5
    assert server.calls("charge") == [((5,), {})]


async def test_it_tries_again(berrymq):
    server = await berrymq.serve(Bank())
    bank = await berrymq.client(server)
    server.method("charge").fails(ConnectionError("down"), times=2).then(returns=7)
    assert await pay(bank, 5) == 7
    assert server.calls("charge") == [((5,), {})] * 3


async def test_it_gives_up(berrymq):
    server = await berrymq.serve(Bank())
    bank = await berrymq.client(server)
    server.method("charge").fails(ConnectionError("down"))
    with pytest.raises(RuntimeError, match="cannot be reached"):
        await pay(bank, 5)


async def test_a_slow_bank(berrymq):
    server = await berrymq.serve(Bank())
    bank = await berrymq.client(server)
    assert await pay(bank, 1) == 1
    server.method("charge").hangs()
    with berrymq.raises_within(rpc.RPCTimeoutError, 2.0):
        await pay(bank.with_timeout(0.2), 5)
    await berrymq.until(lambda: server.expired("charge") == [((5,), {})])


async def test_it_reports_what_it_sold(berrymq):
    server = await berrymq.serve(Bank())
    bank = await berrymq.client(server)
    await pay(bank, 5)
    await berrymq.until(lambda: server.notifications("log") == [(("sold for 5",), {})])


async def test_a_customer_who_leaves(berrymq):
    server = await berrymq.serve(Bank())
    bank = await berrymq.client(server)
    server.method("charge").hangs()
    paying = asyncio.create_task(pay(bank, 5))
    await berrymq.until(lambda: server.calls("charge"))
    paying.cancel()
    await berrymq.until(lambda: server.cancelled("charge"))


async def test_the_line_breaks(berrymq):
    server = await berrymq.serve(Bank())
    bank = await berrymq.client(server)
    assert await pay(bank, 1) == 1
    berrymq.link(bank).cut()
    assert await pay(bank, 1) == 2


async def test_an_answer_is_lost(berrymq):
    server = await berrymq.serve(Bank())
    bank = await berrymq.client(server)
    assert await pay(bank, 1) == 1
    berrymq.link(bank).drop(towards="client")
    with berrymq.raises_within(rpc.RPCTimeoutError, 2.0):
        await pay(bank.with_timeout(0.2), 5)
    # It was charged all the same.
    assert ((5,), {}) in server.calls("charge")


async def test_the_bank_restarts(berrymq):
    server = await berrymq.serve(Bank())
    bank = await berrymq.client(server)
    assert await pay(bank, 1) == 1
    server.kill()
    paying = asyncio.create_task(pay(bank, 1))
    await server.restart()
    assert await paying == 2


async def test_the_bank_freezes(berrymq):
    server = await berrymq.serve(Bank())
    bank = await berrymq.client(server, limits=rpc.Limits(heartbeat=0.5))
    assert await pay(bank, 1) == 1
    server.freeze()
    with berrymq.raises_within(rpc.ConnectionLostError, 2.0):
        await bank.rpc.charge(1)
    server.thaw()


async def test_it_says_what_it_sold(berrymq):
    berrymq.bus()
    heard = berrymq.listen("shop:*")
    bank = await berrymq.client(await berrymq.serve(Bank()))
    await pay(bank, 5)
    heard.expect("shop:sold", 5)
    heard.expect_none("shop:unclear")


async def test_it_says_so_later(berrymq):
    berrymq.bus()
    heard = berrymq.listen("shop:*")
    bank = await berrymq.client(await berrymq.serve(Bank()))
    paying = asyncio.create_task(pay(bank, 5))
    await heard.wait("shop:sold", 5)
    await paying
