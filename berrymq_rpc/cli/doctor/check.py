"""What the doctor finds: checks, each with a status, words, and what to do."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["NAMES", "Check", "Status", "failed", "latency", "milliseconds", "ok", "warning"]

#: The names of all checks, in no order.
NAMES = (
    *("name", "address", "port", "file", "protocol", "tls", "keys", "token", "service"),
    *("version", "clock", "latency", "limits", "jetstream", "health"),
    *("python", "package", "aiozmq", "pyzmq", "msgpack", "curve", "extras", "files", "loop"),
)


class Status(enum.StrEnum):
    """What a check says."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Args:
        name: one of `NAMES`.
        status: how it ended.
        text: what was found.
        advice: what to do about it, if something is to be done.
        details: the same for programs.
    """

    name: str
    status: Status
    text: str
    advice: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_object(self) -> dict[str, Any]:
        """The check as JSON has it."""
        return {
            "check": self.name,
            "status": str(self.status),
            "message": self.text,
            "advice": self.advice,
            "details": dict(self.details),
        }


def ok(name: str, text: str, /, **details: Any) -> Check:
    """A check that found nothing wrong."""
    return Check(name, Status.OK, text, None, details)


def warning(name: str, text: str, advice: str | None = None, /, **details: Any) -> Check:
    """A check that found what may become a trouble."""
    return Check(name, Status.WARNING, text, advice, details)


def failed(name: str, text: str, advice: str, /, **details: Any) -> Check:
    """A check that found what is wrong."""
    return Check(name, Status.FAILED, text, advice, details)


def _percentile(seconds: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies; the highest for 1.0."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def milliseconds(seconds: float) -> str:
    """A time for a person: three digits."""
    return f"{seconds * 1000:.3g} ms"


#: Round trips above which a person notices each call.
SLOW = 0.25


def latency(seconds: Sequence[float], what: str) -> Check:
    """The check of round trips.

    Args:
        seconds: of each; at least one.
        what: what was sent, for the text.
    """
    half, most = _percentile(seconds, 0.5), max(seconds)
    text = f"{len(seconds)} {what}: p50 {milliseconds(half)}, max {milliseconds(most)}"
    details = {"count": len(seconds), "p50": round(half, 6), "max": round(most, 6)}
    if half > SLOW:
        advice = "a call takes at least that long: is the network slow, or the server busy?"
        return warning("latency", text, advice, **details)
    return ok("latency", text, **details)
