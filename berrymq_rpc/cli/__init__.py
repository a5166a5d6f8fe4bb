"""The ``berrymq`` command: a node, messages and calls from a shell.

It needs the extra ``cli``. Nothing else in the package imports what lives here.
"""

from .entry import main

__all__ = ["main"]
