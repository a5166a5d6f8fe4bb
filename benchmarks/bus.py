"""Messages within a process, beside blinker, pyee and pypubsub: what each costs, and the ratios.

    pip install blinker pyee pypubsub
    python benchmarks/bus.py [--repeats 5] [--seconds 0.2]

Each figure is taken in a process of its own, in turn with those of the others, so that what else
the machine does meanwhile slows all of them. A ratio says how many times as good as blinker. What
is not installed is left out.
"""

import argparse
import asyncio
import gc
import importlib.util
import json
import logging
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

REFERENCE = "blinker"
NAMES = 10_000
WILDCARDS = 1_000
RECEIVERS = 100


class Counter:
    """How many calls its receivers have had."""

    def __init__(self) -> None:
        self.calls = 0


# -- systems ---------------------------------------------------------------------------------


class Berrymq:
    module = "berrymq_rpc"

    def __init__(self) -> None:
        import berrymq_rpc

        self.bus = berrymq_rpc.Bus()

    def receiver(self, counter: Counter) -> Callable[..., None]:
        def receive(message: Any) -> None:
            counter.calls += 1

        return receive

    def subscribe(self, name: str, receiver: Any) -> None:
        self.bus.regist_function(name, receiver)

    def sender(self, name: str) -> Callable[[], object]:
        return lambda: self.bus.twitter(name, 1)


class Blinker:
    """The sender holds the signal, as its manual does; receivers are weak, its default."""

    module = "blinker"

    def __init__(self) -> None:
        import blinker

        self.signals = blinker.Namespace()

    def receiver(self, counter: Counter) -> Callable[..., None]:
        def receive(sender: Any, message: Any) -> None:
            counter.calls += 1

        return receive

    def subscribe(self, name: str, receiver: Any) -> None:
        self.signals.signal(name).connect(receiver)

    def sender(self, name: str) -> Callable[[], object]:
        signal = self.signals.signal(name)
        return lambda: signal.send(None, message=1)


class Pyee(Berrymq):
    module = "pyee"

    def __init__(self) -> None:
        import pyee

        self.emitter = pyee.EventEmitter()

    def subscribe(self, name: str, receiver: Any) -> None:
        self.emitter.on(name, receiver)

    def sender(self, name: str) -> Callable[[], object]:
        return lambda: self.emitter.emit(name, 1)


class Pypubsub(Berrymq):
    module = "pubsub"

    def __init__(self) -> None:
        from pubsub import pub

        self.pub = pub

    def subscribe(self, name: str, receiver: Any) -> None:
        self.pub.subscribe(receiver, name.replace(":", "_"))

    def sender(self, name: str) -> Callable[[], object]:
        topic = name.replace(":", "_")
        return lambda: self.pub.sendMessage(topic, message=1)


SYSTEMS: dict[str, type[Any]] = {
    "berrymq_rpc": Berrymq,
    "blinker": Blinker,
    "pyee": Pyee,
    "pypubsub": Pypubsub,
}


# -- figures ---------------------------------------------------------------------------------


def nanoseconds(send: Callable[[], object], seconds: float) -> float:
    """The time of one `send`: the median of five slices."""
    send()
    count = 1
    while True:
        spent = spend(send, count)
        if spent > seconds / 50 * 1e9:
            break
        count *= 2
    count = max(1, round(count * seconds / 5 * 1e9 / spent))
    return statistics.median(spend(send, count) / count for _ in range(5))


def spend(send: Callable[[], object], count: int) -> int:
    began = time.perf_counter_ns()
    for _ in range(count):
        send()
    return time.perf_counter_ns() - began


