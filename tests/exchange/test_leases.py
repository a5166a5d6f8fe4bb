import uuid
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from berrymq_rpc.errors import OverloadedError
from berrymq_rpc.exchange.leases import (
    MAX_TOKEN_LENGTH,
    MAX_TTL,
    SPARE_TIMERS,
    Lease,
    LeaseTable,
    TokenError,
    checked_ttl,
)


class Freed(list[str]):
    """What a table has freed, in order."""


@pytest.fixture
def freed() -> Freed:
    return Freed()


@pytest.fixture
def table(freed: Freed) -> LeaseTable[str]:
    return LeaseTable(freed.append, max_leases=3)


def status(table: LeaseTable[str], token: object, now: float) -> str:
    try:
        table.use(token, now)
    except TokenError as refused:
        return refused.status
    return "live"


def refuses(status: str) -> Any:
    return pytest.raises(TokenError, match=f"^{status}$")


def test_a_token_is_a_random_uuid(table: LeaseTable[str]) -> None:
    tokens = [table.add("value", 10, 0.0) for _ in range(3)]
    assert len(set(tokens)) == 3
    assert {uuid.UUID(token).version for token in tokens} == {4}
    assert [str(uuid.UUID(token)) for token in tokens] == tokens


def test_a_use_gives_the_value_and_restarts_the_ttl(table: LeaseTable[str], freed: Freed) -> None:
    token = table.add("value", 10, 0.0)
    for now in (9.0, 18.5, 28.0):
        assert table.use(token, now) == "value"
    assert freed == []
    assert status(table, token, 38.0) == "timeout"
    assert freed == ["value"]


def test_an_unused_token_says_timeout_once(table: LeaseTable[str]) -> None:
    token = table.add("value", 10, 0.0)
    assert [status(table, token, now) for now in (10.0, 10.0, 11.0)] == [
        "timeout",
        "invalid token",
        "invalid token",
    ]


def test_it_is_freed_though_no_one_asks(table: LeaseTable[str], freed: Freed) -> None:
    table.add("late", 20, 0.0)
    table.add("early", 10, 0.0)
    assert table.next_expiry() == 10.0
    table.expire(9.9)
    assert freed == []
    table.expire(10.0)
    assert freed == ["early"]
    assert table.next_expiry() == 20.0
    table.expire(50.0)
    assert freed == ["early", "late"]
    assert table.next_expiry() is None
    assert len(table) == 0


@pytest.mark.parametrize("token", ["", "unknown", None, 5, b"x", ["x"], {"x": 1}])
def test_what_is_no_token_is_invalid(table: LeaseTable[str], token: Any) -> None:
    table.add("value", 10, 0.0)
    assert status(table, token, 0.0) == "invalid token"
    with pytest.raises(TokenError):
        table.pin(token, 0.0)
    with pytest.raises(TokenError):
        table.remove(token, 0.0)


def test_a_removed_token_is_invalid_at_once(table: LeaseTable[str], freed: Freed) -> None:
    token = table.add("value", 10, 0.0)
    table.remove(token, 1.0)
    assert freed == ["value"]
    assert status(table, token, 1.0) == "invalid token"
    table.expire(100.0)
    assert freed == ["value"]


class TestProposed:
    def test_is_taken(self, table: LeaseTable[str]) -> None:
        assert table.add("value", 10, 0.0, "mine") == "mine"
        assert table.use("mine", 1.0) == "value"

    def test_is_refused_while_it_is_in_use(self, table: LeaseTable[str]) -> None:
        table.add("value", 10, 0.0, "mine")
        with pytest.raises(ValueError, match="in use"):
            table.add("other", 10, 1.0, "mine")
        assert table.use("mine", 2.0) == "value"

    def test_is_refused_until_its_old_holder_was_informed(self, table: LeaseTable[str]) -> None:
        table.add("value", 10, 0.0, "mine")
        with pytest.raises(ValueError, match="in use"):
            table.add("other", 10, 10.0, "mine")
        assert status(table, "mine", 11.0) == "timeout"
        assert table.add("other", 10, 11.0, "mine") == "mine"

    @pytest.mark.parametrize("token", ["", "x" * (MAX_TOKEN_LENGTH + 1), 5, b"x", ["x"]])
    def test_is_text_of_some_length(self, table: LeaseTable[str], token: Any) -> None:
        with pytest.raises(ValueError, match="1 to 100 characters"):
            table.add("value", 10, 0.0, token)
        assert len(table) == 0


