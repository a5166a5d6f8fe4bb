"""What watches files: the only module that imports watchfiles."""

import os
import threading

from ...runtime.extra import missing_package
from .file_changes import Change

__all__ = ["FileWatch", "check_installed"]

#: Milliseconds without a further change after which changes are reported; what runs is stopped
#: within that time.
STEP = 50

#: Milliseconds after which changes are reported though more are coming.
DEBOUNCE = 500

#: Milliseconds between two looks whether the folder is still the one that is watched.
LOOK = 500

#: Milliseconds between two looks at all files.
POLL = 300

#: How watchfiles numbers them.
_CHANGES = {1: Change.CREATED, 2: Change.MODIFIED, 3: Change.REMOVED}


def check_installed() -> None:
    """Do nothing if watchfiles is there.

    Raises:
        ModuleNotFoundError: it is not; the text has the command that installs it.
    """
    try:
        import watchfiles  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "watchfiles":
            raise
        raise missing_package("FileObserver needs watchfiles", "files", "watchfiles") from None


class FileWatch:
    """Watches one folder, from the moment it is made.

    Args:
        folder: its path.
        recursive: whether folders in it are watched as well.
        polling: whether to look at all files again and again.

    Attributes:
        folder: its path.
        identity: tells it from another folder at that path.

    Raises:
        OSError: it is not there, may not be read, or the system watches no more files.
    """

    def __init__(self, folder: str, recursive: bool, polling: bool) -> None:
        from watchfiles._rust_notify import RustNotify

        self.folder = folder
        self.identity = _identity(folder)
        # Watching would tell nothing of a folder that may not be read, and no error.
        with os.scandir(folder):
            pass
        # Not `watchfiles.watch`: that begins to watch when it is first waited for.
        self._watch = RustNotify([folder], False, polling, POLL, recursive, True)

    @property
    def is_current(self) -> bool:
        """Whether the folder that is watched is still at its path."""
        try:
            return _identity(self.folder) == self.identity
        except OSError:
            return False

    def changes(self, stop: threading.Event) -> set[tuple[Change, str]]:
        """Wait for changes, for half a second at most, and take them.

        Raises:
            RuntimeError: it cannot be watched any more.
        """
        found = self._watch.watch(DEBOUNCE, STEP, LOOK, stop)
        if isinstance(found, str):
            return set()
        return {(_CHANGES[number], path) for number, path in found}

    def close(self) -> None:
        """Watch no longer."""
        self._watch.close()


def _identity(folder: str) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino
