"""The statuses that berryMQ's functions answer with, in place of a token or a message."""

__all__ = ["INVALID_TOKEN", "OK", "TIMEOUT", "UNKNOWN_NUMBER"]

OK = "ok"

#: No connection has this token, or it is of a style that the function is not for.
INVALID_TOKEN = "invalid token"

#: The connection of this token was unused for longer than its ttl (answered once), or no message
#: came into its queue in time.
TIMEOUT = "timeout"

#: The message was acknowledged, or has gone back to its queue: too late.
UNKNOWN_NUMBER = "unknown number"