class TestHeld:
    def test_does_not_expire(self, table: LeaseTable[str], freed: Freed) -> None:
        token = table.add("value", 10, 0.0)
        lease = table.pin(token, 5.0)
        assert lease.value == "value"
        table.expire(1000.0)
        assert table.next_expiry() is None
        table.unpin(lease, 1000.0)
        assert table.next_expiry() == 1010.0
        assert status(table, token, 1009.0) == "live"
        table.expire(1019.0)
        assert freed == ["value"]

    def test_until_the_last_lets_go(self, table: LeaseTable[str], freed: Freed) -> None:
        token = table.add("value", 10, 0.0)
        first, second = table.pin(token, 0.0), table.pin(token, 0.0)
        table.expire(20.0)
        table.unpin(first, 20.0)
        table.expire(40.0)
        assert freed == []
        table.unpin(second, 40.0)
        table.expire(50.0)
        assert freed == ["value"]

    def test_shortly_needs_no_second_timer(self, table: LeaseTable[str], freed: Freed) -> None:
        token = table.add("value", 10, 0.0)
        for now in range(9):
            table.unpin(table.pin(token, now), now)
        assert table.timers == 1
        table.expire(10.0)
        assert freed == []
        assert table.next_expiry() == 18.0

    def test_may_be_removed(self, table: LeaseTable[str], freed: Freed) -> None:
        token = table.add("value", 10, 0.0, "mine")
        lease = table.pin(token, 0.0)
        table.remove(token, 1.0)
        assert freed == ["value"]
        table.add("next", 5, 2.0, "mine")
        table.expire(6.0)
        # It was another's.
        table.unpin(lease, 6.5)
        assert status(table, "mine", 6.9) == "live"
        table.expire(100.0)
        assert freed == ["value", "next"]


class TestBounds:
    def test_of_tokens(self, table: LeaseTable[str]) -> None:
        for value in "abc":
            table.add(value, 10, 0.0)
        with pytest.raises(OverloadedError, match="max_connections=3 is reached"):
            table.add("d", 10, 9.0)
        # Those that are over take no room.
        table.add("d", 10, 10.0)
        assert table.values() == ["d"]

    def test_of_what_is_remembered(self, table: LeaseTable[str]) -> None:
        tokens = []
        for now in range(5):
            tokens.append(table.add("value", 1, now))
        assert [status(table, token, 10.0) for token in tokens] == [
            "invalid token",
            "invalid token",
            "timeout",
            "timeout",
            "timeout",
        ]

    def test_of_timers_that_no_one_needs(self, table: LeaseTable[str], freed: Freed) -> None:
        kept = table.add("kept", 1000, 0.0)
        for _ in range(10 * SPARE_TIMERS):
            table.remove(table.add("gone", 10_000, 0.0), 0.0)
        assert table.timers <= SPARE_TIMERS + 4
        assert table.use(kept, 1.0) == "kept"
        table.expire(1001.0)
        assert freed[-1] == "kept"


def test_clear_frees_all(table: LeaseTable[str], freed: Freed) -> None:
    old = table.add("old", 1, 0.0)
    tokens = [table.add(value, 10, 5.0) for value in "ab"]
    table.clear()
    assert freed == ["old", "a", "b"]
    assert table.next_expiry() is None
    assert {status(table, token, 5.0) for token in [old, *tokens]} == {"invalid token"}


@pytest.mark.parametrize("ttl", [1, 0.001, 86400])
def test_ttl_is_seconds(ttl: float) -> None:
    assert checked_ttl(ttl) == float(ttl)


@pytest.mark.parametrize("ttl", [86401, 1e300, 10**300, 10**400, float("inf"), 1e308])
def test_a_ttl_is_cut(table: LeaseTable[str], freed: Freed, ttl: float) -> None:
    assert checked_ttl(ttl) == MAX_TTL == 86400
    table.add("value", ttl, 0.0)
    assert table.next_expiry() == MAX_TTL
    short: LeaseTable[str] = LeaseTable(freed.append, max_ttl=60)
    short.add("value", ttl, 0.0)
    assert short.next_expiry() == 60


class TestPlaces:
    """What becomes of one lease more than there may be."""

    def table(self, freed: Freed) -> LeaseTable[str]:
        return LeaseTable(freed.append, max_leases=6, max_peer_leases=3)

    def test_the_oldest_that_was_never_used_makes_way(self, freed: Freed) -> None:
        table = self.table(freed)
        tokens = [table.add(f"{n}", 10, float(n), account=n % 2) for n in range(6)]
        assert table.use(tokens[0], 6.0) == "0"
        table.add("new", 10, 6.0, account="other")
        assert (freed, len(table), table.displaced) == (["1"], 6, 1)
        assert status(table, tokens[1], 6.0) == "invalid token"
        assert [status(table, token, 6.0) for token in tokens[2:]] == ["live"] * 4

    def test_not_one_that_was_used_once(self, freed: Freed) -> None:
        table = self.table(freed)
        for number in range(6):
            token = table.add(f"{number}", 10, 0.0, account=number % 2)
            if number % 2:
                table.use(token, 0.0)
            else:
                table.unpin(table.pin(token, 0.0), 0.0)
        for account in ("other", 0, 1):
            with pytest.raises(OverloadedError):
                table.add("more", 10, 9.0, account=account)
        assert (freed, table.refused, table.displaced) == ([], 3, 0)
        # Then the ttl holds.
        table.add("later", 10, 10.0, account="other")
        assert (len(freed), len(table)) == (6, 1)

    def test_one_peer_takes_only_its_share(self, freed: Freed) -> None:
        table = self.table(freed)
        tokens = [table.add(f"{n}", 10, 0.0, account="greedy") for n in range(3)]
        other = table.add("other", 10, 0.0, account="modest")
        # Of its own, not the other's.
        table.add("3", 10, 0.0, account="greedy")
        assert freed == ["0"]
        for token in tokens[1:]:
            table.use(token, 1.0)
        table.add("4", 10, 1.0, account="greedy")
        assert freed == ["0", "3"]
        assert status(table, other, 1.0) == "live"
        # A place that is given back is one again.
        table.remove(tokens[1], 1.0)
        table.add("5", 10, 1.0, account="greedy")
        assert freed == ["0", "3", "1"]

    def test_this_side_itself_has_no_share_and_makes_way_for_none(self, freed: Freed) -> None:
        table = self.table(freed)
        for number in range(6):
            table.add(f"{number}", 10, 0.0)
        with pytest.raises(OverloadedError, match="max_connections=6 is reached"):
            table.add("more", 10, 0.0, account="peer")
        assert freed == []

    def test_a_peer_that_has_none_is_forgotten(self, freed: Freed) -> None:
        table = self.table(freed)
        for number in range(1000):
            table.remove(table.add("value", 10, 0.0, account=number), 0.0)
            table.add("value", 1, 100.0 + number, account=number)
        table.expire(5000.0)
        assert len(table) == 0
        assert table.peers == 0

    def test_what_is_malformed_displaces_none(self, freed: Freed) -> None:
        table = self.table(freed)
        for number in range(6):
            table.add(f"{number}", 10, 0.0, account=number)
        with pytest.raises(ValueError, match="token must be text"):
            table.add("more", 10, 0.0, 5, account="other")
        with pytest.raises(ValueError, match="ttl"):
            table.add("more", float("nan"), 0.0, account="other")
        assert freed == []


