"""`FileObserver` sends messages about the changes of files."""

import os
import threading
from collections.abc import Iterable, Iterator
from itertools import islice

from ...identifier import Identifier
from ..bus import Bus
from ..log import logger
from .adapter import Adapter
from .file_changes import Change, files_below, in_order
from .file_watch import FileWatch, check_installed

__all__ = ["FileObserver"]

#: Changes that are sent of one moment: all files of a large project, and a second of work.
MAX_CHANGES = 10_000

#: Messages that are sent in one turn of an event loop.
SLICE = 100

#: Seconds between two attempts to watch what is not there, or cannot be watched.
RETRY = 0.25


class FileObserver(Adapter):
    """Sends ``name:created``, ``name:modified`` and ``name:removed``, with a path, as files change.

    What is watched is a file, or a folder with all that is in it. It need not be there: when it
    comes, or comes back after it was removed, that is sent, and what is in it by then as well. The
    folders in a folder are created and removed as files are, and never modified.

    Changes of some 50 milliseconds are sent together: a file that is written in several pieces is
    modified once, and a file that is created and written is created. Where a file is moved to the
    place of another in a folder, it is created.

    What is not permitted to be read, or cannot be watched, is logged, in `problem`, and tried again
    until it can. A folder that cannot be read within a folder is passed over.

    Made where an event loop runs, it sends on that loop, until it is closed or the loop ends.
    Otherwise it sends on a thread of its own, until it is closed or the program ends. It need not
    be kept in a variable. It is a context manager, with or without ``async``, that closes it.

    Args:
        path: of a file or folder. Messages have an absolute path below it, as text.
        name: the name of the messages, such as ``"files"`` or ``"files@plant"``.
        bus: the bus to send to; ``None`` for the default one.
        recursive: whether the folders in a folder are watched as well.
        polling: look at all files every 0.3 seconds instead of waiting for the system to report
            changes, as it does not for those that another host makes on a network drive.
        max_changes: how many changes of one moment are sent at most; those beyond are dropped,
            counted and logged.

    Attributes:
        path: what is watched, as absolute path.

    Raises:
        ValueError: `name` is not a name, or `max_changes` is less than 1.
        TypeError: `path` is not the path of a file, or `name` not text.
        ModuleNotFoundError: watchfiles is not installed; the text has the command for it.
    """

    def __init__(
        self,
        path: "str | os.PathLike[str]",
        name: Identifier | str,
        bus: Bus | None = None,
        *,
        recursive: bool = True,
        polling: bool = False,
        max_changes: int = MAX_CHANGES,
    ) -> None:
        text = os.fspath(path)
        if not isinstance(text, str):
            raise TypeError(f"a path is text, not {type(text).__name__}")
        if max_changes < 1:
            raise ValueError(f"max_changes must be a number of changes, not {max_changes}")
        check_installed()
        super().__init__(name, bus, "FileObserver('folder', 'files')")
        # A program may change its folder.
        self.path = os.path.abspath(text)
        self._recursive = recursive
        self._polling = polling
        self._max_changes = max_changes
        self._identifiers = {change: self._action(change.value) for change in Change}
        self._dropped = 0
        self._problem: OSError | None = None
        #: What was found by looking, and is sent; it may be reported next.
        self._already_sent: set[str] = set()
        # Here, so that all that changes after this line is seen.
        self._watch = self._open_watch()
        self._is_there = os.path.lexists(self.path)
        self._start_thread()

    @property
    def dropped(self) -> int:
        """How many changes were not sent, as there were more than `max_changes` in one moment."""
        return self._dropped

    @property
    def problem(self) -> OSError | None:
        """Why it cannot be watched now; ``None`` if it is watched, or is not there."""
        return self._problem

    # -- on the thread -------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self.closed:
                if self._watch is None:
                    self._stop.wait(RETRY)
                    self._watch = self._open_watch()
                    self._compare()
                else:
                    self._look(self._watch)
        finally:
            self._close_watch()

    def _open_watch(self) -> FileWatch | None:
        """Watch the folder, or the one that the file is in; ``None`` if neither can be watched."""
        folder = self.path if os.path.isdir(self.path) else os.path.dirname(self.path)
        try:
            watch = FileWatch(folder, self._recursive and folder == self.path, self._polling)
        except FileNotFoundError:
            self._problem = None
            return None
        except OSError as error:
            if self._problem is None:
                logger.warning("%s cannot be watched, and is tried again: %s", self.path, error)
            self._problem = error
            return None
        self._problem = None
        return watch

    def _close_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def _look(self, watch: FileWatch) -> None:
        """Wait for changes and send them; begin anew where another folder is to be watched."""
        try:
            changes = watch.changes(self._stop)
        except RuntimeError as error:
            logger.warning("%s cannot be watched any more: %s", self.path, error)
            changes = set()
            self._close_watch()
        if self._stop.is_set():
            return
        is_folder = watch.folder == self.path
        self._send_all(self._in_folder(changes) if is_folder else self._of_file(changes))
        if self._watch is None or not watch.is_current or is_folder != os.path.isdir(self.path):
            self._close_watch()
            self._watch = new = self._open_watch()
            self._compare(is_folder and (new is None or new.identity != watch.identity))

    def _compare(self, is_replaced: bool = False) -> None:
        """Send what has become of the path itself, and what is in a folder that is watched anew.

        Args:
            is_replaced: whether what is there now is not what was there.
        """
        was_there, self._is_there = self._is_there, os.path.lexists(self.path)
        changes: list[tuple[Change, str]] = []
        if was_there and (is_replaced or not self._is_there):
            changes.append((Change.REMOVED, self.path))
        if self._is_there and (is_replaced or not was_there):
            changes.append((Change.CREATED, self.path))
        self._send_all(changes)
        self._already_sent = set()
        if self._watch is not None and self._watch.folder == self.path:
            self._send_all(self._found_in(self.path))

    def _in_folder(self, changes: set[tuple[Change, str]]) -> Iterator[tuple[Change, str]]:
        """The changes of what is in the folder."""
        already, self._already_sent = self._already_sent, set()
        for change, path in in_order(changes):
            if path == self.path or (change is Change.CREATED and path in already):
                # What becomes of the folder itself is found by looking.
                continue
            if path in self._already_sent:
                continue
            yield change, path
            if change is Change.CREATED and self._recursive and _is_folder(path):
                # It is watched only now: what came into it until then was not reported.
                yield from self._found_in(path)

    def _found_in(self, folder: str) -> Iterator[tuple[Change, str]]:
        # One more than are sent, so that the others are known to be dropped.
        limit = max(0, self._max_changes + 1 - len(self._already_sent))
        for path in files_below(folder, self._recursive, limit):
            self._already_sent.add(path)
            yield Change.CREATED, path

    def _of_file(self, changes: set[tuple[Change, str]]) -> Iterator[tuple[Change, str]]:
        """The changes of a single file, among those of the folder that it is in."""
        for change, path in in_order(each for each in changes if each[1] == self.path):
            if change is Change.CREATED and self._is_there:
                # Another file was moved to its place.
                change = Change.MODIFIED
            self._is_there = change is not Change.REMOVED
            yield change, path

    # -- sending -------------------------------------------------------------------------------

    def _send_all(self, changes: Iterable[tuple[Change, str]]) -> None:
        """Send changes, up to the bound; wait until all are sent."""
        left = iter(changes)
        bounded = islice(left, self._max_changes)
        if self._loop is None:
            for change, path in bounded:
                if self._stop.is_set():
                    return
                self._send(self._identifiers[change], path)
        elif not self._send_on_loop(list(bounded)):
            return
        dropped = sum(1 for _ in left)
        if dropped:
            self._dropped += dropped
            logger.warning(
                "%s: more than %d changes came at once: %d were dropped so far",
                self.path,
                self._max_changes,
                self._dropped,
            )

    def _send_on_loop(self, changes: list[tuple[Change, str]]) -> bool:
        """Send changes on the event loop; return whether it has sent them."""
        if not changes:
            return True
        loop, done, left = self._loop, threading.Event(), iter(changes)
        assert loop is not None

        def send_some() -> None:
            some = list(islice(left, SLICE))
            if not some or self._stop.is_set() or not self._owner.is_this:
                done.set()
                return
            # Before sending: a receiver may raise what ends the loop, and the loop may run again.
            loop.call_soon(send_some)
            for change, path in some:
                if self._stop.is_set():
                    break
                self._send(self._identifiers[change], path)

        try:
            loop.call_soon_threadsafe(send_some)
        except RuntimeError:
            # The loop is closed.
            return False
        # The loop may be busy for long, or end before it comes to this.
        while not done.wait(RETRY):
            if self.closed:
                return False
        return not self._stop.is_set()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open" if self._problem is None else "cannot watch"
        return f"<FileObserver {self.path} {self.name} {state}>"


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
