import threading

import oven
import pytest

import berrymq_rpc
from berrymq_rpc import rpc


class Advisor(rpc.AttrHandler):
    @rpc.method
    def advice(self, temperature):
        return "cool" if temperature > 200 else "bake"

    @rpc.method(thread=True)
    def slow(self):
        return "done"


def test_calls(berrymq):
    server = berrymq.sync_serve(Advisor())
    client = berrymq.sync_client(server, timeout=5)
    assert oven.ask(client, 250) == "cool"
    server.method("advice").fails(ConnectionError("down")).then(returns="bake")
    assert oven.ask(client, 250) == "wait"
    assert oven.ask(client, 250) == "bake"
    assert server.calls("advice") == [((250,), {})] * 3


def test_a_server_that_is_gone(berrymq):
    server = berrymq.sync_serve(Advisor())
    client = berrymq.sync_client(server, connect_timeout=0.5)
    assert oven.ask(client, 100) == "bake"
    server.kill()
    assert oven.ask(client, 100) == "wait"
    server.restart()
    berrymq.sync_until(lambda: oven.ask(client, 100) == "bake", timeout=10)


def test_faults(berrymq):
    server = berrymq.sync_serve(Advisor())
    client = berrymq.sync_client(server)
    assert oven.ask(client, 1) == "bake"
    link = berrymq.link(client)
    link.drop(towards="server")
    with berrymq.raises_within(rpc.RPCTimeoutError, 2.0):
        client.with_timeout(0.2).rpc.advice(1)
    link.delay = 0.01
    assert oven.ask(client, 1) == "bake"
    server.method("slow").hangs()
    with berrymq.raises_within(rpc.RPCTimeoutError, 2.0):
        client.with_timeout(0.2).rpc.slow()


def test_bus(berrymq):
    bus = berrymq.bus(keep_followers=True)
    heard = berrymq.listen("oven:*")
    bus.twitter("oven:heat", 22)
    heard.expect("oven:log", 42, unit="C", timeout=5)
    heard.expect_none("oven:fire")


def test_a_message_from_a_thread(berrymq):
    bus = berrymq.bus()
    heard = berrymq.listen("oven:*")
    timer = threading.Timer(0.05, bus.twitter, ["oven:done"])
    timer.start()
    heard.expect("oven:done")
    timer.join()


def test_the_bus_is_as_it_was():
    queue = berrymq_rpc.Queue("oven:log")
    berrymq_rpc.twitter("oven:heat", 1)
    assert queue.get_nowait().args == (21,)


def test_what_is_missing_is_said(berrymq):
    heard = berrymq.listen("oven:*")
    berrymq_rpc.twitter("oven:log", 41)
    with pytest.raises(AssertionError, match=r"no oven:log\(42\) came.*\n.*\n  oven:log\(41\)"):
        heard.expect("oven:log", 42, timeout=0)
