"""Every claim on the page about reliability is held by tests that exist.

A comment beneath each paragraph, item and row of ``docs/explanation/reliability.rst`` names them::

    It is noticed at once.

    .. held by: tests/faults/test_killed_server.py::test_killed_server
"""

import ast
import dataclasses
import functools
import inspect
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from berrymq_rpc import rpc

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "explanation" / "reliability.rst").read_text(encoding="utf-8")

HELD_BY = ".. held by:"
TEST = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")


class Claim(NamedTuple):
    """A paragraph, an item or a row, and the names of the tests beneath it."""

    text: str
    tests: tuple[tuple[str, str], ...]


def blocks() -> list[str]:
    """Split the page at blank lines; leave out titles, directives and heads of tables."""
    found = [inspect.cleandoc("\n" + block) for block in re.split(r"\n\s*\n", PAGE.strip("\n"))]
    kept = []
    for before, block in zip(["", *found], found, strict=False):
        is_title = re.fullmatch(r"[^\n]+\n([=-])\1+", block)
        is_directive = block.startswith("..") and not block.startswith(HELD_BY)
        is_head = before.startswith(".. list-table::")
        if not (is_title or is_directive or is_head):
            kept.append(block)
    return kept


def claims() -> list[Claim]:
    found: list[Claim] = []
    for block in blocks():
        if not block.startswith(HELD_BY):
            found.append(Claim(block, ()))
            continue
        names = [name for name in re.split(r"[\s,]+", block.removeprefix(HELD_BY)) if name]
        matches = [TEST.fullmatch(name) for name in names]
        assert None not in matches, f"not a test's name: {names}"
        tests = tuple((match[1], match[2]) for match in matches if match is not None)
        assert found, block
        assert not found[-1].tests, f"named twice: {found[-1].text}"
        found[-1] = found[-1]._replace(tests=tests)
    return found


CLAIMS = claims()


@functools.cache
def functions(path: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@functools.cache
def failing_marks(path: str) -> tuple[str, ...]:
    """The marks of that file for tests that are known to fail."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    names = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and "xfail" in ast.unparse(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    return ("xfail", *names)


def test_there_are_claims() -> None:
    assert len(CLAIMS) > 50


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text[:40])
def test_every_claim_names_tests(claim: Claim) -> None:
    assert claim.tests


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text[:40])
def test_the_tests_exist(claim: Claim) -> None:
    for path, name in claim.tests:
        assert (ROOT / path).is_file(), path
        test = functions(path).get(name)
        assert test is not None, f"{path} has no {name}"
        marks = " ".join(map(ast.unparse, test.decorator_list))
        for mark in failing_marks(path):
            assert mark not in marks, f"{path}::{name} is known to fail"


def test_the_defaults() -> None:
    """Every bound is on the page, with its number."""
    table = dict(re.findall(r"\* - ``(\w+)``\n\s+- ``([\w.,]+)``\n", PAGE))
    values = {name: None if text == "None" else text for name, text in table.items()}
    defaults = {
        field.name: getattr(rpc.Limits(), field.name) for field in dataclasses.fields(rpc.Limits)
    }
    client, server = inspect.signature(rpc.open_client), inspect.signature(rpc.start_server)
    defaults["timeout"] = client.parameters["timeout"].default
    defaults["connect_timeout"] = client.parameters["connect_timeout"].default
    defaults["grace"] = server.parameters["grace"].default
    assert set(values) == set(defaults)
    for name, text in values.items():
        assert (None if text is None else float(text.replace(",", ""))) == defaults[name], name
    # In the text as well.
    assert f"``connect_timeout`` ({defaults['connect_timeout']:g} s)" in PAGE
    assert f"with the default of {defaults['heartbeat']:g} s" in PAGE
