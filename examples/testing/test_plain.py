import threading

from shop import Bank

from berrymq_rpc import Queue, rpc, twitter


def test_a_program_without_asyncio(berrymq):
    server = berrymq.sync_serve(Bank())
    bank = berrymq.sync_client(server, timeout=5)
    assert bank.rpc.charge(5) == 5
    server.method("charge").fails(ConnectionError("down"))
    with berrymq.raises_within(ConnectionError, 1.0, match="down"):
        bank.rpc.charge(5)
    assert server.calls("charge") == [((5,), {})] * 2


def test_the_bank_restarts(berrymq):
    server = berrymq.sync_serve(Bank())
    bank = berrymq.sync_client(server, connect_timeout=1)
    assert bank.rpc.charge(1) == 1
    server.kill()
    with berrymq.raises_within(rpc.ConnectionLostError, 3.0):
        bank.rpc.charge(1)
    server.restart()
    assert bank.rpc.charge(1) == 2


def test_messages_of_a_thread(berrymq):
    bus = berrymq.bus()
    heard = berrymq.listen("shop:*")
    thread = threading.Thread(target=bus.twitter, args=("shop:sold", 5))
    thread.start()
    heard.expect("shop:sold", 5, timeout=5)
    thread.join()


def test_a_queue(berrymq):
    berrymq.bus()
    with Queue("shop:*") as queue:
        twitter("shop:sold", 5)
        assert queue.get_nowait().args == (5,)
