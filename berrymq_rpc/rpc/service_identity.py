"""What a service says of itself to NATS's discovery: its version and a description."""

import inspect
import re
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["ServiceIdentity"]

#: A semantic version, which other clients expect; this one of a service that says none.
_SEMANTIC = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
NO_VERSION = "0.0.0"

#: Characters of a version and of a description.
MAX_VERSION = 100
MAX_DESCRIPTION = 500

_PACKAGE = __name__.partition(".")[0]


class ServiceIdentity(NamedTuple):
    """The identity of a service. Made by `of`.

    Args:
        version: a semantic version.
        description: one paragraph.
    """

    version: str = NO_VERSION
    description: str = _PACKAGE

    @classmethod
    def of(cls, handler: Any) -> "ServiceIdentity":
        """That of what a handler serves.

        Its version is the ``__version__`` of the handler or of its class, else that of the module
        with its class or of the package with that module. The description is the first paragraph
        of the docstring of its class. A handler of no class of its own, such as a `dict`, has
        neither.
        """
        kind = type(handler)
        module = kind.__module__
        package = module.partition(".")[0]
        is_own = package not in (_PACKAGE, *sys.stdlib_module_names) or module == "__main__"
        owners = [] if isinstance(handler, Mapping) else [handler]
        if is_own:
            owners += [sys.modules.get(module), sys.modules.get(package)]
        versions = (_version_of(owner) for owner in owners)
        version = next((text for text in versions if text is not None), NO_VERSION)
        text = inspect.cleandoc(kind.__doc__ or "") if is_own else ""
        description = " ".join(text.partition("\n\n")[0].split())
        return cls(version, description[:MAX_DESCRIPTION] or _PACKAGE)


def _version_of(owner: Any) -> str | None:
    """The ``__version__`` of an object or a module, if it is a semantic version."""
    try:
        version = getattr(owner, "__version__", None)
    except Exception:
        # An attribute of the program's own that fails.
        return None
    if isinstance(version, str) and len(version) <= MAX_VERSION and _SEMANTIC.fullmatch(version):
        return version
    return None
