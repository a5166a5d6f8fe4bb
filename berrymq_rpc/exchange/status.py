"""What berryMQ's functions answer when they do not answer with a token or a message."""

__all__ = ["INVALID_TOKEN", "OK", "TIMEOUT"]

OK = "ok"

#: No connection has this token, or none of a style that the function is for.
INVALID_TOKEN = "invalid token"

#: The connection of this token was unused for longer than its ttl (told once), or nothing came
#: into its queue in time.
TIMEOUT = "timeout"
