"""Start the command, and end the process with its exit status or signal."""

import os
import signal
import sys
from typing import NoReturn

from ..runtime.extra import missing_package

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
        advice = missing_package(f"The berrymq command needs {error.name}", "cli", error.name)
        print(advice, file=sys.stderr)
        return 1

    from .command import berrymq
    from .failure import OutputClosed
    from .log_json import LogSettings, note_text

    settings = LogSettings()

    def fail(text: str) -> None:
        print(note_text(text, "error") if settings.as_json else f"Error: {text}", file=sys.stderr)

    try:
        berrymq.main(prog_name=_program(), standalone_mode=False, obj=settings)
    except click.ClickException as error:
        # A wrong command line is for the person who wrote it.
        if settings.as_json and not isinstance(error, click.UsageError):
            fail(error.format_message())
        else:
            error.show()
        return error.exit_code
    except click.Abort:
        # Raised by click on Ctrl-C.
        _end_by(signal.SIGINT)
    except OutputClosed:
        _end_by(signal.SIGPIPE)
    except ModuleNotFoundError as error:
        if error.name not in ("nats", "nkeys"):
            raise
        # Any command takes an address of NATS.
        fail(str(error))
        return 1
    return 0


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
