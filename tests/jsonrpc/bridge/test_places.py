"""Who has how many connections and bytes, and who gives way."""

import pytest

from berrymq_rpc.endpoint import host_key
from berrymq_rpc.jsonrpc.bridge.places import NoPlaceError, Place, PlaceBounds, Places


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Hosts:
    """Places, and the names of the connections that were closed."""

    def __init__(self, elsewhere: int = 0, **bounds: int) -> None:
        defaults = PlaceBounds(10, 10, 1000, 1000)
        self.clock = Time()
        self.places = Places(defaults._replace(**bounds), lambda: elsewhere, self.clock)
        self.closed: list[str] = []

    def take(self, address: str, name: str = "", *, is_short: bool = False) -> Place:
        self.clock.now += 0.001
        return self.places.take(address, lambda: self.closed.append(name), is_short=is_short)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("127.0.0.1", "127.1.2.3", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::1", "127.0.0.1", False),
    ],
)
def test_hosts(one: str, other: str, same: bool) -> None:
    assert (host_key(one) == host_key(other)) is same


def test_no_address() -> None:
    assert host_key(None) == host_key("") != host_key("127.0.0.1")


def test_the_bound_of_a_host() -> None:
    hosts = Hosts(max_host_places=2)
    kept = [hosts.take("192.0.2.1") for _ in range(2)]
    with pytest.raises(NoPlaceError, match="max_host_peers=2"):
        hosts.take("192.0.2.1")
    hosts.take("192.0.2.2")
    kept[0].release()
    kept[0].release()
    hosts.take("192.0.2.1")
    assert hosts.places.count == 3


def test_the_bound_of_all() -> None:
    hosts = Hosts(max_places=3, elsewhere=1)
    for address in ("192.0.2.1", "192.0.2.2"):
        hosts.take(address).busy()
    with pytest.raises(NoPlaceError, match="max_peers=3"):
        hosts.take("192.0.2.3")


def test_the_oldest_idle_one_of_the_host_that_has_most() -> None:
    hosts = Hosts(max_places=5)
    busy = hosts.take("192.0.2.1", "busy")
    busy.busy()
    again = hosts.take("192.0.2.1", "again")
    hosts.take("192.0.2.1", "old")
    hosts.take("192.0.2.1", "new")
    hosts.take("192.0.2.2", "other's")
    again.busy()
    again.idle()
    for _ in range(2):
        hosts.take("192.0.2.3")
    assert hosts.closed == ["old", "new"]
    # Each of the three has as many: none gives way to another.
    with pytest.raises(NoPlaceError):
        hosts.take("192.0.2.3")
    assert hosts.places.count == 5
    assert hosts.places.closed == 2


def test_to_its_own_host_a_connection_gives_way_after_a_while() -> None:
    hosts = Hosts(max_host_places=1)
    hosts.take("192.0.2.1", "old")
    with pytest.raises(NoPlaceError):
        hosts.take("192.0.2.1")
    hosts.clock.now += 1.0
    hosts.take("192.0.2.1")
    assert hosts.closed == ["old"]


def test_no_files() -> None:
    hosts = Hosts()
    with pytest.raises(NoPlaceError, match="no files left"):
        hosts.take("192.0.2.1", is_short=True)
    for _ in range(2):
        hosts.take("192.0.2.2", "crowded")
    hosts.take("192.0.2.1", is_short=True)
    assert hosts.closed == ["crowded"]


def test_bytes_of_a_host() -> None:
    hosts = Hosts(max_host_bytes=100)
    small, large = (hosts.take("192.0.2.1", name) for name in ("small", "large"))
    other = hosts.take("192.0.2.2", "other")
    other.received(100)
    large.received(60)
    small.received(40)
    assert hosts.closed == []
    small.resize(1)
    assert hosts.closed == ["large"]
    assert hosts.places.size == 141
    # What a connection still sends after that does not count.
    large.received(1000)
    assert hosts.places.size == 141
    small.taken(30)
    small.taken()
    assert small.size == 1
    assert other.has_partial_text
    assert not small.has_partial_text


def test_bytes_of_all() -> None:
    hosts = Hosts(max_bytes=250, max_host_bytes=100)
    for number in range(3):
        for size in (30, 20):
            hosts.take(f"192.0.2.{number}", f"{number}: {size}").resize(size + number)
    assert hosts.places.size == 156
    late = hosts.take("192.0.2.9", "late")
    late.resize(95)
    assert hosts.closed == ["late"]
    assert hosts.places.size == 156
