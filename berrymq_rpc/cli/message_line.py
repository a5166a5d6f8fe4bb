"""One message as a line: for people, and as JSON."""

from datetime import datetime
from typing import Any

from ..bus import Message
from .output import VALUE, Output, Part
from .values import python_text

__all__ = ["write_message"]


def write_message(output: Output, message: Message, *, as_json: bool) -> None:
    """Write one message.

    Args:
        output: where.
        message: from a bus, or from another node's queue.
        as_json: write one JSON text: an object with ``time``, ``id``, ``args`` and ``kwargs``, and
            ``redelivered`` if it may have come before.
    """
    now = datetime.now().astimezone()
    redelivered = bool(getattr(message, "redelivered", False))
    if as_json:
        found: dict[str, Any] = {
            "time": now.isoformat(timespec="milliseconds"),
            "id": message.id,
            "args": message.args,
            "kwargs": message.kwargs,
        }
        if redelivered:
            found["redelivered"] = True
        output.json(found)
        return
    output.line(
        (f"{now:%H:%M:%S}", "dim"),
        "  ",
        *_identifier(message),
        *(part for value in message.args for part in ("  ", (python_text(value), VALUE))),
        *(
            part
            for name, value in message.kwargs.items()
            for part in ("  ", (f"{name}=", "yellow"), (python_text(value), VALUE))
        ),
        *(("  ", ("(came before, perhaps)", "red")) if redelivered else ()),
    )


def _identifier(message: Message) -> list[Part]:
    head, _, action = message.id.rpartition(":")
    return [(head, "bold cyan"), (":", "dim"), (action, "bold green")]
