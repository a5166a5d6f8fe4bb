"""Log at a bounded rate, and without ever failing: what all modules of this package log with."""

import sys
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..common.log_limiter import LogLimiter
from ..common.safe_log import ERROR, INFO, WARNING, SafeLog

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["Log", "renew_all"]

#: Kinds of one logger. Those beyond share one limit for each text.
MAX_KINDS = 1000

#: Characters of an exception where its traceback is left out.
MAX_ERROR = 300

#: The limits of each logger, by its name: what several objects write counts together.
_limiters: dict[str, dict[tuple[str, object], LogLimiter]] = {}


class Log(SafeLog):
    """A logger that writes 10 records of each kind, and then one a second.

    A record that follows others that were left out gives their number. The first 10 have the whole
    traceback of their exception, later ones its last line. What is logged at the level DEBUG has no
    bound.

    The kind of a record is its text, without what its places hold, and `about`. Objects of the same
    logger share the limits.

    Args:
        logger: the name of a logger, or one that the user gave.
        clock: seconds that never go back.
    """

    __slots__ = ("_clock", "_limiters")

    def __init__(self, logger: "str | Logger", *, clock: Callable[[], float] = monotonic) -> None:
        super().__init__(logger)
        self._clock = clock
        self._limiters = _limiters.setdefault(self._name, {})

    def info(self, text: str, *args: Any, about: object = None) -> None:
        """Log what is normal."""
        self._limited(INFO, text, args, None, about)

    def warning(
        self, text: str, *args: Any, exc_info: BaseException | None = None, about: object = None
    ) -> None:
        """Log what a user should know.

        Args:
            text: with ``%`` places for `args`.
            exc_info: an exception whose traceback is shown.
            about: what has limits of its own, such as a receiver's name. Never a peer's choice.
        """
        self._limited(WARNING, text, args, exc_info, about)

    def error(
        self, text: str, *args: Any, exc_info: BaseException | None = None, about: object = None
    ) -> None:
        """Log what failed; the arguments are those of `warning`."""
        self._limited(ERROR, text, args, exc_info, about)

    def exception(
        self, text: str, *args: Any, exc_info: BaseException | None = None, about: object = None
    ) -> None:
        """Log the exception that is being handled; the arguments are those of `warning`."""
        self._limited(ERROR, text, args, exc_info or sys.exception(), about)

    def _limited(
        self,
        level: int,
        text: str,
        args: tuple[Any, ...],
        error: BaseException | None,
        about: object,
    ) -> None:
        limiter = self._limiter(text, about)
        if not limiter.admit(self._clock()):
            return
        kind = text
        if error is not None and not limiter.is_early:
            text, args, error = f"{text}: %s", (*args, _last_line(error)), None
        if limiter.left_out:
            text, args = f"{text} (%d more were left out)", (*args, limiter.left_out)
        self.write(level, text, args, error, frames=2, kind=kind, left_out=limiter.left_out)

    def _limiter(self, text: str, about: object) -> LogLimiter:
        limiters = self._limiters
        limiter = limiters.get((text, about))
        if limiter is None:
            if len(limiters) >= MAX_KINDS:
                about = None
            limiter = limiters.setdefault((text, about), LogLimiter())
        return limiter


def renew_all() -> None:
    """Let all kinds begin anew, as in a process that has just started; for tests."""
    for limiters in _limiters.values():
        limiters.clear()


def _last_line(error: BaseException) -> str:
    """The type of an exception and its text, which may be long, or fail."""
    import traceback

    lines = traceback.format_exception_only(error)
    # Notes come after it, the place of a syntax error before it.
    return lines[-1 if isinstance(error, SyntaxError) else 0].strip()[:MAX_ERROR]
