"""What the tests of the pages for those who come from another library share."""

import re
from pathlib import Path

PAGES = Path(__file__).resolve().parents[2] / "docs" / "migrate"


def rows(page: str) -> set[str]:
    """What stands in the first column of a page's table of names."""
    table = (PAGES / page).read_text(encoding="utf-8").partition(".. list-table:: ")[2]
    table = re.split(r"\n\n(?=\S)", table.partition("\n\n")[2])[0]
    _, *found = re.split(r"\n? +\* - ", table)
    return {" ".join(re.split(r"\n +- ", row)[0].split()) for row in found[1:]}
