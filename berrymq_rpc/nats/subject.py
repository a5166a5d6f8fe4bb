"""Subjects of NATS: dots between tokens, and any text escaped into one token and back."""

import hashlib
import re

__all__ = [
    "ANY",
    "MAX_NAME",
    "MAX_TOKEN",
    "checked_name",
    "checked_prefix",
    "escape",
    "is_hashed",
    "unescape",
]

#: The token of a sender's ``*``: no receiver's wildcard, which a publish cannot have.
ANY = "%2A"

#: Characters of a name of a service, a namespace or a queue.
MAX_NAME = 64

#: Bytes of an escaped token. A longer one becomes a hash: a subject has 4,096 bytes at most.
MAX_TOKEN = 200

_HASHED = "%~"
_HASH_DIGITS = 32

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_PREFIX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_ESCAPED = re.compile(rb"[^A-Za-z0-9_-]")
_TOKEN = re.compile(r"(?:[A-Za-z0-9_-]|%[0-9A-F]{2})+")
_BYTE = re.compile(rb"%([0-9A-F]{2})")


def escape(part: str) -> str:
    """Make text one token: ``[A-Za-z0-9_-]`` stay, other bytes become ``%XX``.

    Different texts have different tokens. One of more than `MAX_TOKEN` bytes is a hash.

    Raises:
        ValueError: the text is empty.
    """
    if not part:
        raise ValueError("an empty text is no token of a subject")
    encoded = part.encode("utf-8", "surrogatepass")
    token = _ESCAPED.sub(lambda found: b"%%%02X" % found[0][0], encoded)
    if len(token) > MAX_TOKEN:
        return f"{_HASHED}{hashlib.sha256(encoded).hexdigest()[:_HASH_DIGITS]}"
    return token.decode("ascii")


def is_hashed(token: str) -> bool:
    """Whether a token is the hash of a long text, which cannot be read back."""
    return token.startswith(_HASHED)


def unescape(token: str) -> str:
    """The text of a token that `escape` made.

    Raises:
        ValueError: it is a hash, or no token of `escape`.
    """
    if not _TOKEN.fullmatch(token):
        raise ValueError(f"{token[:MAX_TOKEN]!r} is no escaped token")
    encoded = _BYTE.sub(lambda found: bytes((int(found[1], 16),)), token.encode("ascii"))
    try:
        part = encoded.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        part = ""
    if not part or escape(part) != token:
        raise ValueError(f"{token[:MAX_TOKEN]!r} is no escaped token")
    return part


def checked_name(name: object, what: str) -> str:
    """Return a name that NATS takes as a token, for services, namespaces and queues.

    Args:
        what: what it names, for the error.

    Raises:
        TypeError: it is not text.
        ValueError: it has other characters than ``A-Z a-z 0-9 _ -``, or not from 1 to 64.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of {what} is text, not {name!r}")
    if not (_NAME.fullmatch(name) and len(name) <= MAX_NAME):
        raise ValueError(
            f"the name of {what} has 1 to {MAX_NAME} of the characters A-Z a-z 0-9 _ -, "
            f"not {name[: 2 * MAX_NAME]!r}"
        )
    return name


def checked_prefix(prefix: object) -> str:
    """Return the prefix of inboxes: names with dots between them.

    Raises:
        TypeError: it is not text.
        ValueError: it is not such a prefix, or has more than 200 characters.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"inbox_prefix is text such as '_INBOX.alice', not {prefix!r}")
    if not (_PREFIX.fullmatch(prefix) and len(prefix) <= MAX_TOKEN):
        raise ValueError(f"inbox_prefix is text such as '_INBOX.alice', not {prefix[:99]!r}")
    return prefix
