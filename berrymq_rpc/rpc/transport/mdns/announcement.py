"""Say by multicast DNS where a server listens."""

import asyncio
from collections.abc import Sequence
from typing import Any

from ....endpoint import Endpoint, is_loopback, is_service_name
from ....runtime.log import Log
from .interfaces import OwnAddress, covered_by, multicast_on, own_addresses
from .service import TYPE, Announced
from .zeroconf_import import check_installed

__all__ = ["Announcement", "check_announced"]

logger = Log("berrymq_rpc.rpc")

#: Seconds between two looks at the addresses of this host.
LOOK = 5.0

#: Seconds that saying goodbye may take: it is said three times within half a second.
GOODBYE = 2.0


def check_announced(name: object, bind: Sequence[str] | None) -> None:
    """Check that a server can be announced.

    Args:
        name: of the service.
        bind: where the server is to listen; ``None`` if that is not known yet.

    Raises:
        TypeError: the name is not text.
        ValueError: it is not a name, or other hosts cannot reach the server.
        ModuleNotFoundError: zeroconf is not installed.
    """
    if not isinstance(name, str):
        raise TypeError(f"announce is a name such as 'calc', not {name!r}")
    if not is_service_name(name):
        raise ValueError(
            f"announce must be a name of 1 to 40 letters, digits, '_' and '-', not {name[:60]!r}"
        )
    check_installed()
    if bind is None:
        return
    places = [Endpoint.parse(e) for e in bind if e.startswith("tcp://")]
    if not places:
        raise ValueError(
            "announce= tells other hosts of a tcp:// address: bind one, such as tcp://0.0.0.0:5555 "
            "with security="
        )
    if all(is_loopback(place.host) for place in places):
        raise ValueError(_unreachable(places[0]))


def _unreachable(place: Endpoint) -> str:
    return (
        f"announce= tells other hosts of an address, and they cannot reach {place}: bind "
        "tcp://0.0.0.0:5555, or an address of this host, with security="
    )


def _version() -> str:
    """That of this library; empty where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("berrymq-rpc")
    except PackageNotFoundError:
        return ""


class Announcement:
    """Announces a server at the first of its addresses that other hosts can reach.

    Args:
        announced: as what.
        endpoints: where the server listens, with its ports.
        has_keys: whether it wants keys.

    Raises:
        ValueError: other hosts cannot reach the server.
    """

    def __init__(self, announced: Announced, endpoints: Sequence[str], *, has_keys: bool) -> None:
        places = [Endpoint.parse(e) for e in endpoints if e.startswith("tcp://")]
        reachable = [str(place) for place in places if not place.is_loopback]
        if not reachable:
            # A name that means this host alone.
            raise ValueError(_unreachable(places[0]))
        self._endpoint = reachable[0]
        self._name = announced.name
        self._label = f"{announced.name}-{announced.id}"
        # No more than anybody on the network may know.
        self._properties = {
            "kind": announced.kind,
            "keys": "1" if has_keys else "0",
            "version": _version(),
        }
        self._zeroconf: Any = None
        self._addresses: list[OwnAddress] = []
        self._repeating: asyncio.Future[None] | None = None
        self._has_failed = False
        self._stopping = asyncio.Event()
        self._running = asyncio.get_running_loop().create_task(
            self._run(), name="mdns announcement"
        )

    def stop(self) -> None:
        """Say goodbye; see `wait_stopped`."""
        self._stopping.set()

    async def wait_stopped(self) -> None:
        """Wait until `stop` is over."""
        await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    await self._update()
                except (OSError, RuntimeError) as error:
                    # There may be no network yet; zeroconf raises RuntimeError for a lost address.
                    if not self._has_failed:
                        logger.warning("%s cannot be announced now: %s", self._name, error)
                    self._has_failed = True
                try:
                    async with asyncio.timeout(LOOK):
                        await self._stopping.wait()
                except TimeoutError:
                    continue
        finally:
            await self._close()

    async def _update(self) -> None:
        """Announce the addresses that there are now, if they are others than before."""
        from zeroconf import ServiceInfo
        from zeroconf.asyncio import AsyncZeroconf

        addresses = covered_by(self._endpoint, own_addresses())
        if addresses == self._addresses:
            return
        await self._close()
        if not addresses:
            raise OSError(f"this host has no address that {self._endpoint} covers")
        info = ServiceInfo(
            TYPE,
            f"{self._label}.{TYPE}",
            port=Endpoint.parse(self._endpoint).port,
            parsed_addresses=[address.text for address in addresses],
            properties=self._properties,
            # Not the host's own name, which its own responder may announce otherwise.
            server=f"{self._label}.local.",
        )
        # Only where the server can be reached.
        self._zeroconf = AsyncZeroconf(interfaces=multicast_on(addresses))
        # The id is random: nobody has to be asked whether it is free, and nobody can say that it
        # is not.
        saying = self._zeroconf.async_register_service(info, cooperating_responders=True)
        # It is said three times within a second.
        self._repeating = await saying
        self._addresses = addresses
        self._has_failed = False

    async def _close(self) -> None:
        zeroconf, self._zeroconf = self._zeroconf, None
        repeating, self._repeating = self._repeating, None
        self._addresses = []
        if zeroconf is None:
            return
        if repeating is not None:
            repeating.cancel()
            await asyncio.gather(repeating, return_exceptions=True)
        try:
            async with asyncio.timeout(GOODBYE):
                await zeroconf.async_close()
        except TimeoutError:
            logger.warning("%s could not be taken back in time", self._name)
