"""Calls: the server. Start it, then rpc_client.py in a second terminal."""

import asyncio
import sys

from berrymq_rpc import rpc


class Texts(rpc.AttrHandler):
    """A namespace: client.rpc.texts.reverse("abc")."""

    @rpc.method
    def reverse(self, text: str) -> str:
        return text[::-1]


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.texts = Texts()

    @rpc.method
    def divide(self, a: float, b: float) -> float:
        return a / b

    @rpc.method
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @rpc.method
    async def countdown(self, start: int):
        """A stream: the caller receives the items one by one."""
        for number in range(start, 0, -1):
            yield number

    @rpc.method
    async def ask_back(self, question: str) -> str:
        """Call a method of the caller, over the same connection."""
        answer = await rpc.context().peer.rpc.answer(question)
        return f"you say {answer!r}"


async def main(endpoint: str) -> None:
    async with await rpc.start_server(Handler(), bind=endpoint) as server:
        print("serving at", *server.endpoints, flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5560"))
    except KeyboardInterrupt:
        print("the server has ended", flush=True)
