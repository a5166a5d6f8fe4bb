"""Connections in the diagram of a bus, and exceptions that leave the process."""

from berrymq_rpc import AsyncQueue, Bus, Node

BOUND = 10.0


async def test_links_and_remote_queues() -> None:
    here, there = Bus(), Bus()
    async with Node(bus=here) as node, Node("tcp://127.0.0.1:0", bus=there) as peer:
        (endpoint,) = peer.endpoints
        await node.interconnect(endpoint)
        await node.connect_via_queue("job:done", endpoint)
        assert here.show_followers() == {"*@*:*": [endpoint]}
        assert there.show_followers()["job:done"] == ["queue for other processes"]
        picture = there.show_network()
        assert picture.count("shape=cds") == 2
        assert '"job:done"' in picture
    assert here.show_followers() == there.show_followers() == {}
    assert "shape=cds" not in here.show_network()


async def test_exceptions_travel_as_text() -> None:
    here, there = Bus(), Bus()

    @there.twitter_exception("job:failed")
    def work() -> None:
        raise LookupError("broken")

    async with Node(bus=here) as node, Node("tcp://127.0.0.1:0", bus=there) as peer:
        (endpoint,) = peer.endpoints
        queue = AsyncQueue("job", bus=here)
        await node.interconnect(endpoint)
        remote = await node.connect_via_queue("job", endpoint)
        work()
        for message in (await queue.get(timeout=BOUND), await remote.get(timeout=BOUND)):
            assert message.args[0][-1] == "LookupError: broken\n"
            assert message.kwargs["type"] == "builtins.LookupError"
            assert message.kwargs["value"] == "LookupError: broken"
