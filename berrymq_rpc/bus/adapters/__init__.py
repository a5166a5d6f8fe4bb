"""What sends messages of its own accord: at each interval of time, at each change of files.

What connects a bus with other processes is not here, but in the package ``exchange``.
"""

from .file_observer import FileObserver
from .interval import Interval

__all__ = ["FileObserver", "Interval"]
