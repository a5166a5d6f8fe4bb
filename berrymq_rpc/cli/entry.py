"""Start the command, and end the process with its exit status or signal."""

import os
import signal
import sys
from itertools import takewhile
from typing import TYPE_CHECKING, NoReturn

from ..runtime.extra import missing_package
from .values import json_text

if TYPE_CHECKING:
    import click

    from .log_json import LogSettings

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command by `sys.argv`, and end the process."""
    try:
        status = _run()
    except KeyboardInterrupt:
        _end_by(signal.SIGINT)
    sys.exit(status)


def _run() -> int:
    try:
        import click
        import rich  # noqa: F401  (better to fail now than when the first line is written)
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        what = f"The berrymq command needs {error.name}"
        advice = str(missing_package(what, "cli", error.name))
        if _wants_json():
            advice = json_text({"error": "failed", "message": advice, "exit_code": 1})
        print(advice, file=sys.stderr)
        return 1

    from .command import berrymq
    from .failure import Failed, OutputClosed
    from .log_json import LogSettings

    settings = LogSettings()

    try:
        berrymq.main(prog_name=_program(), standalone_mode=False, obj=settings)
    except click.ClickException as error:
        return _failed(error, settings)
    except click.Abort:
        # Raised by click on Ctrl-C.
        _end_by(signal.SIGINT)
    except OutputClosed:
        _end_by(signal.SIGPIPE)
    except ModuleNotFoundError as error:
        if error.name not in ("nats", "nkeys", "zeroconf"):
            raise
        # Any command takes an address of NATS or of the local network.
        return _failed(Failed(str(error)), settings)
    return 0


def _failed(error: "click.ClickException", settings: "LogSettings") -> int:
    """Write an error to standard error; return the exit status."""
    from .failure import error_object
    from .log_json import note_text

    entry = error_object(error)
    # A wrong command line is for the person who wrote it, unless JSON was asked for.
    if settings.as_json and (_wants_json() or entry["error"] != "usage"):
        print(note_text(entry.pop("message"), "error", **entry), file=sys.stderr)
    elif _wants_json():
        print(json_text(entry), file=sys.stderr)
    else:
        error.show()
    return error.exit_code


def _wants_json() -> bool:
    """Whether ``--json`` was given, on a command line that may be wrong otherwise."""
    return "--json" in takewhile(lambda argument: argument != "--", sys.argv[1:])


def _program() -> str:
    """Return what the user typed to start the command."""
    name = os.path.basename(sys.argv[0])
    return "python -m berrymq_rpc" if name == "__main__.py" else name


def _end_by(number: signal.Signals) -> NoReturn:
    """End as a program does that has no handler for the signal.

    The shell then shows 128 plus the signal's number and stops a loop that runs the command; after
    an ordinary exit it would continue with the next turn.
    """
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    # Reached only when the signal is blocked.
    os._exit(128 + number)
