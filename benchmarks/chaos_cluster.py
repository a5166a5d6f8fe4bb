"""Break everything around a NATS server at random for some time, and account for all there was.

    python benchmarks/chaos_cluster.py SEED SECONDS

A NATS server with JetStream, two nodes, two RPC servers and a client of theirs, a publisher for a
durable queue and two consumers of it run in processes of their own, each over a link of its own to
NATS, which the driver cuts, silences, delays and half-closes. It kills, freezes and restarts the
processes as well, and NATS with them. One more process, the survivor, has one of each in it, and is
frozen and cut off, but never killed. The same seed makes the same faults. At the end:

* a message was heard once and in order, and each gap was reported as missed before what follows it;
  the last ones have arrived everywhere;
* each call has exactly one outcome, within its time; what succeeded has run, nothing has run twice,
  and what is said not to have been sent has not run;
* each publish has an outcome; what was told as stored was worked on, or is a dead letter;
* the survivor has as many tasks and files as at the beginning, and its memory did not grow.

The exit status is 1 if anything is not accounted for.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import chaos
from chaos import TIMEOUT, Journal, Part, check_calls, read_journals

T = TypeVar("T")

Journals = dict[str, list[list[str]]]

#: Of a durable message: seconds for the work on it, and how often it is delivered at most.
ACK_WAIT, TRIES = 3.0, 50

#: Messages that a publisher waits for at most.
UNSTORED = 300

#: By how much the survivor may have more at the end: a task or file that is about to end, and
#: kilobytes that Python and its caches take when all paths have been taken.
MORE_TASKS, MORE_FILES, MORE_MEMORY = 2, 2, 16_384

#: The part of the time after which the survivor has taken all paths.
WARM = 0.3


# -- what runs in the processes ---------------------------------------------------------------


async def again(make: Callable[[], Awaitable[T]]) -> T:
    """Do what needs NATS, until it is there."""
    from berrymq_rpc import Error

    while True:
        try:
            return await make()
        except (OSError, TimeoutError, Error):
            await asyncio.sleep(0.1)


async def open_node(journal: Journal, name: str, url: str) -> tuple[Any, Callable[[], None]]:
    """A node that hears the others, and what sends one message of it."""
    from berrymq_rpc import Bus, Node

    bus = Bus()

    def hear(message: Any) -> None:
        if message.origin is not None:
            journal.write("heard", *message.args)

    def send() -> None:
        nonlocal sent
        sent += 1
        journal.write("sent", sent)
        bus.twitter("load:number", name, sent)

    sent = 0
    bus.regist_function("load:number", hear)
    bus.regist_function("connection:missed", lambda m: journal.write("missed", m.kwargs["origin"]))
    node = await again(lambda: Node(None, bus, cluster=url, name=name).start())
    return node, send


async def open_publisher(
    journal: Journal, name: str, url: str
) -> tuple[Any, Callable[[], None], set[asyncio.Task[None]]]:
    """A node, what publishes one message for the durable queue, and what was begun so."""
    from berrymq_rpc import Bus, Node

    bus = Bus()
    running: set[asyncio.Task[None]] = set()
    number = 0

    async def publish(number: int) -> None:
        try:
            await bus.publish("job:new", name, number, durable=True)
        except Exception as error:
            journal.write("failed", number, repr(error))
        else:
            journal.write("told", number)

    def begin() -> None:
        nonlocal number
        if len(running) >= UNSTORED:
            return
        number += 1
        journal.write("published", number)
        task = asyncio.ensure_future(publish(number))
        running.add(task)
        task.add_done_callback(running.discard)

    node = await again(lambda: Node(None, bus, cluster=url, name=name).start())
    return node, begin, running


async def consume(journal: Journal, name: str, url: str, is_ready: Callable[[], object]) -> None:
    """Work on the messages of the durable queue, until it is cancelled."""
    from berrymq_rpc import AsyncQueue, Bus, Empty, Error, Node

    generator = random.Random(name)
    bus = Bus()
    bus.regist_function("dead:workers", lambda m: journal.write("dead", *m.args))
    node = await again(lambda: Node(None, bus, cluster=url, name=name).start())
    queue = AsyncQueue("job:*", durable="workers", ack_wait=ACK_WAIT, tries=TRIES, bus=bus)
    await again(queue.ready)
    is_ready()

    async def work() -> None:
        while True:
            try:
                async with queue.get(timeout=1) as message:
                    journal.write("got", *message.args, int(bool(message.redelivered)))
                    await asyncio.sleep(generator.choice((0.0, 0.0, 0.01, 0.1)))
                    journal.write("did", *message.args)
            except Empty:
                continue
            except (OSError, TimeoutError, Error) as error:
                journal.write("error", type(error).__name__)
                await asyncio.sleep(0.1)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(work())
    finally:
        await node.close()


async def open_server(journal: Journal, url: str) -> Any:
    from berrymq_rpc import rpc

    class Handler(rpc.AttrHandler):
        @rpc.method
        async def work(self, client: str, number: int, seconds: float) -> int:
            journal.write("ran", client, number)
            await asyncio.sleep(seconds)
            return number

    return await again(lambda: rpc.start_server(Handler(), bind=f"{url}/calc"))


async def open_caller(
    journal: Journal, name: str, url: str
) -> tuple[Any, Callable[[], None], set[asyncio.Task[None]]]:
    """A client, what makes one call, and the calls that run."""
    from berrymq_rpc import rpc

    generator = random.Random(name)
    running: set[asyncio.Task[None]] = set()
    number = 0
    client = await rpc.open_client(connect=f"{url}/calc", timeout=TIMEOUT)

    async def call(number: int, seconds: float) -> None:
        began = time.monotonic()
        sent: object = None
        try:
            assert await client.rpc.work(name, number, seconds) == number
            outcome = "ok"
        except Exception as error:
            outcome, sent = type(error).__name__, getattr(error, "sent", None)
        journal.write("outcome", number, outcome, sent, f"{time.monotonic() - began:.3f}")

    def begin() -> None:
        nonlocal number
        number += 1
        journal.write("called", number)
        task = asyncio.ensure_future(call(number, generator.choice((0.0, 0.0, 0.01, 0.5))))
        running.add(task)
        task.add_done_callback(running.discard)

    return client, begin, running


async def until_closed() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def node_process(journal: Journal, name: str, url: str, folder: str) -> None:
    node, send = await open_node(journal, name, url)
    print("ready", flush=True)
    await chaos.until_stopped(send)
    await until_closed()
    await node.close()


async def publisher_process(journal: Journal, name: str, url: str, folder: str) -> None:
    node, begin, running = await open_publisher(journal, name, url)
    print("ready", flush=True)
    await chaos.until_stopped(begin)
    await asyncio.gather(*running)
    await until_closed()
    await node.close()


async def consumer_process(journal: Journal, name: str, url: str, folder: str) -> None:
    await consume(journal, name, url, lambda: print("ready", flush=True))


async def server_process(journal: Journal, name: str, url: str, folder: str) -> None:
    server = await open_server(journal, url)
    print("ready", flush=True)
    await server.serve_forever()


async def client_process(journal: Journal, name: str, url: str, folder: str) -> None:
    client, begin, running = await open_caller(journal, name, url)
    print("ready", flush=True)
    await chaos.until_stopped(begin)
    await asyncio.gather(*running)
    await until_closed()
    client.close()
    await client.wait_closed()


def sizes() -> tuple[int, int, int]:
    """Tasks, files and kilobytes of memory of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(os.listdir("/proc/self/fd"))
    return len(asyncio.all_tasks()), files, pages * os.sysconf("SC_PAGE_SIZE") // 1024


