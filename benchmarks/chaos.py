"""Break everything at random for some time, and account for every call and every message.

    python benchmarks/chaos.py [--keys] SEED SECONDS

Three interconnected nodes, two RPC servers, two clients and two consumers of a shared queue run in
processes of their own, over links that the driver cuts, silences, delays and half-closes. It kills,
freezes and restarts the processes as well. The same seed makes the same faults. Each process writes
what it did to a file, line by line, so that nothing is lost with it. With ``--keys`` all of them
have keys. At the end:

* a message of one node was heard by each other one once and in order, or reported as missed;
* each call has exactly one outcome, within its time; what succeeded has run, nothing has run twice,
  and what is said not to have been sent has not run;
* each job of the queue, which consumers acknowledge when it is done, was done, or is counted as
  dropped or dead; it was given out again only with the mark that says so.

The exit status is 1 if anything is not accounted for.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

#: Seconds that a call may take, and by how much its outcome may be later on a loaded machine.
TIMEOUT, SLACK = 3.0, 2.0

#: Seconds after the last fault in which all has to come back and all messages to arrive.
PATIENCE = 60.0

#: Messages, calls and jobs a second, of each process.
RATE = 100

#: Jobs that a consumer works on at a time, the seconds that it has for each, and how often each is
#: given out at most: a consumer dies now and then, so one job in a million is given out so often.
WORKERS, ACK_WAIT, TRIES = 4, 3.0, 10


# -- what runs in the processes ---------------------------------------------------------------

#: The variable with the secret key that all have; where it is not set, there are no keys.
KEYS = "CHAOS_KEYS"


def security(role: str) -> Any:
    """What a server, or a client, gives as ``security=``."""
    from berrymq_rpc import rpc

    if KEYS not in os.environ:
        return None
    keys = rpc.KeyPair.from_environment(KEYS)
    if role == "server":
        return rpc.CurveServer(keys, {keys.public})
    return rpc.CurveClient(keys, server=keys.public)


def key_of_all() -> str | None:
    given = security("client")
    return None if given is None else given.server


class Journal:
    """The file of a process: each line is written at once."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


async def until_stopped(work: Callable[[], Any]) -> None:
    """Do `work` at `RATE` until a line comes on standard input; then until it is closed."""
    loop = asyncio.get_running_loop()
    stopped = loop.run_in_executor(None, sys.stdin.readline)
    while not stopped.done():
        work()
        await asyncio.sleep(1 / RATE)


async def run_node(journal: Journal, name: str, bind: str, *peers: str) -> None:
    from berrymq_rpc import Bus, Node

    bus = Bus()

    def hear(message: Any) -> None:
        if message.origin is not None:
            journal.write("heard", *message.args)

    bus.regist_function("load:number", hear)
    bus.regist_function(
        "connection:missed",
        lambda m: journal.write("missed", m.kwargs["origin"], m.kwargs["first"], m.kwargs["last"]),
    )
    sent = 0

    def send() -> None:
        nonlocal sent
        sent += 1
        journal.write("sent", sent)
        bus.twitter("load:number", name, sent)

    async with Node(bind, bus, name=name, security=security("server")) as node:
        print("ready", flush=True)
        for peer in peers:
            while True:
                try:
                    await node.interconnect(peer, server=key_of_all())
                    break
                except (OSError, TimeoutError):
                    await asyncio.sleep(0.1)
        await until_stopped(send)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def run_queue(journal: Journal, name: str, bind: str) -> None:
    """The node of the queue, which is never killed: its queue is in its memory."""
    from berrymq_rpc import Bus, Node

    bus = Bus()
    bus.regist_function("queue:dropped", lambda m: journal.write("dropped", m.kwargs["count"]))
    bus.regist_function("dead:job", lambda m: journal.write("dead", *m.args))
    sent = 0

    def send() -> None:
        nonlocal sent
        # Before the first consumer has opened the queue, no job is kept.
        if node.statistics()["connections"]:
            sent += 1
            journal.write("sent", sent)
            bus.twitter("job:new", sent)

    async with Node(bind, bus, name=name, security=security("server")) as node:
        print("ready", flush=True)
        await until_stopped(send)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def run_consumer(journal: Journal, name: str, endpoint: str) -> None:
    from berrymq_rpc import Empty, Error, Node

    generator = random.Random(name)

    async def work() -> None:
        while True:
            try:
                async with queue.get(timeout=1) as message:
                    journal.write("got", message.args[0], int(bool(message.redelivered)))
                    await asyncio.sleep(generator.choice((0.0, 0.0, 0.01, 0.1)))
                    journal.write("did", message.args[0])
            except Empty:
                continue
            except (OSError, TimeoutError, Error):
                # What it has done and could not acknowledge comes again, marked.
                await asyncio.sleep(0.1)

    async with Node(security=security("client")) as node:
        print("ready", flush=True)
        while True:
            try:
                queue = await node.connect_via_queue(
                    "job:*", endpoint, shared=True, ack_wait=ACK_WAIT, tries=TRIES
                )
                break
            except (OSError, TimeoutError):
                await asyncio.sleep(0.1)
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(work())


