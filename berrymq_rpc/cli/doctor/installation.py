"""This installation: the versions of what it uses, its extras, and what the system allows."""

import asyncio
import platform
import sys
from collections.abc import AsyncIterator
from importlib import metadata
from importlib.util import find_spec

from ...runtime.extra import install_command
from ...security import KeyPair
from .check import Check, failed, ok, warning

__all__ = ["examine_installation"]

#: The extras that users choose, with the module by which each is imported.
EXTRAS = {
    "cli": ("click", "rich"),
    "http": ("aiohttp",),
    "nats": ("nats", "nkeys"),
    "json": ("msgspec",),
    "uvloop": ("uvloop",),
    "metrics": ("prometheus_client",),
    "otel": ("opentelemetry",),
    "files": ("watchfiles",),
    "discovery": ("zeroconf",),
}

#: Versions of Python that this package is made for, from the first to the last.
FIRST, LAST = (3, 11), (3, 14)

#: Files that a process may have open: each connection takes one to three.
FEW_FILES = 1024

_WHAT = {
    "cli": "the berrymq command",
    "http": "bridges, and calls over HTTP",
    "nats": "addresses of NATS",
    "json": "faster JSON",
    "uvloop": "a faster event loop",
    "metrics": "/metrics for Prometheus",
    "otel": "OpenTelemetry",
    "files": "files as senders of messages",
    "discovery": "mdns://, and announce=",
}


async def examine_installation(own_version: str) -> AsyncIterator[Check]:
    """Check what is installed here.

    Args:
        own_version: of this package.
    """
    yield ok("package", f"berrymq_rpc {own_version}", version=own_version)
    yield _python()
    for name in ("aiozmq", "msgpack"):
        yield _installed(name)
    yield _pyzmq()
    yield _curve()
    yield _extras()
    yield _files()
    yield _loop()


def _python() -> Check:
    text = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    found = sys.version_info[:2]
    details = {"version": platform.python_version(), "platform": platform.platform()}
    if not FIRST <= found <= LAST:
        known = " to ".join(".".join(map(str, each)) for each in (FIRST, LAST))
        return warning("python", text, f"berrymq_rpc is tested with CPython {known}", **details)
    return ok("python", text, **details)


def _installed(name: str) -> Check:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return failed(name, f"{name} is not installed", f"pip install {name}")
    return ok(name, f"{name} {version}", version=version)


def _pyzmq() -> Check:
    # Its own module imports zmq, which the command may not.
    from ...rpc.transport.binding import library_versions

    pyzmq, libzmq = library_versions()
    details = {"version": pyzmq, "libzmq": libzmq}
    text = f"pyzmq {pyzmq} with libzmq {libzmq}"
    if tuple(int(each) for each in libzmq.split(".")[:3]) < (4, 3, 4):
        return warning(
            "pyzmq", text, "pip install --upgrade pyzmq brings a newer libzmq", **details
        )
    return ok("pyzmq", text, **details)


def _curve() -> Check:
    try:
        KeyPair.generate()
    except Exception as error:
        advice = "this libzmq was built without CURVE: pip install --force-reinstall pyzmq has it"
        return warning("curve", f"no keys (CURVE) are possible: {error}", advice)
    return ok("curve", "keys (CURVE) are possible")


def _extras() -> Check:
    here: list[str] = []
    missing: list[str] = []
    for extra, modules in EXTRAS.items():
        (here if all(map(find_spec, modules)) else missing).append(extra)
    details = {"installed": here, "missing": missing}
    text = f"installed: {', '.join(here)}"
    if not missing:
        return ok("extras", text, **details)
    more = "; ".join(f"{extra} ({_WHAT[extra]}): {install_command(extra)}" for extra in missing)
    return ok("extras", f"{text}; not installed: {more}", **details)


def _files() -> Check:
    try:
        import resource
    except ModuleNotFoundError:
        return ok("files", f"{sys.platform} has no bound on open files")
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = limit == resource.RLIM_INFINITY
    details = {"limit": None if endless else limit, "hard": most}
    text = (
        "a process may have any number of files open"
        if endless
        else f"a process may have {limit:,} files open"
    )
    if not endless and limit <= FEW_FILES:
        advice = (
            "enough for some hundred peers; a server of more wants a higher bound: "
            "ulimit -n 65536, or LimitNOFILE= of systemd"
        )
        return warning("files", text, advice, **details)
    return ok("files", text, **details)


def _loop() -> Check:
    loop = asyncio.get_running_loop()
    name = f"{type(loop).__module__}.{type(loop).__qualname__}"
    return ok("loop", f"the event loop is {name}", name=name)
