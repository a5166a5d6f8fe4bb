import copy
import inspect
import pickle
import re
from typing import Any

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


# -- what an error says of a call ------------------------------------------------------------


def filled(cls: type[errors.Error]) -> errors.Error:
    error = cls("a reason")
    error.method = "ns.add"
    error.endpoint = "tcp://127.0.0.1:5555"
    error.sent = True
    error.elapsed = 1.5
    return error


@pytest.mark.parametrize("cls", CLASSES)
def test_fields_of_an_error_without_a_call(cls: type[errors.Error]) -> None:
    error = cls("a reason")
    fields = (error.method, error.endpoint, error.sent, error.elapsed, error.progress)
    assert fields == (None,) * 5
    assert str(error) == "a reason"


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not GenericError])
def test_text_is_made_of_the_fields(cls: type[errors.Error]) -> None:
    error = filled(cls)
    assert str(error) == "a reason"
    assert repr(error) == f"{cls.__name__}('a reason')"
    error.progress = "was not sent"
    text = "tcp://127.0.0.1:5555: a reason: 'ns.add' was not sent"
    assert str(error) == text
    assert repr(error) == f"{cls.__name__}({text!r})"
    error.endpoint = None
    assert str(error) == "a reason: 'ns.add' was not sent"
    assert error.args == ("a reason",)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_fields_survive_a_copy(cls: type[errors.Error], again: Any) -> None:
    error = filled(cls)
    error.progress = "was not sent"
    other = again(error)
    assert type(other) is cls
    assert vars(other) == vars(error)
    assert (other.args, str(other)) == (error.args, str(error))
