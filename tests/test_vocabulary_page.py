"""``docs/explanation/vocabulary.rst`` names modules and classes that exist."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "explanation" / "vocabulary.rst").read_text(encoding="utf-8")

ROWS = re.findall(
    r"^   \* - (?P<word>\S.*)\n"
    r"     - (?P<meaning>\S.*\n(?:       \S.*\n)*)"
    r"     - (?P<where>\S.*\n(?:       \S.*\n)*)",
    TEXT,
    re.MULTILINE,
)
TERMS = {word: re.findall(r"``([\w.]+)``", where) for word, _, where in ROWS if word != "Word"}


def resolve(name: str) -> object:
    """Import the module that a name begins with, and find the rest in it."""
    parts = f"berrymq_rpc.{name}".split(".")
    for length in range(len(parts), 0, -1):
        path = ".".join(parts[:length])
        try:
            found: object = importlib.import_module(path)
        except ModuleNotFoundError as error:
            # Anything else that is missing is a dependency of the module.
            if error.name is None or not path.startswith(error.name):
                raise
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AssertionError(name)


def test_every_row_is_read() -> None:
    assert len(TERMS) == TEXT.count("   * - ") - TEXT.count("   * - Word\n")
    assert len(TERMS) > 50


@pytest.mark.parametrize("word", TERMS)
def test_term(word: str) -> None:
    assert TERMS[word]
    for name in TERMS[word]:
        try:
            resolve(name)
        except ModuleNotFoundError as error:
            if error.name != "aiohttp":
                raise
            pytest.skip("aiohttp is not installed")


#: They say "malformed", "forever" and ``MAX_``.
AVOIDED = re.compile(r"\b[Ii]ll-formed\b|\b[Mm]akes? no sense\b|\bfor ever\b|\bMAXIMUM_")


def texts() -> list[Path]:
    """The package's modules, and what users read."""
    pages = [*(ROOT / "docs").rglob("*.rst"), ROOT / "README.rst", ROOT / "CHANGES.rst"]
    return sorted([*(ROOT / "berrymq_rpc").rglob("*.py"), *pages])


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_plain_words(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [f"line {number}: {line}" for number, line in enumerate(lines, 1)]
    assert not [line for line in found if AVOIDED.search(line)]
