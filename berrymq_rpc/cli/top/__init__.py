"""``berrymq top``: what runs, in a terminal: the state of the live page of a bridge or node.

`command` is the command. `source` asks for the state, `state` checks what came, `view` makes the
lines of it (no I/O in these two), `keyboard` reads keys, and `screen` shows the lines until the
user leaves.

Nothing else imports from here.
"""

__all__: list[str] = []
