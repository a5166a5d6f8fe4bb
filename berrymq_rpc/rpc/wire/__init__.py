"""Sans-I/O: values and records to bytes and back, dialects, and the state of a peer's calls.

Nothing here waits, sends, or asks for the time.
"""

__all__: list[str] = []
