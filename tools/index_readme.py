"""The page of the package on an index: ``README.rst`` where there are no files to link to.

hatchling asks this for the description, as `pyproject.toml` says. In the repository the README
links to pages by their files, and shows a picture; on the page of an index both would lead nowhere.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"`([^`<]+?)\s+<(?!\w+://)([^`>]+)>`_")
_PICTURE = re.compile(r"^\.\. image:: (?!\w+://).*\n   :alt: ((?:.+\n)(?: {9}.+\n)*)", re.MULTILINE)


def description(readme: str) -> str:
    """The text for an index: names of files in place of links to them, words for a picture."""
    text = _PICTURE.sub(lambda match: re.sub(r"\n {9}", "\n", match[1]), readme)
    return _LINK.sub(_named, text)


def _named(link: re.Match[str]) -> str:
    # A link may break anywhere between words, and one whose text is the file needs it once.
    text, file = " ".join(link[1].split()), link[2]
    return f"``{file}``" if text == file else f"{text} (``{file}``)"


class IndexReadme(MetadataHookInterface):
    """What hatchling calls."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the description to the metadata of the project."""
        readme = (Path(self.root) / "README.rst").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/x-rst", "text": description(readme)}
