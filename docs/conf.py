"""Sphinx's settings: built offline, with every warning an error."""

import builtins
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
# autodoc imports the package; this finds it where it is not installed as well.
sys.path.insert(0, str(ROOT))

_project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "berrymq_rpc"
author = "The berrymq_rpc authors"
copyright = f"2026, {author}"
release = _project["version"]
version = ".".join(release.split(".")[:2])

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

# A name in single backticks becomes a link where there is something to link to.
default_role = "py:obj"

autodoc_default_options = {"show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"

# An index of Python's own names would have to be fetched from the network. So what belongs to
# Python or to a dependency needs no target; a public name of this package without one is an error.
nitpicky = True
_elsewhere = sorted({*sys.stdlib_module_names, "aiozmq", "msgpack", "zmq"})
nitpick_ignore_regex = [
    ("py:obj", r".*"),
    (r"py:.*", rf"({'|'.join(_elsewhere)})(\..*)?"),
    (r"py:.*", rf"({'|'.join(name for name in dir(builtins) if not name.startswith('_'))})(\..*)?"),
    # Type variables and aliases in signatures, which have no page of their own.
    (r"py:class", r"berrymq_rpc\..*\.(Function|AnyCallable|Result|IncomingMessages)"),
    # Classes of inner modules, which users are given but do not make: the page has public names.
    (r"py:class", r"berrymq_rpc\.(bus|common|exchange|jsonrpc|monitor|rpc|testing)\.(\w+\.)+\w+"),
    (r"py:class", r"InboundCall|TracerProvider"),
    # What `rpc` has under its own name, and what users make by it.
    (r"py:class", r"berrymq_rpc\.security\.\w+(\.\w+)?"),
    # Written in signatures without their module.
    (r"py:class", r"(Any|Callable|Mapping|Sequence|Iterable|Iterator|Awaitable|Coroutine)"),
]

#: Pages that are read in the repository too name others by their files: links, in the manual.
_PAGE_NAME = re.compile(r"``docs/([\w/]+)\.rst``")


def _link_pages(app: Sphinx, *event: Any) -> None:
    text = event[-1]
    text[0] = _PAGE_NAME.sub(r":doc:`/\1`", text[0])


def setup(app: Sphinx) -> None:
    """Connect what this file adds to Sphinx."""
    app.connect("source-read", _link_pages)
    app.connect("include-read", _link_pages)


html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