async def survivor_process(journal: Journal, name: str, url: str, folder: str) -> None:
    """All of it in one process, with journals of their own."""

    def further(role: str) -> tuple[Journal, str, str]:
        title = f"{role}-of-{name}"
        return Journal(os.path.join(folder, title)), title, url

    node, send = await open_node(*further("node"))
    publisher, publish, publishing = await open_publisher(*further("publisher"))
    server = await open_server(*further("server")[::2])
    client, call, calling = await open_caller(*further("client"))
    is_consuming = asyncio.Event()
    consuming = asyncio.create_task(consume(*further("consumer"), is_consuming.set))
    await is_consuming.wait()
    # So that both measurements are of a process that has been used.
    send(), publish(), call()
    await asyncio.gather(*publishing, *calling)
    await asyncio.sleep(2)
    journal.write("quiet", *sizes())
    print("ready", flush=True)
    measured = 0.0

    def work() -> None:
        nonlocal measured
        send(), publish(), call()
        if time.monotonic() - measured > 1:
            measured = time.monotonic()
            journal.write("load", *sizes())

    await chaos.until_stopped(work)
    await asyncio.gather(*publishing, *calling)
    # What ends does so within seconds.
    await asyncio.sleep(6)
    journal.write("quiet", *sizes())
    await until_closed()
    consuming.cancel()
    await asyncio.gather(consuming, return_exceptions=True)
    for each in (client, server):
        each.close()
        await each.wait_closed()
    for each in (publisher, node):
        await each.close()


