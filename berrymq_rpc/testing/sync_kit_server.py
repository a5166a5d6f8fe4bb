"""A server under test that runs on a thread, for tests that are not async."""

from collections.abc import Callable
from typing import Any

from .kit_server import KitServer

__all__ = ["SyncKitServer"]


class SyncKitServer:
    """A `KitServer` of `Kit.sync_serve`: it has the same words, and none is awaited."""

    def __init__(self, served: KitServer, run: Callable[..., Any]) -> None:
        self.served = served
        self._run = run
        self.kill = served.kill
        self.freeze = served.freeze
        self.thaw = served.thaw
        # The words of the other one, and not methods around them, which failures would show.
        self.method = served.method
        self.calls = served.calls
        self.notifications = served.notifications
        self.cancelled = served.cancelled
        self.expired = served.expired
        self.statistics = served.statistics

    @property
    def endpoints(self) -> tuple[str, ...]:
        """An address for clients that the test opens by itself."""
        return self.served.endpoints

    @property
    def is_serving(self) -> bool:
        """Whether it was neither killed nor closed."""
        return self.served.is_serving

    def restart(self) -> None:
        """Start it again, as `KitServer.restart`."""
        self._run(self.served.restart())

    def close(self) -> None:
        """Close it in order, as `KitServer.close`."""
        self._run(self.served.close())

    def __repr__(self) -> str:
        return repr(self.served).replace("KitServer", "SyncKitServer", 1)
