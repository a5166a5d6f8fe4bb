import inspect
import re

import pytest

from berrymq_rpc import errors
from berrymq_rpc.errors import GenericError

CLASSES = [getattr(errors, name) for name in errors.__all__]


def test_tree_at_the_head_of_the_module_is_the_real_one() -> None:
    drawn = {
        match[1]: (len(match[0]) - len(match[1]), match[2] or None)
        for match in re.finditer(r"^[ │]*[├└]── (\w+)(?: +\((\w+)\))?", errors.__doc__ or "", re.M)
    }
    assert set(drawn) == set(errors.__all__)
    for name, (_, builtin) in drawn.items():
        builtins = [
            base.__name__
            for base in getattr(errors, name).__bases__
            if base.__module__ == "builtins" and base is not Exception
        ]
        assert builtins == ([builtin] if builtin else [])


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_caught_as_error(cls: type[Exception]) -> None:
    assert issubclass(cls, errors.Error)
    assert inspect.getdoc(cls)


def test_generic_error_has_fields() -> None:
    error = GenericError("package.Class", (1, "two"), "Class(1, 'two')")
    assert error.exc_type == "package.Class"
    assert error.arguments == (1, "two")
    assert error.exc_repr == "Class(1, 'two')"
    assert error.args == ("package.Class", (1, "two"), "Class(1, 'two')")
    assert str(error) == "package.Class: Class(1, 'two')"
    assert repr(error) == "<GenericError package.Class: Class(1, 'two')>"


def test_generic_error_without_a_text_is_its_class() -> None:
    assert str(GenericError("package.Class")) == "package.Class"


def test_generic_error_shows_no_argument_that_has_no_repr() -> None:
    huge = 10**5000
    assert "package.Class" in repr(GenericError("package.Class", (huge,), "Class(...)"))
