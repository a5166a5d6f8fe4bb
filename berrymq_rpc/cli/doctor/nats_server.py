"""``nats://``: each server of the address, this side's login, JetStream, and a service."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from ...errors import AuthenticationError, ConnectionLostError, Error, NotFoundError
from ...nats.address import Server
from ...nats.options import Nats
from .answer import identify
from .check import Check, failed, latency, ok, warning
from .first_words import CLOSED, SILENT
from .network import Place, opened, reach

__all__ = ["clock", "examine_nats"]

#: What starts a NATS server at a place.
NATS_START = "A NATS server is started there with: nats-server --port {port}"

#: Bytes of the first line of a server.
MAX_INFO = 64 << 10

#: How many round trips are measured.
PINGS = 10

#: Seconds of difference between two clocks of which users notice something.
MAX_DIFFERENCE = 5.0

#: The oldest server with which a cluster works as it should, by its first two numbers.
OLDEST = (2, 10)


async def examine_nats(settings: Nats, timeout: float, insecure: bool) -> AsyncIterator[Check]:
    """Check a NATS server, or those of a cluster, and the service that is meant.

    Args:
        settings: the address, and as whom.
        timeout: seconds for each check.
        insecure: the user trusts the network.
    """
    working = 0
    info: dict[str, Any] = {}
    several = len(settings.address.servers) > 1
    for server in settings.address.servers:
        async for each in _server(server, timeout):
            if isinstance(each, Check):
                # A cluster works as long as one of its servers does.
                yield each
            else:
                info = info or each
                working += 1
    if not working:
        return
    if several and working < len(settings.address.servers):
        count = f"{working} of {len(settings.address.servers)}"
        yield warning("service", f"{count} servers of the cluster answer", "start the others")
    yield _version(info)
    async for check in _as_user(settings, timeout, insecure, info):
        yield check


async def _server(server: Server, timeout: float) -> AsyncIterator[Check | dict[str, Any]]:
    place: Place | None = None
    async for each in reach(server.host, server.port, timeout, NATS_START):
        if isinstance(each, Check):
            yield each
        else:
            place = each
    if place is None:
        return
    line = await _first_line(place, timeout)
    if line is None:
        yield failed("protocol", f"{CLOSED.text} listens at {server}", CLOSED.advice)
        return
    if not line.startswith(b"INFO "):
        # One that is asked first may speak HTTP or another protocol, which tcp:// finds out.
        speaker = identify(line) if line else SILENT
        advice = (
            f"berrymq doctor tcp://{server} says who that is"
            if not line
            else "give the address of the NATS server"
        )
        text = f"{speaker.text} listens at {server}: it is not a NATS server"
        yield failed("protocol", text, advice, speaker=speaker.word)
        return
    try:
        info = json.loads(line[len(b"INFO ") :])
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict):
        text = f"what listens at {server} begins as NATS does, and goes on in another way"
        yield failed("protocol", text, "give the address of the NATS server")
        return
    yield ok("protocol", f"NATS answers at {server}", speaker="nats")
    yield info


async def _first_line(place: Place, timeout: float) -> bytes | None:
    """What the server says first; nothing if it says nothing in time, ``None`` if it closes."""
    line = b""
    try:
        async with asyncio.timeout(timeout), opened(place) as (reader, _):
            while b"\n" not in line and len(line) < MAX_INFO:
                more = await reader.read(MAX_INFO)
                if not more:
                    return line or None
                line += more
    except TimeoutError:
        return line
    except OSError:
        return None
    return line


def _version(info: Mapping[str, Any]) -> Check:
    text = str(info.get("version"))[:40]
    numbers = tuple(int(each) for each in text.split(".")[:2] if each.isdecimal())
    details = {"peer": text, "name": str(info.get("server_name"))[:100]}
    if len(numbers) == 2 and numbers < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        return warning("version", f"NATS is {text}", f"upgrade it to {wanted} or newer", **details)
    return ok("version", f"NATS is {text}, the server {details['name']}", **details)


async def _as_user(
    settings: Nats, timeout: float, insecure: bool, info: Mapping[str, Any]
) -> AsyncIterator[Check]:
    try:
        from ...nats.connection import Connection

        connection = Connection(settings, name="berrymq doctor", insecure=insecure, serves=False)
    except ModuleNotFoundError as error:
        yield failed("extras", str(error), "install it")
        return
    except (AuthenticationError, OSError, ValueError) as error:
        yield failed("keys", str(error), "compare --nkey and --credentials with the server's users")
        return
    try:
        trouble = await _connect(connection, timeout)
        if trouble is not None:
            yield trouble
            return
        yield ok("keys", _who(settings, info), tls=settings.address.tls)
        async for check in _inside(connection, settings, timeout):
            yield check
    finally:
        connection.abort()
        await connection.wait_closed()


def _who(settings: Nats, info: Mapping[str, Any]) -> str:
    if settings.has_proof:
        return "the server accepts this side's login"
    return "the server lets this side in without a login"


async def _connect(connection: Any, timeout: float) -> Check | None:
    try:
        await connection.connect(timeout)
    except AuthenticationError as error:
        advice = (
            "give a user and a password before the @ of the address (or BERRYMQ_NATS_LOGIN), "
            "--credentials or --nkey, as the server's configuration has them"
        )
        if error.reason == "certificate":
            advice = (
                "give --nats-ca, the authority of its certificate, and --nats-certificate if it "
                "wants one"
            )
        return failed("keys", str(error), advice, reason=error.reason)
    except ConnectionLostError as error:
        return failed("protocol", str(error), "its log says why")
    except ValueError as error:
        advice = "have it want a login over TLS, or give --insecure if you trust the network"
        return failed("keys", str(error), advice)
    except ModuleNotFoundError as error:
        return failed("extras", str(error), "install it")
    return None


async def _inside(connection: Any, settings: Nats, timeout: float) -> AsyncIterator[Check]:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    for _ in range(PINGS):
        began = loop.time()
        if not await connection.flush(timeout):
            text = f"ping {len(times) + 1} was not answered within {timeout:g} s"
            yield failed("latency", text, "is the server frozen, or very busy?")
            return
        times.append(loop.time() - began)
    yield latency(times, "pings")
    yield ok(
        "limits", f"max_payload {connection.max_payload:,}", max_payload=connection.max_payload
    )
    async for check in _jetstream(connection, settings, timeout):
        yield check
    if settings.address.service is not None:
        yield await _service(connection, settings.address.service, timeout)


async def _jetstream(connection: Any, settings: Nats, timeout: float) -> AsyncIterator[Check]:
    from ...nats.jetstream import JetStream

    try:
        async with asyncio.timeout(timeout):
            answer = await JetStream(connection, str(settings)).request("INFO")
    except NotFoundError:
        text = "JetStream is off: durable queues and retained messages need it"
        yield warning(
            "jetstream", text, "start the server with -js, if you use them", enabled=False
        )
        return
    except TimeoutError:
        text = f"JetStream did not answer within {timeout:g} s"
        yield warning("jetstream", text, "may this user ask it ($JS.API.>)? Is there a leader?")
        return
    except Error as error:
        yield warning("jetstream", str(error), "may this user ask it ($JS.API.>)?")
        return
    streams, size = answer.get("streams"), answer.get("storage")
    text = (
        f"JetStream is on (streams: {streams}, bytes: {size:,})"
        if isinstance(size, int)
        else "JetStream is on"
    )
    yield ok("jetstream", text, enabled=True, streams=streams)
    if streams:
        told = await _time_of_server(connection, settings, timeout)
        if told is not None:
            yield clock(told, datetime.now(UTC))


async def _time_of_server(connection: Any, settings: Nats, timeout: float) -> str | None:
    """The time that the server says in what it tells of a stream; none if it may not be asked."""
    from ...nats.jetstream import JetStream

    try:
        async with asyncio.timeout(timeout):
            answer = await JetStream(connection, str(settings)).request(
                "STREAM.LIST", {"offset": 0}
            )
    except (Error, TimeoutError):
        # Nothing else needs it.
        return None
    streams = answer.get("streams")
    first = streams[0] if isinstance(streams, list) and streams else None
    told = first.get("ts") if isinstance(first, dict) else None
    return told if isinstance(told, str) else None


def clock(told: str, now: datetime) -> Check:
    """Compare the time of day that a peer told with this host's.

    Args:
        told: in ISO 8601, with more digits than Python knows.
        now: this host's, with its time zone.
    """
    try:
        theirs = datetime.fromisoformat(told[:19]).replace(tzinfo=UTC)
    except ValueError:
        return warning("clock", f"the peer tells a time that is none: {told[:40]!r}")
    return difference((theirs - now).total_seconds())


def difference(seconds: float) -> Check:
    """The check of how far the peer's clock is ahead of this host's."""
    details = {"difference": round(seconds, 1)}
    if abs(seconds) <= MAX_DIFFERENCE:
        return ok("clock", "the peer's time of day is that of this host", **details)
    way = "ahead of" if seconds > 0 else "behind"
    text = f"the peer's clock is {abs(seconds):,.0f} s {way} that of this host"
    advice = (
        "have both hosts set their clocks by NTP: certificates and times such as --since depend on "
        "it; deadlines of calls do not"
    )
    return warning("clock", text, advice, **details)


async def _service(connection: Any, service: str, timeout: float) -> Check:
    try:
        reply = await connection.request(f"$SRV.INFO.{service}", b"", timeout=timeout)
        found = json.loads(reply.payload)
    except NotFoundError:
        return failed(
            "service",
            f"no server of {service} is there",
            "is it running, and at this NATS server or cluster? nats micro ls lists what is",
        )
    except TimeoutError:
        text = f"no server of {service} answered within {timeout:g} s"
        return failed("service", text, "are they frozen, or held up by a function?")
    except (Error, ValueError, RecursionError) as error:
        return failed("service", f"{service}: {error}", "may this user ask it ($SRV.>)?")
    version = found.get("version") if isinstance(found, dict) else None
    text = f"a server of {service} answers, version {str(version)[:40]}"
    return ok("service", text, version=str(version)[:40])