async def run_server(journal: Journal, name: str, bind: str) -> None:
    from berrymq_rpc import rpc

    class Handler(rpc.AttrHandler):
        @rpc.method
        async def work(self, client: str, number: int, seconds: float) -> int:
            journal.write("ran", client, number)
            await asyncio.sleep(seconds)
            return number

    async with await rpc.start_server(Handler(), bind=bind, security=security("server")) as server:
        print("ready", flush=True)
        await server.serve_forever()


async def run_client(journal: Journal, name: str, *endpoints: str) -> None:
    from berrymq_rpc import rpc

    generator = random.Random(name)
    running: set[asyncio.Task[None]] = set()
    number = 0

    async def call(number: int, seconds: float) -> None:
        began = time.monotonic()
        sent: object = None
        try:
            assert await client.rpc.work(name, number, seconds) == number
            outcome = "ok"
        except Exception as error:
            outcome, sent = type(error).__name__, getattr(error, "sent", None)
        journal.write("outcome", number, outcome, sent, f"{time.monotonic() - began:.3f}")

    def start() -> None:
        nonlocal number
        number += 1
        journal.write("called", number)
        seconds = generator.choice((0.0, 0.0, 0.01, 0.5))
        task = asyncio.ensure_future(call(number, seconds))
        running.add(task)
        task.add_done_callback(running.discard)

    async with await rpc.open_client(
        connect=endpoints, timeout=TIMEOUT, security=security("client")
    ) as client:
        print("ready", flush=True)
        await until_stopped(start)
        await asyncio.gather(*running)
        journal.write("ended")
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


ROLES = {
    "client": run_client,
    "consumer": run_consumer,
    "node": run_node,
    "queue": run_queue,
    "server": run_server,
}


# -- the driver --------------------------------------------------------------------------------


