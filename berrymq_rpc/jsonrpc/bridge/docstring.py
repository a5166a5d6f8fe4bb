"""What a docstring says of each parameter: in the styles of Google, NumPy and Sphinx."""

import re

__all__ = ["parameter_descriptions"]

_HEADERS = frozenset(("args:", "arguments:", "parameters:", "keyword args:", "other parameters"))
_UNDERLINED = frozenset(("parameters", "other parameters"))

#: ``name:``, ``name (type):`` and ``one, other:``; and the same without what follows the names.
_NAMES = r"\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*"
_GOOGLE = re.compile(rf"({_NAMES})\s*(?:\([^()]*(?:\([^()]*\)[^()]*)*\))?\s*:(?:\s+|$)(.*)")
_NUMPY = re.compile(rf"({_NAMES})\s*(?::.*)?$")
_SPHINX = re.compile(
    r":(?:param|parameter|arg|argument|key|keyword)\s+(?:[^:]*\s)?(\*{0,2}\w+):\s*(.*)"
)


def parameter_descriptions(doc: str) -> dict[str, str]:
    """Return the descriptions by the names of the parameters. Never raises.

    Args:
        doc: the docstring, its indentation taken away.
    """
    lines = doc.expandtabs().splitlines()
    found: dict[str, list[str]] = {}
    position = 0
    while position < len(lines):
        line = lines[position].strip()
        below = lines[position + 1].strip() if position + 1 < len(lines) else ""
        if line.lower() in _UNDERLINED and len(below) >= 3 and not below.strip("-"):
            position = _section(lines, position + 2, _NUMPY, found)
        elif line.lower() in _HEADERS:
            position = _section(lines, position + 1, _GOOGLE, found)
        elif match := _SPHINX.match(line):
            texts = [match[2]]
            indent = _indent(lines[position])
            position += 1
            while position < len(lines) and _indent(lines[position]) > indent:
                texts.append(lines[position])
                position += 1
            found.setdefault(match[1].lstrip("*"), texts)
        else:
            position += 1
    joined = {name: " ".join(" ".join(texts).split()) for name, texts in found.items()}
    return {name: text for name, text in joined.items() if text}


def _section(
    lines: list[str], position: int, entry: re.Pattern[str], found: dict[str, list[str]]
) -> int:
    """Read the entries of a section, and return the position after it."""
    header = _indent(lines[position - 1])
    indent: int | None = None
    texts: list[str] = []
    while position < len(lines):
        line = lines[position]
        if line.strip():
            here = _indent(line)
            if entry is _GOOGLE and here <= header:
                break
            if entry is _NUMPY and (here < header or _is_underlined(lines, position)):
                break
            indent = here if indent is None else indent
            match = entry.match(line.strip()) if here <= indent else None
            if match is not None:
                texts = [match[2]] if entry is _GOOGLE else []
                for name in match[1].split(","):
                    found.setdefault(name.strip().lstrip("*"), texts)
            elif here > indent:
                texts.append(line)
            else:
                break
        position += 1
    return position


def _is_underlined(lines: list[str], position: int) -> bool:
    below = lines[position + 1].strip() if position + 1 < len(lines) else ""
    return len(below) >= 3 and not below.strip("-=")


def _indent(line: str) -> int:
    # An empty line belongs to what is around it.
    return len(line) - len(line.lstrip()) if line.strip() else 1 << 30
