"""The will table: when a will is due, and when it is not."""

import pytest

from berrymq_rpc.errors import OverloadedError
from berrymq_rpc.exchange.batch import Presence, PresenceBatch
from berrymq_rpc.exchange.will_table import (
    ASK,
    ASK_AGAIN,
    FIRST_PATIENCE,
    Due,
    HeldWill,
    WillTable,
)


def will(name: str = "x", id: str = "1", *, epoch: int = 1, size: int = 10) -> HeldWill:
    presence = Presence("node", (name, epoch), id, 0, 5.0)
    return HeldWill(
        PresenceBatch(presence, (name, epoch), 1, b"w" * size), "gone:now", None, "them"
    )


def held(table: WillTable, *ways: str, of: HeldWill | None = None) -> HeldWill:
    kept = will() if of is None else of
    for way in ways:
        table.hold(way, kept, 0.0)
        table.reached(way)
    return kept


def test_others_are_asked_before_the_time_is_over() -> None:
    table = WillTable()
    kept = held(table, "a")
    assert table.next_due() is None
    table.lost("a", 10.0)
    assert table.next_due() == 15.0 - ASK
    assert table.poll(14.4) == []
    assert table.poll(14.5) == [Due(kept, False)]
    assert table.poll(14.9) == []
    assert table.poll(15.0) == [Due(kept, True)]


def test_who_is_late_to_ask_still_waits_for_the_answer() -> None:
    table = WillTable()
    kept = held(table, "a")
    table.lost("a", 10.0)
    assert table.poll(100.0) == [Due(kept, False)]
    assert table.next_due() == 100.0 + ASK


def test_a_node_that_is_reached_another_way_is_not_lost() -> None:
    table = WillTable()
    held(table, "a", "b")
    table.lost("a", 10.0)
    assert table.next_due() is None
    table.lost("b", 11.0)
    assert table.next_due() == 16.0 - ASK
    # Twice lost is lost once.
    table.lost("b", 12.0)
    assert table.next_due() == 16.0 - ASK
    table.reached("a")
    assert table.next_due() is None


def test_a_will_goes_with_the_last_way_that_is_closed_in_good_order() -> None:
    table = WillTable()
    held(table, "a", "b")
    table.release("a")
    assert len(table) == 1
    table.release("b")
    assert len(table) == 0
    table.release("b")


def test_a_way_that_ends_leaves_the_will_until_it_is_published() -> None:
    table = WillTable()
    kept = held(table, "a")
    table.end("a", 10.0)
    assert table.next_due() == 15.0 - ASK
    table.poll(14.5)
    assert table.poll(15.0) == [Due(kept, True)]
    table.published(kept)
    assert len(table) == 0
    assert table.next_due() is None


def test_who_comes_back_after_its_will_can_be_lost_again() -> None:
    table = WillTable()
    kept = held(table, "a")
    table.lost("a", 10.0)
    table.published(kept)
    assert table.next_due() is None
    table.lost("a", 20.0)
    assert table.next_due() is None
    assert table.reached("a") is kept
    assert table.reached("a") is None
    table.lost("a", 30.0)
    assert table.next_due() == 35.0 - ASK


def test_another_node_that_holds_the_will_takes_it_over() -> None:
    table = WillTable()
    kept = held(table, "a")
    table.lost("a", 10.0)
    table.found(kept, 14.6, is_held=True)
    assert table.next_due() is None
    # It is there again, and lost.
    table.reached("a")
    table.lost("a", 20.0)
    assert table.next_due() == 25.0 - ASK
    table.end("a", 21.0)
    table.found(kept, 24.6, is_held=True)
    assert len(table) == 0


def test_a_node_that_answers_itself_is_asked_again() -> None:
    table = WillTable()
    kept = held(table, "a")
    table.lost("a", 10.0)
    table.poll(14.5)
    table.found(kept, 14.6, is_held=False)
    assert table.next_due() == pytest.approx(14.6 + ASK_AGAIN - ASK)
    assert table.poll(table.next_due() or 0.0) == [Due(kept, False)]


def test_a_restarted_node_is_back() -> None:
    table = WillTable()
    held(table, "a")
    table.lost("a", 10.0)
    table.restarted(("x", 1), None)
    table.restarted(("y", 2), None)
    table.restarted(("x", 2), "another user")
    assert len(table) == 1
    table.restarted(("x", 2), None)
    assert len(table) == 0
    assert table.next_due() is None


def test_a_connection_holds_one_will() -> None:
    table = WillTable()
    held(table, "a")
    held(table, "a", of=will(id="2"))
    assert len(table) == 1
    assert table.get("1") is None


def test_an_id_belongs_to_its_node() -> None:
    table = WillTable()
    held(table, "a")
    with pytest.raises(ValueError, match="another node"):
        table.hold("b", will("y"), 0.0)


def test_bytes_are_bounded_and_given_back() -> None:
    table = WillTable(max_bytes=10_000, max_account_bytes=5_000)
    kept = held(table, "a", of=will(size=2_000))
    with pytest.raises(OverloadedError):
        table.hold("b", will(id="2", size=2_000), 0.0)
    assert table.refused == 1
    assert len(table) == 1
    table.remove(kept)
    table.hold("b", will(id="2", size=2_000), 0.0)


def test_a_node_that_is_lost_as_it_connects() -> None:
    table = WillTable()
    kept = will()
    table.hold("a", kept, 10.0)
    assert table.next_due() == 10.0 + FIRST_PATIENCE + 5.0 - ASK
    table.reached("a")
    assert table.next_due() is None