@pytest.mark.parametrize(
    "ttl", [0, -1, 0.0, float("nan"), -float("inf"), -(10**400), True, None, "10", [1]]
)
def test_ttl_is_above_zero(table: LeaseTable[str], ttl: Any) -> None:
    with pytest.raises(ValueError, match="above 0"):
        checked_ttl(ttl)
    with pytest.raises(ValueError, match="above 0"):
        table.add("value", ttl, 0.0)
    assert len(table) == 0


class Model(RuleBasedStateMachine):
    """Compare the table with the simplest model, which looks at everything each time."""

    tokens = Bundle("tokens")
    pins = Bundle("pins")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.freed: list[int] = []
        self.table: LeaseTable[int] = LeaseTable(self.freed.append)
        self.count = 0
        # By token: value, ttl, last use and how often it is held.
        self.live: dict[str, list[Any]] = {}
        self.expired: set[str] = set()
        self.ended: list[int] = []

    def look(self) -> None:
        over = [
            (last + ttl, token)
            for token, (_, ttl, last, pins) in self.live.items()
            if not pins and last + ttl <= self.now
        ]
        for _, token in sorted(over):
            self.ended.append(self.live.pop(token)[0])
            self.expired.add(token)

    def refused(self, token: str) -> str | None:
        self.look()
        if token in self.live:
            return None
        if token in self.expired:
            self.expired.remove(token)
            return "timeout"
        return "invalid token"

    @rule(seconds=st.sampled_from([0.5, 1, 3, 10]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=tokens, ttl=st.integers(1, 8))
    def add(self, ttl: int) -> str:
        self.look()
        self.count += 1
        token = self.table.add(self.count, ttl, self.now)
        self.live[token] = [self.count, ttl, self.now, 0]
        return token

    @rule(token=tokens)
    def use(self, token: str) -> None:
        expected = self.refused(token)
        if expected is not None:
            with refuses(expected):
                self.table.use(token, self.now)
            return
        assert self.table.use(token, self.now) == self.live[token][0]
        self.live[token][2] = self.now

    @rule(target=pins, token=tokens)
    def pin(self, token: str) -> tuple[str, Lease[int] | None]:
        expected = self.refused(token)
        if expected is not None:
            with refuses(expected):
                self.table.pin(token, self.now)
            return token, None
        lease = self.table.pin(token, self.now)
        self.live[token][3] += 1
        return token, lease

    @rule(pin=consumes(pins))
    def unpin(self, pin: tuple[str, Lease[int] | None]) -> None:
        token, lease = pin
        if lease is None:
            return
        self.look()
        self.table.unpin(lease, self.now)
        if token in self.live:
            self.live[token][2] = self.now
            self.live[token][3] -= 1

    @rule(token=tokens)
    def remove(self, token: str) -> None:
        expected = self.refused(token)
        if expected is not None:
            with refuses(expected):
                self.table.remove(token, self.now)
            return
        self.table.remove(token, self.now)
        self.ended.append(self.live.pop(token)[0])

    @invariant()
    def same(self) -> None:
        self.look()
        self.table.expire(self.now)
        # Each once; the order of those that expire together does not matter.
        assert sorted(self.freed) == sorted(self.ended)
        assert sorted(self.table.values()) == sorted(lease[0] for lease in self.live.values())
        due = self.table.next_expiry()
        for _, ttl, last, pins in self.live.values():
            assert pins or (due is not None and due <= last + ttl)


TestModel = Model.TestCase
