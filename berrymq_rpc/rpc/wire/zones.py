"""Time zones by a key that came from a peer."""

import re
import zoneinfo
from functools import cache
from os.path import isfile

__all__ = ["is_zone_key", "zone_info"]

#: Longer than any in the database (32).
_MAX_KEY = 64

# No dots: so neither "..", nor other files among the zones, nor a module's name.
_KEY = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")


def is_zone_key(key: object) -> bool:
    """Whether a key has the form of a zone's name, such as ``"Europe/Berlin"``."""
    return type(key) is str and len(key) <= _MAX_KEY and _KEY.fullmatch(key) is not None


def zone_info(key: str) -> zoneinfo.ZoneInfo:
    """The zone of that name in this machine's database.

    `zoneinfo.ZoneInfo` by itself looks for a key that it does not find as a package to import, so
    it is asked only for what is known to be there.

    Raises:
        ValueError: there is no such zone.
    """
    if not is_zone_key(key):
        raise ValueError("not the name of a time zone")
    if any(isfile(f"{path}/{key}") for path in zoneinfo.TZPATH) or key in _known_keys():
        return zoneinfo.ZoneInfo(key)
    raise ValueError(f"this machine has no time zone {key!r}")


@cache
def _known_keys() -> frozenset[str]:
    # This takes some 70 ms, so it is done only where the system has no database, or for a zone that
    # it lacks.
    return frozenset(zoneinfo.available_timezones())
