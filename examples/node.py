"""A node that prints each message that other processes send it; `berrymq serve` does more.

python examples/node.py                          tcp://127.0.0.1:5555, or the next free port
python examples/node.py tcp://127.0.0.1:6000     only that address
"""

import asyncio
import errno
import os
import shlex
import signal
import sys
from datetime import datetime

from berrymq_rpc import Message, Node, following_function

HOST, FIRST_PORT, PORTS_TRIED = "127.0.0.1", 5555, 100


def say(text: str = "") -> None:
    # Flushed at once: the output may be a pipe.
    print(text, flush=True)


@following_function("*@*:*")
def show(message: Message) -> None:
    # Written by repr(): text from a peer must not move the cursor of this terminal.
    arguments = [repr(value) for value in message.args]
    arguments += [f"{name}={value!r}" for name, value in message.kwargs.items()]
    say(f"{datetime.now():%H:%M:%S}  {message.id}  {'  '.join(arguments)}")


async def start(endpoint: str | None) -> Node:
    """Start a node at the endpoint, or at the first free port."""
    if endpoint is not None:
        return await Node(endpoint).start()
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        try:
            node = await Node((HOST, port)).start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        if port != FIRST_PORT:
            say(f"Port {FIRST_PORT} is in use; {port} is the next free port.")
        return node
    raise OSError(errno.EADDRINUSE, f"no port is free from {FIRST_PORT} on")


def nearby(path: str) -> str:
    """Quote the path for a shell; make it relative if it is below the current directory."""
    relative = os.path.relpath(path)
    return shlex.quote(path if relative.startswith(os.pardir) else relative)


async def main(endpoint: str | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await start(endpoint) as node:
        say(f"The node is at {', '.join(node.endpoints)}")
        say("Paste this into a second terminal:")
        say()
        sender = os.path.join(os.path.dirname(os.path.abspath(__file__)), "send.py")
        command = [nearby(sys.executable), nearby(sender), node.endpoints[0]]
        say(f'  {" ".join(command)} greeting:hello "your words"')
        say()
        say("Messages appear here. Ctrl-C ends the node.")
        await stop.wait()
    say("The node has ended.")


if __name__ == "__main__":
    if len(sys.argv) > 2 or (len(sys.argv) == 2 and "://" not in sys.argv[1]):
        sys.exit(__doc__)
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) == 2 else None))
    except (OSError, ValueError) as error:
        sys.exit(f"The node cannot start: {error}")
