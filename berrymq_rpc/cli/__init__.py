"""The ``berrymq`` command: a node, messages and calls from a shell. It needs the extra ``cli``.

Each command has a module of its own; `command` is their group, `entry` starts it. Shared by several
commands: `arguments` (the command line), `output` (standard output and error, the log), `values`
(values as text), `failure` (exit codes, error messages), `listeners` (of ``serve`` and ``bridge``).
Nothing else in the package imports from here.
"""

from .entry import main

__all__ = ["main"]
