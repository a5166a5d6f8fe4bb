"""Look for services by multicast DNS, and go on looking."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from ....runtime.log import Log
from .interfaces import OwnAddress, multicast_on, own_addresses
from .service import TYPE, Service, instance_of, service_of
from .zeroconf_import import check_installed

__all__ = ["MAX_SERVICES", "Browser", "find"]

logger = Log("berrymq_rpc.rpc")

#: Servers that are known at a time; when one more comes, any other makes way for it. Far more than
#: a local network has, and few enough that one who makes them up fills no memory.
MAX_SERVICES = 1000

#: Servers of which more is asked at a time, and milliseconds that each has to answer.
MAX_ASKED = 10
ANSWER_TIME = 2000

#: Seconds between two looks at the interfaces of this host.
LOOK = 5.0


class Browser:
    """Knows the servers on the local network. All of it is called on one event loop.

    Args:
        name: of the service that is looked for; ``None`` for all.
        on_change: called after `services` has changed.

    Attributes:
        services: what was found, by id.
        problem: why it cannot look now.

    Raises:
        ModuleNotFoundError: zeroconf is not installed.
    """

    def __init__(self, name: str | None, on_change: Callable[[], object]) -> None:
        check_installed()
        self._name = None if name is None else name.lower()
        self._on_change = on_change
        self.services: dict[str, Service] = {}
        self.problem: Exception | None = None
        self._zeroconf: Any = None
        self._browser: Any = None
        self._addresses: list[OwnAddress] = []
        #: Full names of servers of which more has to be asked.
        self._unknown: dict[str, None] = {}
        self._asking: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._running = asyncio.get_running_loop().create_task(self._run(), name="mdns browser")

    def look_again(self) -> None:
        """Ask the network anew."""
        self._again.set()

    def stop(self) -> None:
        """Look no longer; see `wait_stopped`."""
        for task in (self._running, self._asking):
            if task is not None:
                task.cancel()

    async def wait_stopped(self) -> None:
        """Wait until `stop` is over."""
        tasks = [task for task in (self._running, self._asking) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while True:
                await self._open()
                try:
                    async with asyncio.timeout(LOOK):
                        await self._again.wait()
                except TimeoutError:
                    continue
                self._again.clear()
                await self._look_anew()
        finally:
            await self._close()

    async def _open(self) -> None:
        """Look on all interfaces that there are now."""
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

        try:
            addresses = own_addresses()
            if not addresses:
                raise OSError("this host has no address but its own")
            if self._zeroconf is not None and addresses == self._addresses:
                return
            await self._close()
            # Of other networks.
            self.services.clear()
            self._zeroconf = AsyncZeroconf(interfaces=multicast_on(addresses))
        except (OSError, RuntimeError) as error:
            # zeroconf raises RuntimeError for an address that is lost meanwhile.
            if self.problem is None:
                logger.warning("services of the local network cannot be looked for: %s", error)
            self.problem = error
            return
        self.problem = None
        self._addresses = addresses
        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf, TYPE, handlers=[self._on_event]
        )

    async def _look_anew(self) -> None:
        """Ask the network again; what is known of it stays known until its time is over."""
        from zeroconf.asyncio import AsyncServiceBrowser

        if self._zeroconf is None:
            return
        await self._browser.async_cancel()
        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf, TYPE, handlers=[self._on_event]
        )

    async def _close(self) -> None:
        browser, self._browser = self._browser, None
        zeroconf, self._zeroconf = self._zeroconf, None
        if browser is not None:
            await browser.async_cancel()
        if zeroconf is not None:
            await zeroconf.async_close()

    def _on_event(self, zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        from zeroconf import ServiceStateChange

        instance = instance_of(name)
        if instance is None or (self._name is not None and instance[0] != self._name):
            return
        if state_change is ServiceStateChange.Removed:
            self._unknown.pop(name, None)
            if self.services.pop(instance[1], None) is not None:
                self._on_change()
        elif not self._read(name):
            if len(self._unknown) < MAX_SERVICES:
                self._unknown[name] = None
            if self._asking is None or self._asking.done():
                self._asking = asyncio.get_running_loop().create_task(
                    self._ask(), name="mdns questions"
                )

    def _read(self, name: str) -> bool:
        """Read what is known of a server already; return whether it is all."""
        from zeroconf.asyncio import AsyncServiceInfo

        info = AsyncServiceInfo(TYPE, name)
        if self._zeroconf is None or not info.load_from_cache(self._zeroconf.zeroconf):
            return False
        self.keep(name, info)
        return True

    async def _ask(self) -> None:
        while self._unknown and self._zeroconf is not None:
            names = list(self._unknown)[:MAX_ASKED]
            await asyncio.gather(*map(self._ask_one, names))

    async def _ask_one(self, name: str) -> None:
        from zeroconf.asyncio import AsyncServiceInfo

        if self._zeroconf is None:
            return
        info = AsyncServiceInfo(TYPE, name)
        is_known = await info.async_request(self._zeroconf.zeroconf, ANSWER_TIME)
        if name in self._unknown:
            del self._unknown[name]
            if is_known:
                self.keep(name, info)

    def keep(self, name: str, info: Any) -> None:
        """Keep what was announced, if it is a service."""
        service = service_of(name, info.port, info.parsed_scoped_addresses(), info.properties)
        if service is None:
            logger.info("what was announced as %.200r is not a service", name)
            return
        if service.id not in self.services and len(self.services) >= MAX_SERVICES:
            # Any of them, so that whoever makes up many cannot have the right ones removed first.
            del self.services[random.choice(list(self.services))]
        if self.services.get(service.id) != service:
            self.services[service.id] = service
            self._on_change()


async def find(seconds: float) -> list[Service]:
    """What is announced on the local network.

    Args:
        seconds: how long to look.

    Raises:
        ModuleNotFoundError: zeroconf is not installed.
        OSError: this host has no network on which to look.
    """
    browser = Browser(None, lambda: None)
    browser.start()
    try:
        await asyncio.sleep(seconds)
    finally:
        browser.stop()
        await browser.wait_stopped()
    if browser.problem is not None:
        raise OSError(str(browser.problem)) from browser.problem
    return sorted(browser.services.values(), key=lambda service: (service.name, service.id))
