"""Which public keys may come in, and as which user."""

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

from ..runtime.fork import call_in_child
from ..runtime.log import Log
from .key_pair import PUBLIC_SUFFIX, checked_key, read_public

__all__ = ["Authorization", "Authorized", "KeyFolder", "KeyFunction", "KeySet", "authorization_of"]

logger = Log("berrymq_rpc.security")

#: Nanoseconds for which a folder has to be unchanged before its times show each further change:
#: those of some file systems are that coarse.
SETTLED = 2_000_000_000

#: What a file or folder looked like.
Look: TypeAlias = tuple[int, ...]

#: What a check answers: whether the key may come in, or the name of its user.
Answer: TypeAlias = bool | str | None
#: What `CurveServer` takes: a folder of ``NAME.key`` files, public keys, or a function of the key.
Authorized: TypeAlias = (
    str | os.PathLike[str] | Iterable[str] | Callable[[str], Answer | Awaitable[Answer]]
)


class Authorization(ABC):
    """Answers whether a key may come in. Any thread may use it.

    One object is shared by all sockets of a `CurveServer`, so that a key that is revoked is refused
    at each of them.
    """

    #: Whether `check` runs what a user wrote, which may take any time.
    may_block = False

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._revoked: set[str] = set()
        self._listeners: list[Callable[[str], object]] = []
        call_in_child(self._forked)

    def _forked(self) -> None:
        """Begin anew in the child of a fork.

        A thread of the parent's may have had the lock, and those who listened are the parent's.
        """
        self._lock = threading.Lock()
        self._listeners = []

    def check(self, key: str) -> Answer | Awaitable[Answer]:
        """Whether a key may come in now, or the name of its user, or an awaitable of either.

        May raise what a user's function raises.
        """
        return False if key in self._revoked else self._check(key)

    @abstractmethod
    def _check(self, key: str) -> Answer | Awaitable[Answer]:
        """As `check`, for a key that is not revoked."""

    def user_of(self, key: str) -> str | None:
        """The user's name that goes with a key, as far as it is known without asking anybody."""
        return None

    def is_removed(self, key: str | None, user: str | None = None) -> bool:
        """Whether a key that came in before, as this user, must leave."""
        return key is None or key in self._revoked

    def revoke(self, key: str) -> None:
        """Refuse a key from now on, and cut its connections."""
        with self._lock:
            self._revoked.add(key)
        self._removed(key)

    def refresh(self) -> None:
        """Look for keys that were added or removed; called a few times a second."""

    def add_listener(self, listener: Callable[[str], object]) -> Callable[[], None]:
        """Have a function called, from any thread, with each key that is removed.

        Returns:
            A function that takes it out again.
        """
        with self._lock:
            self._listeners.append(listener)

        def remove() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return remove

    def _removed(self, key: str, user: str | None = None) -> None:
        """End the connections of a key, which has no user any more, or another one."""
        if user is None:
            logger.warning("key %s removed: its connections are cut", key)
        else:
            logger.warning("key %s is of %r now: its connections are cut", key, user)
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(key)


class KeySet(Authorization):
    """Lets in the given keys. They have no user's name."""

    def __init__(self, keys: Iterable[str]) -> None:
        super().__init__()
        self._keys = frozenset(checked_key(key, "authorized") for key in keys)

    def _check(self, key: str) -> Answer:
        return key in self._keys

    def __repr__(self) -> str:
        return f"{len(self._keys)} keys"


class KeyFunction(Authorization):
    """Lets in the keys that a function lets in."""

    may_block = True

    def __init__(self, function: Callable[[str], Answer | Awaitable[Answer]]) -> None:
        super().__init__()
        self._function = function

    def _check(self, key: str) -> Answer | Awaitable[Answer]:
        return self._function(key)

    def __repr__(self) -> str:
        return repr(self._function)