class Figures:
    """One method for each line of the table; `system` is what is measured."""

    def __init__(self, system: Any, seconds: float) -> None:
        self.system = system
        self.seconds = seconds
        self.counter = Counter()
        #: Receivers may be held weakly.
        self.kept: list[Any] = []

    def add(self, name: str, counter: Counter | None = None) -> None:
        receiver = self.system.receiver(self.counter if counter is None else counter)
        self.kept.append(receiver)
        self.system.subscribe(name, receiver)

    def measure(self, name: str, each: int = 1) -> float:
        send = self.system.sender(name)
        send()
        assert self.counter.calls == each, f"{self.counter.calls} receivers ran, not {each}"
        gc.collect()
        return nanoseconds(send, self.seconds)

    def one(self) -> float:
        self.add("job:done")
        return self.measure("job:done")

    def names(self) -> float:
        for number in range(NAMES):
            self.add(f"job{number}:done", self.counter if number == NAMES // 2 else Counter())
        return self.measure(f"job{NAMES // 2}:done")

    def receivers(self) -> float:
        for _ in range(RECEIVERS):
            self.add("job:done")
        return self.measure("job:done", RECEIVERS)

    def wildcards(self) -> float:
        for number in range(WILDCARDS):
            self.add(f"*:act{number}", self.counter if number == WILDCARDS // 2 else Counter())
        return self.measure(f"job:act{WILDCARDS // 2}")

    def memory(self) -> float:
        receivers = [self.system.receiver(self.counter) for _ in range(NAMES)]
        self.add("warm:up")
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number, receiver in enumerate(receivers):
            self.system.subscribe(f"job{number}:done", receiver)
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / NAMES


class OwnFigures(Figures):
    """What only this package has."""

    #: Messages of which the time is taken together, where they are awaited.
    batch: ClassVar[int] = 100

    def queue(self) -> float:
        import berrymq_rpc

        queue = berrymq_rpc.Queue("job:done", bus=self.system.bus)

        def send() -> None:
            self.system.bus.twitter("job:done", 1)
            queue.get_nowait()

        return nanoseconds(send, self.seconds)

    def talk(self) -> float:
        bus = self.system.bus
        self.add("answer:x")
        bus.regist_function("ask:x", lambda message: message.args)
        return nanoseconds(lambda: bus.talk("ask:x", "answer:x", 1), self.seconds)

    def publish(self) -> float:
        bus = self.system.bus

        @bus.following_function("job:done")
        async def receive(message: Any) -> None: ...

        return self.awaited(lambda: bus.publish("job:done", 1))

    def async_queue(self) -> float:
        import berrymq_rpc

        queue = berrymq_rpc.AsyncQueue("job:done", bus=self.system.bus)

        async def send() -> None:
            self.system.bus.twitter("job:done", 1)
            await queue.get()

        return self.awaited(send)

    def pool(self) -> float:
        bus = self.system.bus
        bus.set_multiplicity(2)
        self.add("job:done")
        return self.awaited(lambda: bus.publish("job:done", 1))

    def awaited(self, send: Callable[[], Any]) -> float:
        async def batch() -> None:
            for _ in range(self.batch):
                await send()

        with asyncio.Runner() as runner:
            return nanoseconds(lambda: runner.run(batch()), self.seconds) / self.batch


TABLE = {
    "one": "one receiver, ns",
    "names": f"1 of {NAMES:,} names, ns",
    "receivers": f"{RECEIVERS} receivers, ns",
    "memory": "a registration, bytes",
    "wildcards": f"1 of {WILDCARDS:,} wildcards, ns",
    "queue": "through a Queue, ns",
    "async_queue": "through an AsyncQueue, ns",
    "talk": "talk and its answer, ns",
    "publish": "publish, async receiver, ns",
    "pool": "publish, on the pool, ns",
}
SHARED = ("one", "names", "receivers", "memory")


def run_child(system: str, figure: str, seconds: float) -> float:
    arguments = ["--child", system, figure, "--seconds", str(seconds)]
    finished = subprocess.run(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return float(json.loads(finished.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description="Messages within a process.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="measuring time of a figure")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        logging.disable()
        system, figure = options.child
        figures = OwnFigures(SYSTEMS[system](), options.seconds)
        print(json.dumps(getattr(figures, figure)()))
        return
    systems = [name for name, kind in SYSTEMS.items() if importlib.util.find_spec(kind.module)]
    found: dict[tuple[str, str], list[float]] = {}
    for turn in range(options.repeats):
        order = systems[turn % len(systems) :] + systems[: turn % len(systems)]
        for figure in TABLE:
            for system in order:
                if figure in SHARED or system == "berrymq_rpc":
                    value = run_child(system, figure, options.seconds)
                    found.setdefault((system, figure), []).append(value)
    print_table(systems, found)


def print_table(systems: list[str], found: dict[tuple[str, str], list[float]]) -> None:
    print(f"{'':32}" + "".join(f"{name:>18}" for name in systems))
    for figure, title in TABLE.items():
        cells = []
        for system in systems:
            values = found.get((system, figure), [])
            cell = f"{statistics.median(values):,.0f}" if values else ""
            base = found.get((REFERENCE, figure), [])
            if values and base:
                # Of each repeat: what else the machine does meanwhile slows both.
                ratio = statistics.median(
                    other / mine for mine, other in zip(values, base, strict=True)
                )
                cell += f"{ratio:7.2f}x"
            else:
                cell += " " * 8
            cells.append(f"{cell:>18}")
        print(f"{title:32}" + "".join(cells))
    own = {
        figure: statistics.median(
            mine / alone
            for mine, alone in zip(
                found["berrymq_rpc", figure], found["berrymq_rpc", "one"], strict=True
            )
        )
        for figure in ("names", "wildcards")
    }
    print(
        f"\nberrymq_rpc beside its own cost with one receiver: 1 of {NAMES:,} names "
        f"{own['names']:.2f}, 1 of {WILDCARDS:,} wildcards {own['wildcards']:.2f}"
    )


if __name__ == "__main__":
    main()
