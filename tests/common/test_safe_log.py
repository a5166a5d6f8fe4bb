import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from berrymq_rpc.common.safe_log import ERROR, MAX_CHARACTERS, SafeLog

NAME = "berrymq_rpc.test_safe_log"


class Raising(logging.Handler):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def emit(self, record: logging.LogRecord) -> None:
        raise self.error


class RaisingFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise ValueError("filter")


class HostileText:
    def __str__(self) -> str:
        raise SystemExit("hostile")

    __repr__ = __str__


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger(NAME)
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    for one in list(logger.filters):
        logger.removeFilter(one)


@pytest.mark.parametrize(
    "error", [ValueError("handler"), SystemExit(3), GeneratorExit(), RecursionError(), OSError(28)]
)
def test_a_handler_that_raises(
    logger: logging.Logger, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.addHandler(Raising(error))
    log = SafeLog(NAME)
    for _ in range(3):
        log.write(ERROR, "number %d", (1,))
    assert log.failures == 3
    # The first is shown, as logging shows what its own handlers raise.
    shown = capsys.readouterr().err
    assert shown.count("--- Logging error ---") == 1
    assert type(error).__name__ in shown


def test_a_filter_that_raises(logger: logging.Logger) -> None:
    logger.addFilter(RaisingFilter())
    log = SafeLog(logger)
    log.write(ERROR, "text", ())
    assert log.failures == 1


@pytest.mark.parametrize(
    ("text", "args"), [("%s", (HostileText(),)), ("%d", ("x",)), ("%s %s", (1,))]
)
def test_arguments_that_cannot_be_shown(text: str, args: tuple[Any, ...]) -> None:
    log = SafeLog(NAME)
    log.write(ERROR, text, args)
    assert log.failures == 1


def test_no_standard_error(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    logger.addHandler(Raising(ValueError()))
    monkeypatch.setattr(sys, "stderr", None)
    log = SafeLog(NAME)
    log.write(ERROR, "text", ())
    assert log.failures == 1


def test_ctrl_c_is_raised(logger: logging.Logger) -> None:
    logger.addHandler(Raising(KeyboardInterrupt()))
    log = SafeLog(NAME)
    with pytest.raises(KeyboardInterrupt):
        log.write(ERROR, "text", ())


def test_a_record_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    SafeLog(NAME).write(ERROR, "from %s", ("x" * 1_000_000,))
    (record,) = caplog.records
    assert len(record.getMessage()) == MAX_CHARACTERS + 3
    assert record.getMessage().startswith("from xxx")


def test_a_record_says_where_it_was_made(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    log = SafeLog(NAME)
    log.debug("a %s", "text", exc_info=ValueError("cause"))
    log.write(ERROR, "a %s", ("text",), frames=0)
    for record in caplog.records:
        assert (record.filename, record.msg, record.args) == (
            "test_safe_log.py",
            "a %s",
            ("text",),
        )
    assert "ValueError: cause" in caplog.text
    assert (log.failures, repr(log)) == (0, f"<SafeLog {NAME}>")


def test_a_level_that_is_off_costs_nothing() -> None:
    log = SafeLog(NAME)
    log.debug("%s", HostileText())
    assert log.failures == 0


def test_nothing_is_logged_at_the_end_of_the_interpreter(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = SafeLog(NAME)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "is_finalizing", lambda: True)
        log.write(logging.ERROR, "late", ())
    assert not caplog.records
