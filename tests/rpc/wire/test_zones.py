"""Time zones by the name that a peer gave."""

import zoneinfo
from pathlib import Path

import pytest

from berrymq_rpc.rpc.wire import zones
from berrymq_rpc.rpc.wire.zones import is_zone_key, zone_info

HOSTILE = [
    "",
    "/etc/passwd",
    "../../etc/passwd",
    "Europe/../Berlin",
    "./UTC",
    "zone.tab",
    "tzdata.zi",
    "Europe//Berlin",
    "Europe/",
    "Europe\\Berlin",
    "Europe/Berlin\0",
    "Europe/Berlin\n",
    "\u0415urope/Berlin",
    "A" * 65,
]


def test_known() -> None:
    assert zone_info("Europe/Berlin") is zoneinfo.ZoneInfo("Europe/Berlin")
    assert all(is_zone_key(key) for key in zoneinfo.available_timezones())


@pytest.mark.parametrize("key", HOSTILE)
def test_no_names(key: str) -> None:
    assert not is_zone_key(key)
    with pytest.raises(ValueError, match="not the name"):
        zone_info(key)


@pytest.mark.parametrize("key", [None, 5, b"UTC"])
def test_no_text(key: object) -> None:
    assert not is_zone_key(key)


@pytest.mark.parametrize("key", ["Nowhere/Town", "Europe", "os", "leapseconds_"])
def test_unknown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What it does not know to be there it does not ask for: that would import a package.
    monkeypatch.setattr(zoneinfo, "ZoneInfo", None)
    with pytest.raises(ValueError, match="has no time zone"):
        zone_info(key)


def test_without_a_database_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoneinfo, "TZPATH", ())
    monkeypatch.setattr(zones, "_known_keys", lambda: frozenset({"Europe/Berlin"}))
    assert zone_info("Europe/Berlin").key == "Europe/Berlin"
    with pytest.raises(ValueError, match="has no time zone"):
        zone_info("Europe/Vienna")


def test_a_file_that_is_no_zone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "Broken").write_bytes(b"nothing of the kind")
    zoneinfo.reset_tzpath([tmp_path])
    try:
        with pytest.raises(ValueError, match="magic"):
            zone_info("Broken")
    finally:
        zoneinfo.reset_tzpath()
