"""What a server says that it offers, checked: a peer can answer with anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import rpc
from .failure import Failed, talking_to

__all__ = ["MethodDescription", "ParameterDescription", "described_at", "read_description"]


@dataclass(frozen=True)
class ParameterDescription:
    """One parameter of a method; the fields are those of `rpc.Client.describe`."""

    name: str
    kind: str
    annotation: str | None
    default: str | None
    required: bool


@dataclass(frozen=True)
class MethodDescription:
    """One method; the fields are those of `rpc.Client.describe`."""

    name: str
    signature: str
    doc: str
    kind: str
    parameters: tuple[ParameterDescription, ...]
    returns: str | None

    @property
    def is_stream(self) -> bool:
        """Whether it gives items one by one."""
        return self.kind == "stream"


async def described_at(endpoint: str, wait: float) -> tuple[Any, list[MethodDescription]]:
    """Ask the server what it offers.

    Args:
        endpoint: where it is.
        wait: seconds for it to appear, and again for its answer.

    Returns:
        Its answer as it is, and as it was read.

    Raises:
        Failed: it does not answer, or not with a description.
    """
    limit = max(wait, 1.0)
    async with (
        await rpc.open_client(
            connect=endpoint, connect_timeout=wait, timeout=wait + limit
        ) as client,
        talking_to(endpoint, connecting=True),
    ):
        answer = await client.describe()
    try:
        return answer["methods"], read_description(answer)
    except (LookupError, TypeError) as error:
        raise Failed(f"{endpoint} does not say what it offers: its answer is none") from error


def read_description(answer: Any) -> list[MethodDescription]:
    """The methods of an answer of `rpc.Client.describe`.

    Raises:
        LookupError, TypeError: it is none.
    """
    return [_method(entry) for entry in _array(answer["methods"])]


def _method(entry: Any) -> MethodDescription:
    return MethodDescription(
        name=_text(entry["name"]),
        signature=_text(entry["signature"]),
        doc=_text(entry["doc"]),
        kind=_text(entry["kind"]),
        parameters=tuple(_parameter(each) for each in _array(entry["parameters"])),
        returns=_optional_text(entry["returns"]),
    )


def _parameter(entry: Any) -> ParameterDescription:
    return ParameterDescription(
        name=_text(entry["name"]),
        kind=_text(entry["kind"]),
        annotation=_optional_text(entry["annotation"]),
        default=_optional_text(entry["default"]),
        required=entry["required"] is True,
    )


def _array(value: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, Mapping) for each in value):
        raise TypeError("no array of maps")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)
