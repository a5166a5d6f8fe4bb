"""The subjects of a cluster: any identifier has one, and receivers subscribe to those they need."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.exchange.subject import (
    all_subjects,
    inbox,
    patterns_of,
    subject_of,
)
from berrymq_rpc.identifier import Identifier


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
