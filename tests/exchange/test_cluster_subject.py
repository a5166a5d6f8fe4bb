"""The subjects of a cluster: any identifier has one, and receivers subscribe to those they need."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.exchange.cluster_subject import (
    TOKEN_LENGTH,
    all_subjects,
    inbox,
    patterns_of,
    subject_of,
    token,
)
from berrymq_rpc.identifier import MAX_LENGTH, Identifier

PARTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def identifiers() -> st.SearchStrategy[Identifier]:
    part = st.sampled_from(
        ["*", "a", "b", "_x", "a-b", "ä", "a.b", ">", "%2A", "a b", "\U0001f600"]
    )

    def joined(name: str, namespace: str | None, action: str) -> Identifier:
        return Identifier(
            f"{name}:{action}" if namespace is None else f"{name}@{namespace}:{action}"
        )

    return st.builds(joined, part, st.none() | part, part)


def parts(identifier: Identifier) -> tuple[str | None, str, str]:
    return identifier.namespace, identifier.name, identifier.action


def nats_matches(pattern: str, subject: str) -> bool:
    """Whether NATS delivers a subject to a subscription: ``*`` is one token, ``>`` all further."""
    wanted, given_ = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(given_) >= len(wanted) and nats_matches(
            ".".join(wanted[:-1]), ".".join(given_[: len(wanted) - 1])
        )
    return len(wanted) == len(given_) and all(
        w in ("*", g) for w, g in zip(wanted, given_, strict=True)
    )


@given(PARTS)
def test_a_token_is_legal(part: str) -> None:
    made = token(part)
    assert re.fullmatch(r"(%~)?[A-Za-z0-9_%-]+", made)
    assert len(made) <= TOKEN_LENGTH


@given(PARTS, PARTS)
def test_tokens_differ_as_texts_do(one: str, other: str) -> None:
    assert (token(one) == token(other)) == (one == other)


@pytest.mark.parametrize("end", ["", "%", "ä", "é"])
def test_long_parts_are_hashed_and_differ(end: str) -> None:
    long = "x" * (MAX_LENGTH - 10)
    assert token(long + end).startswith("%~")
    assert token(long + end) != token(long + end + "y")
    assert len(token(long + end)) < TOKEN_LENGTH


def test_the_subjects_of_the_manual() -> None:
    assert subject_of("plant", Identifier("oven:log")) == "berrymq.plant.oven.log"
    assert subject_of("plant", Identifier("oven@boiler:log")) == "berrymq.plant.oven.log.boiler"
    assert subject_of("plant", Identifier("start:*")) == "berrymq.plant.start.%2A"
    assert inbox("plant", ("n 1", 7)) == "berrymq-node.plant.n%201.7.talk"


@given(identifiers(), identifiers())
def test_patterns_match_exactly_what_identifiers_do(sent: Identifier, followed: Identifier) -> None:
    subject = subject_of("c", sent)
    reached = any(nats_matches(pattern, subject) for pattern in patterns_of("c", parts(followed)))
    assert reached == sent.is_match(followed)


def test_all_pairs_of_a_small_alphabet() -> None:
    texts = [
        f"{name}{namespace}:{action}"
        for name, namespace, action in itertools.product("ab*", ("", "@a", "@b", "@*"), "ab*")
    ]
    for one, other in itertools.product(map(Identifier, texts), repeat=2):
        subject = subject_of("c", one)
        reached = any(nats_matches(p, subject) for p in patterns_of("c", parts(other)))
        assert reached == one.is_match(other), (one, other)
        assert nats_matches(all_subjects("c"), subject)


@given(identifiers())
def test_clusters_do_not_hear_each_other(sent: Identifier) -> None:
    assert not nats_matches(all_subjects("c"), subject_of("c.d", sent))
