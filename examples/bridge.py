"""A node for peers that are not Python. Run it, then one of the programs that it names::

    python examples/bridge.py
    python examples/bridge.py 0

With 0 each listener uses any free port; otherwise they use 8080, 8081 and 8082.
"""

import asyncio
import contextlib
import signal
import sys

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.jsonrpc.bridge import Bridge


class Text(rpc.AttrHandler):
    @rpc.method
    async def shout(self, words: str) -> str:
        """Say it loudly."""
        return f"{words.upper()}!"


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.text = Text()

    @rpc.method
    def divide(self, dividend: float, divisor: float) -> float:
        """Divide one number by another."""
        return dividend / divisor


async def main() -> None:
    first_port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    ports = [first_port + number if first_port else 0 for number in range(3)]
    bus = Bus()
    bus.regist_function("*:*", lambda message: print(message.id, *map(repr, message.args)))
    async with (
        Node("tcp://127.0.0.1:0", bus, handler=Handler()) as node,
        Bridge(node, title="the example") as bridge,
    ):
        # Pages opened from files may connect, so that page.html needs no web server.
        http = await bridge.serve_http(port=ports[0], origins=["null", "file://"])
        tcp = await bridge.serve_tcp(port=ports[1])
        zeromq = await bridge.serve_zeromq(f"tcp://127.0.0.1:{ports[2] or '*'}")
        web_socket = http.replace("http", "ws", 1) + "/ws"
        host, port = tcp.removeprefix("tcp://").split(":")
        print(f"sh examples/curl.sh {http}")
        print(f"node examples/javascript/fetch.mjs {http}")
        print(f"node examples/javascript/jayson.mjs {http}")
        print(f"node examples/javascript/websocket.mjs {web_socket}")
        print(f"node examples/javascript/zeromq.mjs {zeromq}")
        print(f"python examples/lines.py {host} {port}")
        print(f"chromium 'examples/javascript/page.html?{web_socket}'")
        print(f"python examples/send.py {node.endpoints[0]} greeting:hello you", flush=True)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        with contextlib.suppress(asyncio.CancelledError):
            await stop.wait()
    print("the bridge has ended")


if __name__ == "__main__":
    asyncio.run(main())
