"""A server for the tests of the command; prints its endpoint."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from berrymq_rpc import rpc


class Order:
    """A class that clients do not know."""


class OwnError(Exception):
    pass


class Values(rpc.AttrHandler):
    """A namespace whose methods are named as types are."""

    @rpc.method
    def set(self, key: str, value: int, /, *, over: bool = False) -> "set[int]":
        return {value, 1, 2}

    @rpc.method
    def list(self, *parts: list[str], **more: Any) -> list[str]:
        return [str(part) for part in parts]

    @rpc.method
    def odd(self) -> dict[Any, Any]:
        return {
            "bytes": b"\x00\xff",
            "datetime": datetime(2026, 1, 31, 12, tzinfo=UTC),
            "timedelta": timedelta(minutes=1.5),
            "decimal": Decimal("1.50"),
            "uuid": UUID(int=1),
            "complex": 1 + 2j,
            "nan": float("nan"),
            "set": {3, 1, 2},
            "tuple": (1, None, True),
            1: "one",
            "controls": "\x1b[2J\u202e\x9b",
        }


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.values = Values()

    @rpc.method
    def divide(self, a: float, b: float = 1) -> float:
        """Divide.

        Args:
            a: what is divided; text with \\ and \""" in it.
        """
        return a / b

    @rpc.method
    def echo(self, *args: Any, **kwargs: Any) -> Any:
        return [args, kwargs]

    @rpc.method
    async def countdown(self, start: int, pause: float = 0) -> AsyncIterator[int]:
        """Count down to 1.\x1b[31m"""
        for number in range(start, 0, -1):
            yield number
            await asyncio.sleep(pause)

    @rpc.method
    async def nothing(self) -> AsyncIterator[int]:
        for number in range(0):
            yield number

    @rpc.method
    async def breaks(self) -> AsyncIterator[int]:
        yield 1
        raise LookupError("no more")

    @rpc.method
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @rpc.method
    def fail(self, text: str) -> None:
        raise OwnError(text)

    @rpc.method
    def order(self, order: Order, how: Literal["fast", "slow"] = "slow", at=datetime.min) -> Order:
        return order

    @rpc.method
    def pipe(self) -> None:
        raise BrokenPipeError(32, "a pipe of the server's")

    @rpc.method
    def die(self) -> None:
        os._exit(1)


# A name that is not an attribute.
setattr(Handler, "from", rpc.method(lambda self, number=1: number))


async def main() -> None:
    bind = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:*"
    async with await rpc.start_server(Handler(), bind=bind) as server:
        print(*server.endpoints, flush=True)
        await server.serve_forever()


asyncio.run(main())
