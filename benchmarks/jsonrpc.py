"""JSON-RPC beside jsonrpc2-zeromq and aiorpcX: calls one after another, and items alone.

Usage: ``python benchmarks/jsonrpc.py [--seconds 2] [--repeats 3]``. A peer that is not installed is
left out. Of pyzmq, jsonrpc2-zeromq asks for an old version, but works with today's::

    pip install aiorpcX
    pip install --no-deps jsonrpc2-zeromq future
"""

import argparse
import importlib
import importlib.util
import multiprocessing
import statistics
import time
import timeit
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

__all__: list[str] = []

OURS = "berrymq_rpc.jsonrpc.zeromq"
THEIRS = "jsonrpc2_zeromq"

#: The pairs of sockets: the server's class and the client's.
PAIRS = {
    "REP, REQ": ("RPCServer", "RPCClient"),
    "ROUTER, DEALER": ("RPCNotificationServer", "RPCNotifierClient"),
}

RECORDS = [
    {"name": f"sensor {number}", "value": number * 1.5, "tags": ["a", "b"], "at": {"x": number}}
    for number in range(15)
]

PAYLOADS: dict[str, Any] = {"small": [1, 2], "1 KB": [RECORDS]}


# -- calls ---------------------------------------------------------------------------------


def serve(package: str, name: str, pipe: Connection) -> None:
    """Run a server of a package in this process until it is killed."""
    module = importlib.import_module(package)

    class Server(getattr(module, name)):  # type: ignore[misc]
        def handle_add_method(self, a: int, b: int) -> int:
            return a + b

        def handle_echo_method(self, value: Any) -> Any:
            return value

    # jsonrpc2-zeromq does not tell which port a wildcard became.
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    server = Server(endpoint)
    pipe.send(endpoint)
    server.run()


def free_port() -> int:
    """A port that is free now."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def calls_per_second(package: str, pair: tuple[str, str], seconds: float) -> dict[str, float]:
    """How many calls one client makes one after another, with a server in another process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(package, pair[0], there), daemon=True)
    process.start()
    try:
        client = getattr(importlib.import_module(package), pair[1])(here.recv(), timeout=10_000)
        try:
            return {
                "add": rate(lambda: client.add(1, 2), seconds),
                "echo 1 KB": rate(lambda: client.echo(RECORDS), seconds),
            }
        finally:
            client.close()
    finally:
        process.kill()
        process.join()


def rate(call: Callable[[], Any], seconds: float) -> float:
    """Calls per second."""
    for _ in range(100):
        call()
    count, begin = 0, time.perf_counter()
    end = begin + seconds
    while time.perf_counter() < end:
        call()
        count += 1
    return count / (time.perf_counter() - begin)


def compare_calls(seconds: float, repeats: int) -> None:
    """Print calls per second, and the ratio within each repeat."""
    theirs_too = importlib.util.find_spec(THEIRS) is not None
    print(f"\n{'one after another':28}{'berrymq_rpc':>14}{'jsonrpc2-zeromq':>18}{'ratio':>8}")
    for title, pair in PAIRS.items():
        ours: list[dict[str, float]] = []
        theirs: list[dict[str, float]] = []
        for _ in range(repeats):
            ours.append(calls_per_second(OURS, pair, seconds))
            if theirs_too:
                theirs.append(calls_per_second(THEIRS, pair, seconds))
        for call in ours[0]:
            line = f"{title + ': ' + call:28}{statistics.median(o[call] for o in ours):12,.0f}/s"
            if theirs:
                ratio = statistics.median(
                    o[call] / t[call] for o, t in zip(ours, theirs, strict=True)
                )
                line += f"{statistics.median(t[call] for t in theirs):16,.0f}/s{ratio:8.2f}"
            print(line)


# -- items ---------------------------------------------------------------------------------


def microseconds(work: Callable[[], Any]) -> float:
    """Time of one run, the best of several."""
    count = 5000
    return min(timeit.repeat(work, number=count, repeat=7)) / count * 1e6


def compare_items() -> None:
    """Print the microseconds of reading and writing items."""
    from berrymq_rpc.jsonrpc import JSONRPCv2, RPCRequest, RPCResponse

    theirs: Any = None
    if importlib.util.find_spec("aiorpcx"):
        import aiorpcx as theirs
    engine = "msgspec" if importlib.util.find_spec("msgspec") else "the standard library"
    print(f"\n{'items, with ' + engine:28}{'berrymq_rpc':>14}{'aiorpcX':>18}{'ratio':>8}")
    for title, args in PAYLOADS.items():
        request, response = RPCRequest("method", args, 7), RPCResponse(args, 7)
        their_request = theirs and theirs.Request("method", args)
        asked = JSONRPCv2.request_message(request)
        answered = JSONRPCv2.response_message(response)
        works: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
            (
                "read a request",
                lambda m=asked: JSONRPCv2.message_to_item(m),
                lambda m=asked: theirs.JSONRPCv2.message_to_item(m),
            ),
            (
                "read a response",
                lambda m=answered: JSONRPCv2.message_to_item(m),
                lambda m=answered: theirs.JSONRPCv2.message_to_item(m),
            ),
            (
                "write a request",
                lambda r=request: JSONRPCv2.request_message(r),
                lambda r=their_request: theirs.JSONRPCv2.request_message(r, 7),
            ),
            (
                "write a response",
                lambda r=response: JSONRPCv2.response_message(r),
                lambda a=args: theirs.JSONRPCv2.response_message(a, 7),
            ),
        ]
        for what, our_work, their_work in works:
            ours = microseconds(our_work)
            line = f"{what + ', ' + title:28}{ours:11.2f} us"
            if theirs is not None:
                other = microseconds(their_work)
                line += f"{other:15.2f} us{other / ours:8.2f}"
            print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    settings = parser.parse_args()
    compare_items()
    compare_calls(settings.seconds, settings.repeats)


if __name__ == "__main__":
    main()