ROLES = {
    "client": client_process,
    "consumer": consumer_process,
    "node": node_process,
    "publisher": publisher_process,
    "server": server_process,
    "survivor": survivor_process,
}


# -- the driver --------------------------------------------------------------------------------


class Process(Part):
    """A process of one of the roles."""

    program = __file__


class NatsPart(Part):
    """The NATS server, as one place in the arrangement."""

    def __init__(self, server: Any) -> None:
        super().__init__(server.folder, "nats", "nats")
        self._server = server

    @property
    def has_ended(self) -> bool:
        return False

    async def start(self) -> None:
        self.is_frozen = False
        await asyncio.to_thread(self._server.start)
        self.is_away = False

    async def kill(self) -> None:
        self.is_away = True
        await asyncio.to_thread(self._server.kill)

    def freeze(self) -> None:
        self._server.signal(signal.SIGSTOP)
        self.is_frozen = True

    def thaw(self) -> None:
        if self.is_frozen:
            self._server.signal(signal.SIGCONT)
            self.is_frozen = False

    def stop(self) -> None:
        pass


class ClusterChaos(chaos.Chaos):
    spared = frozenset({"survivor"})


# -- accounting --------------------------------------------------------------------------------


def check_messages(journals: Journals, alive: set[str]) -> list[str]:
    problems = []
    sent = {
        name: max((int(words[1]) for words in lines if words[0] == "sent"), default=0)
        for name, lines in journals.items()
        if name.startswith("node")
    }
    for name in sent:
        reached: dict[str, int] = {}
        told = set[str]()
        heard = gaps = 0
        for words in journals[name]:
            match words:
                case ["missed", origin]:
                    told.add(origin)
                case ["heard", origin, text]:
                    number, last = int(text), reached.get(origin)
                    heard += 1
                    if last is not None and number <= last:
                        problems.append(f"{name}: heard {number} of {origin} after {last}")
                    elif last is not None and number > last + 1:
                        gaps += 1
                        # The event names the node, not the process.
                        if origin not in told:
                            problems.append(
                                f"{name}: {last + 1} to {number - 1} of {origin} are missing, "
                                "and it was not told"
                            )
                    told.discard(origin)
                    reached[origin] = number
        for origin, last in reached.items():
            if last > sent.get(origin, 0):
                problems.append(f"{name}: {last} of {origin}, which sent {sent.get(origin)}")
        if name in alive:
            problems += [
                f"{name}: only {reached.get(origin)} of {sent[origin]} of {origin}"
                for origin in alive - {name}
                if origin in sent and reached.get(origin) != sent[origin]
            ]
        print(f"  {name}: {heard:,} messages of others, {gaps:,} gaps, all told")
    return problems


