"""Write log records without ever failing.

What a program installs as handlers and filters runs where this package logs: between the outcome
of a call and its delivery, between two receivers of a message, in threads that serve others. What
they raise must end none of that, so all that is logged here passes `SafeLog`.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["SafeLog"]

#: The levels of `logging`, which is imported at the first record: that takes as long as the import
#: of the bus.
DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40

#: Characters of a record, without its traceback.
MAX_CHARACTERS = 2000


class SafeLog:
    """A logger whose methods do not raise, whatever its handlers, filters and arguments do.

    Args:
        logger: the name of a logger, or one that the user gave.

    Attributes:
        failures: how many records could not be written.
    """

    __slots__ = ("_logger", "_name", "failures")

    def __init__(self, logger: "str | Logger") -> None:
        self._name = logger if isinstance(logger, str) else logger.name
        self._logger: Logger | None = None if isinstance(logger, str) else logger
        self.failures = 0

    @property
    def logger(self) -> "Logger":
        """What it writes to."""
        if self._logger is None:
            import logging

            self._logger = logging.getLogger(self._name)
        return self._logger

    def debug(self, text: str, *args: Any, exc_info: BaseException | None = None) -> None:
        """Log what helps to find a fault, at no bounded rate."""
        self.write(DEBUG, text, args, exc_info)

    def write(
        self,
        level: int,
        text: str,
        args: tuple[Any, ...],
        error: BaseException | None = None,
        *,
        frames: int = 1,
        kind: str | None = None,
        left_out: int = 0,
    ) -> None:
        """Write a record, with the fields `kind` and `left_out`.

        Ctrl-C while a handler runs is raised; nothing else is.

        Args:
            level: of `logging`.
            text: with ``%`` places for `args`.
            error: an exception whose traceback is shown.
            frames: how many are between this one and the place that logs.
            kind: the text that all records of the place have; ``None`` for `text`.
            left_out: how many of them were left out before this one.
        """
        if sys.is_finalizing():
            # A thread that was stopped with the interpreter may hold the lock of a handler.
            return
        try:
            if self.logger.isEnabledFor(level):
                fields = {"kind": kind or text, "left_out": left_out}
                message = text % args if args else text
                if len(message) > MAX_CHARACTERS:
                    text, args = "%s...", (message[:MAX_CHARACTERS],)
                self.logger.log(
                    level, text, *args, exc_info=error, stacklevel=frames + 2, extra=fields
                )
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            self.failures += 1
            self._show(problem)

    def _show(self, problem: BaseException) -> None:
        """Show on standard error what the first failure was, as `logging.Handler.handleError`."""
        if self.failures != 1:
            return
        try:
            import traceback

            lines = traceback.format_exception(problem)
            sys.stderr.write(f"--- Logging error ---\n{''.join(lines)}")
        except Exception:
            # There is no standard error, as in a service, or the interpreter is at its end.
            return

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"
