"""A password in the address of a node over HTTP is sent to it, and shown to nobody."""

import logging
from typing import Any

import pytest

from berrymq_rpc import Bus, Node
from berrymq_rpc.jsonrpc.bridge import Bridge


async def test_a_password_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bus = Bus()
    events: list[Any] = []
    bus.regist_function("connection:*", events.append)
    shown: list[Any] = []
    async with Node(bus=bus) as node, Bridge(node) as bridge, Node(bus=Bus()) as other:
        await bridge.serve_http()
        guarded = await Bridge(other).start()
        url = await guarded.serve_http(token="sesame")
        with_password = url.replace("http://", "http://me:sesame@")
        with pytest.raises(Exception, match="401"):
            await node.connect_oneway(url)
        oneway = await node.connect_oneway(with_password)
        queue = await node.connect_via_queue("a:b", with_password)
        connections = [oneway, queue, await node.interconnect(with_password)]
        with pytest.raises(ValueError, match="messages would arrive twice") as twice:
            await node.interconnect(url)
        assert [connection.endpoint for connection in connections] == [url] * 3
        shown += [twice.value, node, node.connections, *connections, node.statistics()]
        await guarded.close()
        bus.twitter("a:b", 1)
        for call in (oneway.send_message("a:b"), queue.get(timeout=1)):
            with pytest.raises(ConnectionError) as lost:
                await call
            shown.append(lost.value)
        for wrong in ("htp://me:sesame@here:1", "tcp://me:sesame@here:1", "me:sesame@here:1"):
            with pytest.raises(ValueError, match=r"endpoint|user part") as refused:
                await node.connect_oneway(wrong)
            shown.append(refused.value)
    shown += [(event.id, event.args, event.kwargs) for event in events]
    assert "sesame" not in repr(shown)
    assert "sesame" not in caplog.text
    assert url in caplog.text
