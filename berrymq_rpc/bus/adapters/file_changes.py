"""What changed in a folder, as the system reports it, in the order in which it is to be sent."""

import os
from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import islice

__all__ = ["Change", "files_below", "in_order"]


class Change(Enum):
    """What became of a file or folder; the value is the action of the message."""

    CREATED = "created"
    MODIFIED = "modified"
    REMOVED = "removed"


def in_order(reports: Iterable[tuple[Change, str]]) -> Iterator[tuple[Change, str]]:
    """The changes of each path, in an order that leads to what is there now.

    Reports that were gathered for a moment have no order. What is created is not modified as well,
    nor is what is removed, or a folder.

    Args:
        reports: changes and paths.
    """
    by_path: dict[str, set[Change]] = {}
    for change, path in reports:
        by_path.setdefault(path, set()).add(change)
    # A folder before what is in it.
    for path in sorted(by_path):
        changes = by_path[path]
        exists = os.path.lexists(path)
        if Change.REMOVED in changes:
            if Change.CREATED not in changes:
                yield Change.REMOVED, path
            elif exists:
                # Another file has taken its place.
                yield Change.REMOVED, path
                yield Change.CREATED, path
            else:
                yield Change.CREATED, path
                yield Change.REMOVED, path
        elif Change.CREATED in changes:
            yield Change.CREATED, path
        elif exists and not os.path.isdir(path):
            # If it does not exist any more, that is reported next.
            yield Change.MODIFIED, path


def files_below(folder: str, recursive: bool, limit: int) -> list[str]:
    """The paths in a folder, each folder before what is in it, and `limit` of them at most.

    What cannot be read is left out.
    """
    return list(islice(_walk(folder, recursive), limit))


def _walk(folder: str, recursive: bool) -> Iterator[str]:
    # What goes away meanwhile, or may not be read, is not among them: `os.walk` passes over it.
    for root, folders, files in os.walk(folder):
        yield from (os.path.join(root, name) for name in sorted(folders))
        yield from (os.path.join(root, name) for name in sorted(files))
        if not recursive:
            return
        folders.sort()
