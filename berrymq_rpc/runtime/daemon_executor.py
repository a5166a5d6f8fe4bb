"""Threads for functions that block, which never hold the interpreter."""

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from .fork import OwnerProcess

__all__ = ["DaemonExecutor"]

P = ParamSpec("P")
T = TypeVar("T")


class DaemonExecutor(Executor):
    """Runs functions on daemon threads.

    `concurrent.futures.ThreadPoolExecutor` has the interpreter wait at its end, without a bound,
    for what runs on its threads, also after ``shutdown(wait=False)``.

    Args:
        max_workers: threads at one time; ``None`` for those of a `ThreadPoolExecutor`.
        name: how the names of the threads begin.
    """

    def __init__(self, max_workers: int | None, name: str) -> None:
        self._max_workers = max_workers or min(32, (os.cpu_count() or 1) + 4)
        self._name = name
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        #: Threads that wait for work, less the work that they have not taken yet.
        self._idle = 0
        self._is_shut_down = False
        self._owner = OwnerProcess(name)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Have a function called on a thread.

        Raises:
            RuntimeError: it was shut down, or no thread can be started.
        """
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            future: Future[T] = Future()
            if self._idle > 0:
                self._idle -= 1
            elif len(self._threads) < self._max_workers:
                name = f"{self._name}_{len(self._threads)}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
            else:
                # The next thread that is free finds it there, and is not idle.
                self._idle -= 1
            self._work.put(_Work(future, fn, args, kwargs))
            return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more, and let the threads end when they are done."""
        with self._lock:
            self._is_shut_down = True
            if cancel_futures:
                self._cancel_waiting()
            for _ in self._threads:
                self._work.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _cancel_waiting(self) -> None:
        while True:
            try:
                work = self._work.get_nowait()
            except queue.Empty:
                return
            if work is not None:
                work.future.cancel()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work.run()
            # What it holds is not needed until the next one comes.
            del work
            if not self._owner.is_this:
                # The function has made a fork, and this is its child: it ends with its only thread.
                return
            with self._lock:
                self._idle += 1


class _Work:
    """A call that waits for a thread."""

    __slots__ = ("_args", "_function", "_kwargs", "future")

    def __init__(
        self,
        future: "Future[Any]",
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.future = future
        self._function = function
        self._args = args
        self._kwargs = kwargs

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._function(*self._args, **self._kwargs)
        except BaseException as error:
            self.future.set_exception(error)
            # The traceback holds this frame.
            del self
        else:
            self.future.set_result(result)
