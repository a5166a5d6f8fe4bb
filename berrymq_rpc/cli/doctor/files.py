"""The files of this side's key and of the server's."""

import os
import stat
from pathlib import Path

from ...security import CurveClient, KeyPair
from ...security.key_pair import PUBLIC_SUFFIX, SECRET_SUFFIX, public_key
from .check import Check, failed, ok, warning

__all__ = ["key_checks"]


def key_checks(key: str | None, server_key: str | None) -> tuple[list[Check], CurveClient | None]:
    """Check the files of keys.

    Args:
        key: that of this side's secret.
        server_key: the public key of the server, or its file.

    Returns:
        The checks, and what to connect with: ``None`` if no keys are given, or one is wrong.
    """
    if key is None and server_key is None:
        return [], None
    checks: list[Check] = []
    pair = None
    if key is not None:
        check, pair = _secret(key)
        checks.append(check)
        folder = _writable_folder(key)
        if folder is not None:
            checks.append(folder)
    if server_key is None:
        advice = "give --server-key: the public key of the server, or its file NAME.key"
        checks.append(failed("files", "which key the server has is not given", advice))
        return checks, None
    try:
        server = public_key(server_key)
    except (OSError, ValueError) as error:
        advice = "ask whoever runs the server for its file NAME.key"
        checks.append(failed("files", f"--server-key: {error}", advice))
        return checks, None
    checks.append(_public(server_key, server))
    if key is not None and pair is None:
        return checks, None
    if pair is not None and pair.public == server:
        advice = f"--server-key is the key of the server, not this side's own {PUBLIC_SUFFIX} file"
        checks.append(warning("files", "both keys are the same", advice))
    return checks, CurveClient(pair, server=server)


def _secret(key: str) -> tuple[Check, KeyPair | None]:
    details: dict[str, str] = {"file": key}
    path = Path(key)
    if path.suffix == PUBLIC_SUFFIX:
        path = path.with_suffix(SECRET_SUFFIX)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        details["mode"] = f"{mode:04o}"
        pair = KeyPair.load(key)
    except PermissionError as error:
        text = str(error) if error.errno is None else f"{key} cannot be read: {error.strerror}"
        advice = f"chmod 600 {path}" if error.errno is None else "run this as the owner of the key"
        return failed("files", text.partition(": run ")[0], advice, **details), None
    except (OSError, ValueError) as error:
        return failed(
            "files", f"--key: {error}", "berrymq keygen NAME makes a pair", **details
        ), None
    text = f"{path} is the secret key of {pair.public} (mode {mode:04o})"
    return ok("files", text, **details, public=pair.public), pair


def _public(server_key: str, server: str) -> Check:
    path = Path(server_key)
    if len(server_key) == len(server) and not path.exists():
        return ok("files", f"the server's key is {server}", public=server)
    if path.suffix == SECRET_SUFFIX:
        advice = (
            f"clients need {path.with_suffix(PUBLIC_SUFFIX)} alone: keep the secret at the server"
        )
        return warning("files", f"{path} has the secret of the server", advice, file=server_key)
    return ok("files", f"the server's key is {server} ({path})", file=server_key, public=server)


def _writable_folder(key: str) -> Check | None:
    folder = Path(key).resolve().parent
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError:
        # The file cannot be read either, which is told.
        return None
    if os.name != "posix" or not mode & 0o022 or mode & stat.S_ISVTX:
        return None
    text = f"others may write into {folder} (mode {mode:04o}), and replace the key there"
    return warning("files", text, f"chmod go-w {folder}")