class Part:
    """One place in the arrangement, with its present process."""

    #: What is run, with ``--role``.
    program = __file__

    def __init__(self, folder: Path, role: str, name: str, *arguments: str) -> None:
        self.role, self.name, self.arguments = role, name, arguments
        self.folder = folder
        #: How many processes there were; each has a name and a journal of its own.
        self.count = 0
        self.is_frozen = False
        #: Whether it is killed and not back yet.
        self.is_away = False
        self.process: subprocess.Popen[bytes]

    @property
    def title(self) -> str:
        return f"{self.name}.{self.count}"

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    async def start(self) -> None:
        self.count += 1
        self.is_frozen = False
        self.process = subprocess.Popen(
            [sys.executable, self.program, "--role", self.role, str(self.folder), self.title,
             *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        ready = await asyncio.to_thread(self.process.stdout.readline)
        if ready.strip() != b"ready":
            raise SystemExit(f"{self.title} did not start")
        self.is_away = False

    async def kill(self) -> None:
        self.is_away = True
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        # On a busy machine, some of its threads run on for a moment.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.is_frozen = True

    def thaw(self) -> None:
        if self.is_frozen:
            self.process.send_signal(signal.SIGCONT)
            self.is_frozen = False

    def stop(self) -> None:
        """Have it make no more messages or calls."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(b"\n")
            self.process.stdin.flush()


class Chaos:
    """Makes the faults, one after another, each of which ends after a while."""

    #: The roles that are not killed.
    spared = frozenset({"queue"})

    def __init__(self, seed: int, parts: list[Part], links: list[Any]) -> None:
        self._random = random.Random(seed)
        self._parts, self._links = parts, links
        self.counts = Counter[str]()

    async def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            while time.monotonic() < end:
                group.create_task(self._one())
                await asyncio.sleep(self._random.uniform(0.2, 1.2))

    async def _one(self) -> None:
        fault = self._random.choice(("kill", "freeze", "cut", "close", "delay", "half-close"))
        seconds = self._random.choice((0.05, 0.5, 1.5, 5.0))
        link = self._random.choice(self._links)
        part = self._random.choice(self._parts)
        is_away = part.is_away or part.is_frozen
        is_spared = fault == "kill" and part.role in self.spared
        if is_spared or (fault in ("kill", "freeze") and is_away):
            fault = "delay"
        self.counts[fault] += 1
        match fault:
            case "kill":
                await part.kill()
                await asyncio.sleep(min(seconds, 1.5))
                await part.start()
            case "freeze":
                part.freeze()
                await asyncio.sleep(seconds)
                part.thaw()
            case "cut":
                link.cut()
                await asyncio.sleep(seconds)
                link.restore()
            case "close":
                link.close()
            case "delay":
                link.delay = self._random.uniform(0.001, 0.2)
                await asyncio.sleep(seconds)
                link.delay = 0.0
            case "half-close":
                link.half_close(self._random.choice(("up", "down")))


# -- accounting --------------------------------------------------------------------------------


def read_journals(folder: Path) -> dict[str, list[list[str]]]:
    return {
        path.name: [line.split() for line in path.read_text().splitlines()]
        for path in sorted(folder.iterdir())
        if path.is_file()
    }


def check_messages(journals: dict[str, list[list[str]]], alive: set[str]) -> list[str]:
    problems = []
    sent = {
        name: max((int(words[1]) for words in lines if words[0] == "sent"), default=0)
        for name, lines in journals.items()
        if name.startswith("node")
    }
    for name in sent:
        reached: dict[str, int] = {}
        missed = 0
        for words in journals[name]:
            match words:
                case ["heard", origin, number]:
                    first = last = int(number)
                case ["missed", origin, first_text, last_text]:
                    first, last = int(first_text), int(last_text)
                    missed += last - first + 1
                case _:
                    continue
            if first != reached.get(origin, 0) + 1:
                problems.append(
                    f"{name}: {words[0]} {first} of {origin} after {reached.get(origin, 0)}"
                )
            reached[origin] = last
        for origin, last in reached.items():
            if last > sent.get(origin, 0):
                problems.append(f"{name}: {last} of {origin}, which sent {sent.get(origin)}")
        if name in alive:
            for origin in alive - {name}:
                if origin in sent and reached.get(origin, 0) != sent[origin]:
                    problems.append(
                        f"{name}: only {reached.get(origin, 0)} of {sent[origin]} of {origin}"
                    )
        print(f"  {name}: {sum(reached.values()):,} messages of others, {missed:,} reported missed")
    return problems


def check_calls(journals: dict[str, list[list[str]]], alive: set[str]) -> list[str]:
    problems = []
    ran = Counter[tuple[str, int]]()
    for name, lines in journals.items():
        if name.startswith("server"):
            ran.update((words[1], int(words[2])) for words in lines if words[0] == "ran")
    problems += [f"{call} ran {times} times" for call, times in ran.items() if times > 1]
    for name, lines in journals.items():
        if not name.startswith("client"):
            continue
        called = {int(words[1]) for words in lines if words[0] == "called"}
        outcomes = Counter[str]()
        ended: set[int] = set()
        for words in lines:
            if words[0] != "outcome":
                continue
            number, outcome, is_sent, seconds = int(words[1]), words[2], words[3], float(words[4])
            outcomes[outcome] += 1
            if number in ended:
                problems.append(f"{name}: call {number} has two outcomes")
            ended.add(number)
            if outcome == "ok" and not ran[name, number]:
                problems.append(f"{name}: call {number} succeeded and never ran")
            if is_sent == "False" and ran[name, number]:
                problems.append(f"{name}: call {number} ran, and is said not to have been sent")
            # A client that was frozen itself can be late by that.
            if seconds > TIMEOUT + SLACK + 5.0:
                problems.append(f"{name}: call {number} ended after {seconds} s")
        if name in alive and called != ended:
            problems.append(f"{name}: {len(called - ended)} calls have no outcome")
        print(f"  {name}: {len(called):,} calls: {dict(outcomes)}")
    return problems


def check_jobs(journals: dict[str, list[list[str]]]) -> list[str]:
    problems = []
    sent: set[int] = set()
    dead = Counter[int]()
    dropped = 0
    for name, lines in journals.items():
        if name.startswith("queue"):
            for word, number in lines:
                match word:
                    case "sent":
                        sent.add(int(number))
                    case "dead":
                        dead[int(number)] += 1
                    case "dropped":
                        # A count that grows.
                        dropped = max(dropped, int(number))
    got, unmarked, done = Counter[int](), Counter[int](), Counter[int]()
    for name, lines in journals.items():
        if name.startswith("consumer"):
            for word, number, *mark in lines:
                if word == "did":
                    done[int(number)] += 1
                else:
                    got[int(number)] += 1
                    unmarked[int(number)] += mark == ["0"]
    problems += [f"job {job} came twice unmarked" for job, n in unmarked.items() if n > 1]
    problems += [f"job {job} came {n} times" for job, n in got.items() if n > TRIES]
    problems += [f"job {job} is dead {n} times" for job, n in dead.items() if n > 1]
    problems += [f"job {job} was never sent" for job in (set(got) | set(dead)) - sent]
    lost = sent - set(done) - set(dead)
    if len(lost) > dropped:
        problems.append(f"{len(lost)} jobs lost, {dropped} dropped: {sorted(lost)[:20]}")
    print(
        f"  {len(sent):,} jobs: {len(done):,} done, {sum(done.values()) - len(done)} again, "
        f"{sum(got.values()) - sum(done.values())} given out and not done, {len(dead)} dead, "
        f"{dropped} dropped"
    )
    return problems


async def run(
    chaos: Chaos, parts: list[Part], links: list[Any], seconds: float, folder: Path
) -> tuple[set[str], list[str]]:
    """Start all, make the faults, and let all come back; then end it.

    Returns:
        The titles of those that lived at the end, and of those that had ended by themselves.
    """
    try:
        for part in parts:
            await part.start()
        await chaos.run(seconds)
        print(f"faults: {dict(chaos.counts)}")
        for part in parts:
            part.thaw()
        for link in links:
            link.restore()
            link.delay = 0.0
        # All is well again: the last ones have to arrive.
        await asyncio.sleep(2)
        for part in parts:
            if part.role != "consumer":
                part.stop()
        end = time.monotonic() + PATIENCE
        size, still = -1, 0
        while time.monotonic() < end and still < 7:
            await asyncio.sleep(1)
            now = sum(path.stat().st_size for path in folder.iterdir())
            still = still + 1 if now == size else 0
            size = now
        ended = [part.title for part in parts if part.has_ended]
    finally:
        for part in parts:
            with contextlib.suppress(AttributeError, OSError):
                part.thaw()
                await part.kill()
    return {part.title for part in parts}, ended


async def drive(seed: int, seconds: float, folder: Path) -> int:
    from rpc import unused_endpoint

    from berrymq_rpc.testing import tcp_proxy

    async with contextlib.AsyncExitStack() as stack:
        ends = {
            name: unused_endpoint()
            for name in ("node-a", "node-b", "node-c", "queue", "server-a", "server-b")
        }
        links: list[Any] = []

        async def linked(name: str) -> str:
            link = await stack.enter_async_context(tcp_proxy.opened(ends[name]))
            links.append(link)
            return str(link.endpoint)

        parts = [
            Part(folder, "node", "node-a", ends["node-a"], await linked("node-b")),
            Part(folder, "node", "node-b", ends["node-b"], await linked("node-c")),
            Part(folder, "node", "node-c", ends["node-c"], await linked("node-a")),
            Part(folder, "queue", "queue", ends["queue"]),
            Part(folder, "server", "server-a", ends["server-a"]),
            Part(folder, "server", "server-b", ends["server-b"]),
        ]
        for name in ("client-a", "client-b"):
            ways = [await linked("server-a"), await linked("server-b")]
            parts.append(Part(folder, "client", name, *ways))
        for name in ("consumer-a", "consumer-b"):
            parts.append(Part(folder, "consumer", name, await linked("queue")))
        alive, ended = await run(Chaos(seed, parts, links), parts, links, seconds, folder)
    journals = read_journals(folder)
    problems = [f"{name} has ended by itself" for name in ended]
    problems += check_messages(journals, alive) + check_calls(journals, alive)
    problems += check_jobs(journals)
    return report(seed, problems)


def report(seed: int, problems: list[str]) -> int:
    """Print what is not accounted for; return the exit status."""
    for problem in problems[:30]:
        print(f"NOT ACCOUNTED FOR: {problem}")
    if problems:
        print(f"seed {seed}: {len(problems)} problems")
        return 1
    print(f"seed {seed}: every call and message is accounted for")
    return 0


def main() -> int:
    if sys.argv[1:2] == ["--role"]:
        role, folder, name, *arguments = sys.argv[2:]
        journal = Journal(os.path.join(folder, name))
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(ROLES[role](journal, name, *arguments))
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keys", action="store_true", help="all have keys")
    parser.add_argument("seed", type=int)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    if options.keys:
        from berrymq_rpc import rpc

        os.environ[KEYS] = rpc.KeyPair.generate().secret
    with tempfile.TemporaryDirectory(prefix="berrymq_rpc-chaos-") as folder:
        return asyncio.run(drive(options.seed, options.seconds, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
