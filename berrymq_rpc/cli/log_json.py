"""``--log-json``: what the command writes to standard error, as one JSON object a line."""

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

import click

__all__ = ["FIELDS", "LOGGER", "LogSettings", "RecordHandler", "log_json", "note_text", "settings"]

#: The logger of what the command itself writes.
LOGGER = "berrymq_rpc.cli"

#: Characters of the traceback of one record. Its end says what happened, so that is kept.
MAX_TRACEBACK = 20_000

#: The fields that a record may have, in their order; `docs/reference/logs.rst` explains them.
FIELDS = (
    *("time", "level", "logger", "message", "kind", "left_out", "exception"),
    *("module", "line", "thread", "process"),
)

#: What `logging` sets on each record; others were given by `extra=`.
_OF_LOGGING = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "kind"}


@dataclass
class LogSettings:
    """How a run of the command logs: the object of its `click.Context`."""

    as_json: bool = False


def settings(context: click.Context | None = None) -> LogSettings:
    """Return the settings of this run."""
    context = context or click.get_current_context(silent=True)
    found = None if context is None else context.find_object(LogSettings)
    return found or LogSettings()


def log_json(command: click.Command) -> click.Command:
    """Give a command the option, unless it has it."""
    if all(parameter.name != "log_json" for parameter in command.params):
        command.params.append(
            click.Option(
                ["--log-json"],
                is_flag=True,
                expose_value=False,
                callback=_chosen,
                help="Write the log to standard error as one JSON object a line.",
            )
        )
    return command


def _chosen(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(LogSettings).as_json = True


def record_text(record: logging.LogRecord) -> str:
    """Return a record as one line of JSON, in ASCII alone."""
    entry: dict[str, Any] = {
        "time": _time(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
        "kind": getattr(record, "kind", None) or str(record.msg),
    }
    for name, value in vars(record).items():
        # Most records follow none that were left out.
        if name not in _OF_LOGGING and not (name == "left_out" and not value):
            entry[name] = value
    exception = _exception(record)
    if exception is not None:
        entry["exception"] = exception
    entry |= {
        "module": record.module,
        "line": record.lineno,
        "thread": record.threadName,
        "process": record.process,
    }
    return json.dumps(entry, default=_shown)


def note_text(text: str, level: str = "info", **fields: Any) -> str:
    """Return what the command itself says as one line of JSON; `fields` say it for programs."""
    now = datetime.now().timestamp()
    entry = {"time": _time(now), "level": level, "logger": LOGGER, "message": text}
    return json.dumps(entry | fields, default=_shown)


def _time(seconds: float) -> str:
    """In RFC 3339, with milliseconds and the offset of this host."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")


def _exception(record: logging.LogRecord) -> str | None:
    if not record.exc_info:
        return record.exc_text
    text = logging.Formatter().formatException(record.exc_info)
    return text if len(text) <= MAX_TRACEBACK else f"...{text[-MAX_TRACEBACK:]}"


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


class RecordHandler(logging.Handler):
    """Writes warnings and errors of the whole process as lines of JSON.

    Args:
        write: writes a line.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(record_text(record))
        except Exception:
            self.handleError(record)

    def install(self) -> None:
        """Write all that is logged from now on, warnings of Python and what ends the command."""
        logging.getLogger().addHandler(self)
        logging.captureWarnings(True)
        sys.excepthook = _failed


def _failed(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    logging.getLogger(LOGGER).critical("the command failed", exc_info=(kind, error, traceback))
