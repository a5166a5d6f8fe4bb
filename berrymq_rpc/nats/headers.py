"""Headers of NATS messages: a status such as 503, and names with values."""

from collections.abc import Mapping

__all__ = ["NO_RESPONDERS", "pack_header", "pack_headers", "parse_headers", "status_of"]

#: Nobody subscribes to the subject of a message that had a reply subject.
NO_RESPONDERS = 503

_LINE = b"NATS/1.0"
_NO_STATUS = _LINE + b"\r\n"


def status_of(headers: bytes) -> int:
    """The status in the first line of headers, such as 503; 0 if there is none."""
    if not headers or headers.startswith(_NO_STATUS):
        return 0
    digits = headers[len(_LINE) : headers.find(b"\r\n")].split(maxsplit=1)
    return int(digits[0]) if digits and digits[0].isdigit() and len(digits[0]) <= 3 else 0


def parse_headers(headers: bytes) -> dict[str, str]:
    """The values of headers by their names, in lower case. What is no header is left out."""
    found = {}
    for line in headers.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            key = name.strip().decode("utf-8", "replace").lower()
            found[key] = value.strip().decode("utf-8", "replace")
    return found


def pack_header(name: str, value: str) -> bytes:
    """One header as it travels; as `pack_headers`."""
    if not value.isprintable():
        return pack_headers({name: value})
    return f"NATS/1.0\r\n{name}: {value}\r\n\r\n".encode("utf-8", "replace")


def pack_headers(values: Mapping[str, str]) -> bytes:
    """Headers as they travel. Line ends within a value become spaces."""
    lines = [_LINE.decode()]
    for name, value in values.items():
        text = value if value.isprintable() else " ".join(value.splitlines())
        lines.append(f"{name}: {text}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "replace")
