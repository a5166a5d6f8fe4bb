"""What runs in a process, as one plain value: `Monitor` looks at the parts, others show it.

The page of ``Bridge.serve_http(page=True)`` shows it. How it is shown is not in here, nor are the
counts themselves: each part of the package keeps its own.
"""

from .monitor import VERSION, Monitor

__all__ = ["VERSION", "Monitor"]
