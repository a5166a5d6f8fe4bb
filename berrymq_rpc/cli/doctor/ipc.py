"""``ipc://``: the file of the socket, and who may use it."""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from .check import Check, failed, ok, warning
from .network import opened

__all__ = ["file_checks"]


async def file_checks(path: str, timeout: float) -> AsyncIterator[Check | str]:
    """Check the file of a socket; yield its path last, if a program answers there."""
    is_abstract = path.startswith("@")
    if not hasattr(asyncio, "open_unix_connection"):
        yield failed("file", f"{sys.platform} has no ipc://", "use tcp://")
        return
    if is_abstract:
        yield ok("file", f"{path} is a name of this host, without a file", path=path)
    else:
        check = _file(path)
        yield check
        if check.details.get("is_socket") is not True:
            return
    try:
        async with asyncio.timeout(timeout), opened(path):
            pass
    except ConnectionRefusedError:
        yield failed(
            "port",
            f"no server is listening on socket {path}",
            "start it"
            if is_abstract
            else "the file is left over from one that ended: start the "
            "server, which takes the file over",
        )
    except PermissionError:
        yield failed(
            "port",
            f"this user may not connect to {path}",
            "run this as the user of the server, or have it listen with another ipc_mode=",
        )
    except TimeoutError:
        yield failed("port", f"{path} does not accept connections", "is the server frozen?")
    except OSError as error:
        yield failed("port", f"{path}: {error.strerror or error}", "is the path right?")
    else:
        yield ok("port", f"a program is listening on {path}")
        yield path


def _file(path: str) -> Check:
    file = Path(path)
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        folder = file.parent
        advice = f"is the server running? A node is started there with: berrymq serve --bind ipc://{path}"
        if not folder.is_dir():
            advice = f"there is no folder {folder} either: is the path right?"
        return failed("file", f"there is no file {path}", advice, path=path)
    except PermissionError:
        advice = "run this as the user of the server, or put the file where both users may look"
        return failed("file", f"this user may not look at {path}", advice, path=path)
    except OSError as error:
        return failed("file", f"{path}: {error.strerror or error}", "is the path right?", path=path)
    mode = stat.S_IMODE(found.st_mode)
    details = {"path": path, "mode": f"{mode:04o}", "uid": found.st_uid}
    if not stat.S_ISSOCK(found.st_mode):
        advice = "is the path right? A server that is started there deletes the file"
        return failed(
            "file", f"{path} is a file, and no socket", advice, **details, is_socket=False
        )
    details |= {"is_socket": True}
    text = f"{path} is a socket (mode {mode:04o}, of user {found.st_uid})"
    if not os.access(path, os.W_OK):
        # Connecting says so in words.
        return ok("file", text, **details)
    if mode & 0o006:
        advice = "every user of this host may connect: is that meant (ipc_mode=)?"
        return warning("file", text, advice, **details)
    return ok("file", text, **details)
