import logging
from collections.abc import Iterator

import pytest

from berrymq_rpc.common.log_limiter import BURST
from berrymq_rpc.runtime.log import MAX_ERROR, MAX_KINDS, Log, renew_all

NAME = "berrymq_rpc.test_log"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    logging.getLogger(NAME).setLevel(logging.DEBUG)
    yield
    logging.getLogger(NAME).setLevel(logging.NOTSET)


def failure(text: str) -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_each_kind_has_its_rate(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(NAME, clock=clock)
    for number in range(100):
        log.warning("first %d", number)
        log.error("second %d", number)
        log.info("third %d", number)
    assert caplog.messages == [
        f"{kind} {number}" for number in range(BURST) for kind in ("first", "second", "third")
    ]
    caplog.clear()
    clock.now = 1.0
    log.warning("first %d", 100)
    log.warning("first %d", 101)
    assert caplog.messages == ["first 100 (90 more were left out)"]


def test_objects_of_one_logger_share_it(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        for log in (Log(NAME, clock=clock), Log(logging.getLogger(NAME), clock=clock)):
            for _ in range(5):
                log.warning("text")
    assert len(caplog.messages) == BURST
    Log(f"{NAME}.other", clock=clock).warning("text")
    assert len(caplog.messages) == BURST + 1


def test_what_it_is_about_has_a_rate_of_its_own(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log(NAME, clock=clock)
    for _ in range(20):
        log.warning("failed", about="a")
        log.warning("failed", about="b")
    assert len(caplog.messages) == 2 * BURST


def test_kinds_are_bounded(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(NAME, clock=clock)
    for number in range(MAX_KINDS + 100):
        log.warning("failed", about=number)
    assert len(caplog.messages) == MAX_KINDS + BURST


def test_the_first_tracebacks_are_whole(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(NAME, clock=clock)
    for number in range(BURST):
        log.error("failed", exc_info=failure(f"number {number}"))
    assert caplog.text.count("Traceback") == BURST
    caplog.clear()
    clock.now = 1.0
    log.error("failed", exc_info=failure("x" * 10_000))
    assert "Traceback" not in caplog.text
    (text,) = caplog.messages
    assert text.startswith("failed: ValueError: xxx")
    assert len(text) <= len("failed: ") + MAX_ERROR


def test_the_exception_that_is_handled(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(NAME, clock=clock)
    try:
        raise LookupError("cause")
    except LookupError:
        log.exception("failed")
    log.exception("failed", exc_info=failure("given"))
    assert "LookupError: cause" in caplog.text
    assert "ValueError: given" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


def test_debug_has_no_bound(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(NAME, clock=clock)
    for _ in range(100):
        log.debug("text")
    assert len(caplog.messages) == 100


def test_a_record_says_where_it_was_made(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(NAME, clock=clock)
    log.debug("text")
    log.info("text")
    log.warning("text")
    log.error("text")
    log.exception("text")
    assert [(record.filename, record.funcName) for record in caplog.records] == [
        ("test_log.py", "test_a_record_says_where_it_was_made")
    ] * 5


def test_what_raises_takes_part_in_the_rate(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(NAME, clock=clock)
    for _ in range(100):
        log.warning("%d", "not a number")
    assert log.failures == BURST


def test_renewed(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(NAME, clock=clock)
    for _ in range(2):
        renew_all()
        for _ in range(20):
            log.warning("text")
    assert len(caplog.messages) == 2 * BURST
