"""What to install where a package of an extra is missing."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

__all__ = ["install_command", "missing_package"]

DISTRIBUTION = "berrymq-rpc"

#: Where this package is imported from: a clone, or ``site-packages``.
_ROOT = Path(__file__).resolve().parents[2]


def missing_package(what: str, extra: str, module: str) -> ModuleNotFoundError:
    """The error for a package of an extra that is not installed.

    Args:
        what: needs which package: ``"NATS needs nats-py"``.
        extra: the extra that brings it.
        module: the name by which it is imported.
    """
    return ModuleNotFoundError(
        f'{what}, which is not installed. It comes with the extra "{extra}": '
        f"{install_command(extra)}",
        name=module,
    )


def install_command(extra: str) -> str:
    """The command that adds an extra to this installation, from where it was installed.

    ``pip install "berrymq-rpc[nats]"`` would bring the release of an index in place of a clone, or
    find none.
    """
    if _is_clone(_ROOT):
        # An editable installation, or a clone that is run without one.
        return f"pip install -e {_quoted(f'{_ROOT}[{extra}]')}"
    return f"pip install {_quoted(_requirement(_origin(), extra))}"


def _is_clone(folder: Path) -> bool:
    # `site-packages` may have the file of a package that was packed without care.
    try:
        text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return f'name = "{DISTRIBUTION}"' in text


def _origin() -> Any:
    """The contents of ``direct_url.json``; ``None`` for what an index had."""
    # Imported here, as these take some time and are needed by those who lack something only.
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        text = distribution(DISTRIBUTION).read_text("direct_url.json")
        return json.loads(text) if text else None
    except (PackageNotFoundError, OSError, ValueError):
        # The advice is part of an error message: what cannot be read must not hide that one.
        return None


def _requirement(origin: Any, extra: str) -> str:
    """What pip is to install: a folder, or the distribution and perhaps where it is."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    of_index = f"{DISTRIBUTION}[{extra}]"
    url = origin.get("url") if isinstance(origin, dict) else None
    if not isinstance(url, str):
        return of_index
    parts = urlsplit(url)
    if parts.scheme == "file":
        path = Path(url2pathname(parts.path))
        if not path.exists():
            # A wheel that has been deleted since.
            return of_index
        if "dir_info" in origin:
            return f"{path}[{extra}]"
    version_control = origin.get("vcs_info")
    if isinstance(version_control, dict):
        revision = version_control.get("requested_revision")
        url = f"{version_control.get('vcs')}+{url}" + (f"@{revision}" if revision else "")
    return f"{of_index} @ {url}"


def _quoted(text: str) -> str:
    """For a shell: in double quotes, which that of Windows knows too, if nothing forbids it."""
    if os.name == "posix" and set(text) & set('"$`\\!'):
        return shlex.quote(text)
    return f'"{text}"'
