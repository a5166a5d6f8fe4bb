"""Ctrl-C, in a handler and at a server: what is in flight is answered first."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from berrymq_rpc import rpc

Until = Callable[..., Awaitable[None]]

#: Seconds that a busy machine may take longer than is asked for.
SLACK = 2.0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("interrupt", "in sync"),
        ("interrupt_coroutine", "in coroutine"),
        ("interrupt_thread", "in thread"),
    ],
)
async def test_keyboard_interrupt_in_a_handler(server_process: Any, name: str, text: str) -> None:
    """It is answered, then the server ends as Ctrl-C ends it."""
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        with pytest.raises(rpc.GenericError) as caught:
            async with asyncio.timeout(5):
                await client.call(name)
        assert caught.value.exc_type == "builtins.KeyboardInterrupt"
        assert caught.value.arguments == (text,)
        code = await asyncio.to_thread(server.wait)
        assert code == 3
        assert server.lines[-1] == "interrupted"
        assert "Traceback" not in server.errors()


async def test_keyboard_interrupt_in_a_stream(server_process: Any) -> None:
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        items = client.rpc.interrupt_stream()
        assert await anext(items) == 1
        with pytest.raises(rpc.GenericError, match="KeyboardInterrupt"):
            async with asyncio.timeout(5):
                await anext(items)
        assert await asyncio.to_thread(server.wait) == 3


async def test_ctrl_c_of_a_server(server_process: Any, until: Until) -> None:
    server = server_process()
    async with await rpc.open_client(connect=server.endpoint) as client:
        call = client.rpc.forever()
        await until(lambda: server.lines == ["started"])
        server.send(signal.SIGINT)
        with pytest.raises((rpc.ServiceClosedError, rpc.ConnectionLostError)):
            async with asyncio.timeout(10):
                await call
        assert await asyncio.to_thread(server.wait) == 3
        assert server.lines == ["started", "cancelled", "interrupted"]
