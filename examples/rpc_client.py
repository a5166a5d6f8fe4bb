"""Calls: the client of rpc_server.py."""

import asyncio
import sys

from berrymq_rpc import rpc


class Answers(rpc.AttrHandler):
    """Methods that the server may call."""

    @rpc.method
    def answer(self, question: str) -> str:
        return f"{question} Yes."


async def main(endpoint: str) -> None:
    async with await rpc.open_client(connect=endpoint, timeout=10, handler=Answers()) as client:
        print("a call:", await client.rpc.divide(1, b=4))
        print("in a namespace:", await client.rpc.texts.reverse("straw"))

        try:
            await client.rpc.divide(1, 0)
        except ZeroDivisionError as error:
            print("the method's exception, raised here as well:", error)

        print("a stream:", [number async for number in client.rpc.countdown(3)])

        try:
            await client.with_timeout(0.1).rpc.sleep(60)
        except rpc.RPCTimeoutError as error:
            print("timeout, so the server has cancelled the method:", error)

        print("the server calls back:", await client.rpc.ask_back("Are you there?"))

        results = await asyncio.gather(*(client.rpc.divide(n, 2) for n in range(1000)))
        print("a thousand at once:", sum(results))


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5560"))
    except rpc.ConnectionLostError as error:
        sys.exit(f"{error}\nStart it with: python examples/rpc_server.py")