def check_durable(journals: Journals, alive: set[str]) -> list[str]:
    problems = []
    told = set[tuple[str, int]]()
    published = set[tuple[str, int]]()
    failed = Counter[str]()
    got, done, dead = (Counter[tuple[str, int]]() for _ in range(3))
    for name, lines in journals.items():
        if name.startswith("publisher"):
            begun, ended = set[int](), set[int]()
            for words in lines:
                number = int(words[1])
                match words[0]:
                    case "published":
                        begun.add(number)
                    case "told":
                        told.add((name, number))
                        ended.add(number)
                    case "failed":
                        failed[" ".join(words[2:])] += 1
                        ended.add(number)
            published |= {(name, number) for number in begun}
            if name in alive and begun != ended:
                problems.append(f"{name}: {len(begun - ended)} publishes have no outcome")
        elif name.startswith("consumer"):
            for words in lines:
                if words[0] == "error":
                    continue
                counter = {"got": got, "did": done, "dead": dead}[words[0]]
                counter[words[1], int(words[2])] += 1
    problems += [
        f"{count} publishes failed, which had a minute: {error}"
        for error, count in failed.items()
        if not error.startswith("RPCTimeoutError")
    ]
    problems += [f"job {job} was never published" for job in set(got) - published]
    lost = told - set(done) - set(dead)
    if lost:
        problems.append(f"{len(lost)} jobs lost that were told as stored: {sorted(lost)[:10]}")
    print(
        f"  {len(published):,} jobs published, {len(told):,} told as stored, failed: "
        f"{dict(failed)}; {len(done):,} done, {sum(done.values()) - len(done):,} again, "
        f"{len(dead):,} dead"
    )
    return problems


def check_survivor(lines: list[list[str]]) -> list[str]:
    """Its tasks and files are as many as before, and its memory does not grow."""
    quiet = [[int(word) for word in words[1:]] for words in lines if words[0] == "quiet"]
    load = [int(words[3]) for words in lines if words[0] == "load"]
    if len(quiet) != 2 or not load:
        return ["the survivor has not come to its end"]
    (tasks, files, _), (last_tasks, last_files, last_memory) = quiet
    warm = load[int(len(load) * WARM) :]
    print(
        f"  the survivor: {tasks} tasks, at the end {last_tasks}; {files} files, {last_files}; "
        f"{warm[0]:,} KB of memory when it was warm, {max(warm):,} at most, {last_memory:,}"
    )
    problems = []
    if last_tasks > tasks + MORE_TASKS:
        problems.append(f"the survivor: {last_tasks} tasks, and {tasks} before")
    if last_files > files + MORE_FILES:
        problems.append(f"the survivor: {last_files} files, and {files} before")
    if last_memory > warm[0] + MORE_MEMORY:
        problems.append(f"the survivor: {last_memory:,} KB of memory, and {warm[0]:,} before")
    return problems


async def drive(seed: int, seconds: float, folder: Path) -> int:
    from berrymq_rpc.testing import tcp_proxy
    from berrymq_rpc.testing.nats_server import NatsServer

    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(NatsServer(jetstream=True))
        links: list[Any] = []
        parts: list[Part] = [NatsPart(server)]

        async def add(role: str, name: str) -> None:
            link = await stack.enter_async_context(
                tcp_proxy.opened(f"tcp://127.0.0.1:{server.port}")
            )
            links.append(link)
            url = link.endpoint.replace("tcp", "nats")
            parts.append(Process(folder, role, name, url, str(folder)))

        # A consumer first: what is published before there is a queue is kept by none.
        for role, name in (
            ("consumer", "consumer-a"),
            ("survivor", "survivor"),
            ("consumer", "consumer-b"),
            ("node", "node-a"),
            ("node", "node-b"),
            ("publisher", "publisher"),
            ("server", "server-a"),
            ("server", "server-b"),
            ("client", "client-a"),
        ):
            await add(role, name)
        alive, ended = await chaos.run(
            ClusterChaos(seed, parts, links), parts, links, seconds, folder
        )
    journals = read_journals(folder)
    alive |= {name for name in journals if "-of-survivor" in name}
    problems = [f"{name} has ended by itself" for name in ended]
    problems += check_messages(journals, alive) + check_calls(journals, alive)
    problems += check_durable(journals, alive) + check_survivor(journals["survivor.1"])
    return chaos.report(seed, problems)


def main() -> int:
    if sys.argv[1:2] == ["--role"]:
        role, folder, name, *arguments = sys.argv[2:]
        journal = Journal(os.path.join(folder, name))
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(ROLES[role](journal, name, *arguments))
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seed", type=int)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="berrymq_rpc-chaos-") as folder:
        return asyncio.run(drive(options.seed, options.seconds, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