class KeyFolder(Authorization):
    """Lets in the keys whose ``NAME.key`` file lies in a folder, as the user ``NAME``.

    A folder that is missing or cannot be read authorizes no key. A key under several names is of
    the first of them.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        self._folder = Path(folder)
        #: By the file's name: what it looked like when it was read, and the key in it.
        self._files: dict[str, tuple[Look, str | None]] = {}
        self._users: dict[str, str] = {}
        #: What the folder looked like when it was read, if its next change will show.
        self._settled: Look | None = None
        self._problem: str | None = None
        self.refresh()

    def _check(self, key: str) -> Answer:
        # At once, and not when the folder is looked at next. The whole folder is read only where it
        # has changed: peers choose how often they ask.
        if not self._is_current(key):
            self.refresh()
        return self._users.get(key, False)

    def _is_current(self, key: str) -> bool:
        """Whether what was read last still says whether a key may come in.

        What the folder looks like shows only what is added or removed, so the key's own file is
        looked at as well.
        """
        with self._lock:
            settled, user = self._settled, self._users.get(key)
            known = None if user is None else self._files.get(f"{user}{PUBLIC_SUFFIX}")
        try:
            if settled is None or _folder_look(os.stat(self._folder)) != settled:
                return False
            if user is None:
                return True
            file = self._folder / f"{user}{PUBLIC_SUFFIX}"
            return known is not None and _look(os.stat(file)) == known[0]
        except OSError:
            return False

    def user_of(self, key: str) -> str | None:
        return self._users.get(key)

    def is_removed(self, key: str | None, user: str | None = None) -> bool:
        if key is None or super().is_removed(key):
            return True
        now = self._users.get(key)
        return now is None or (user is not None and user != now)

    def refresh(self) -> None:
        with self._lock:
            before = self._users
            self._files = self._read()
            users: dict[str, str] = {}
            for name in sorted(self._files):
                key = self._files[name][1]
                if key is not None:
                    users.setdefault(key, name.removesuffix(PUBLIC_SUFFIX))
            self._users = users
        for key, user in before.items():
            # What a connection may do goes with its user, which it keeps.
            if users.get(key) != user:
                self._removed(key, users.get(key))

    def _read(self) -> dict[str, tuple[Look, str | None]]:
        files: dict[str, tuple[Look, str | None]] = {}
        problem = None
        self._settled = None
        try:
            # Before the files, so that a change meanwhile shows.
            folder = os.stat(self._folder)
            if time.time_ns() - max(folder.st_mtime_ns, folder.st_ctime_ns) > SETTLED:
                self._settled = _folder_look(folder)
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if entry.name.endswith(PUBLIC_SUFFIX) and not entry.name.startswith("."):
                        found = self._read_file(entry)
                        if found is not None:
                            files[entry.name] = found
        except OSError as error:
            files = {}
            self._settled = None
            problem = str(error)
        if problem != self._problem:
            self._problem = problem
            if problem is not None:
                logger.error("no key is authorized: the folder cannot be read: %s", problem)
        return files

    def _read_file(self, entry: "os.DirEntry[str]") -> tuple[Look, str | None] | None:
        try:
            look = _look(entry.stat())
        except OSError:
            # Removed since the folder was listed.
            return None
        known = self._files.get(entry.name)
        if known is not None and known[0] == look:
            return known
        try:
            return look, read_public(entry.path)
        except (OSError, ValueError) as error:
            logger.error("%s authorizes no key: %s", entry.path, error)
            return look, None

    def __repr__(self) -> str:
        return str(self._folder)


def _look(status: os.stat_result) -> Look:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _folder_look(status: os.stat_result) -> Look:
    # Its mode matters too, and programs that copy folders set the time back.
    return *_look(status), status.st_ctime_ns


def authorization_of(authorized: Any) -> Authorization:
    """The authorization that a user gave: a folder, public keys, or a function of the key.

    Raises:
        TypeError, ValueError: it is none of them.
    """
    if isinstance(authorized, Authorization):
        return authorized
    if isinstance(authorized, str | os.PathLike):
        return KeyFolder(authorized)
    if callable(authorized):
        return KeyFunction(authorized)
    if isinstance(authorized, Iterable):
        return KeySet(authorized)
    raise TypeError(
        "authorized is the path of a folder with NAME.key files, a set of public keys, or a "
        f"function of the key, not {authorized!r}"
    )
