"""The NATS subjects of a cluster: where the messages of an identifier are published.

::

    berrymq.<cluster namespace>.<name>.<action>[.<namespace of the identifier>]
    berrymq-node.<cluster namespace>.<name of a node>.<its epoch>.talk
    berrymq-node.<cluster namespace>.<name of a node>.<its epoch>.watch
    berrymq-node.<cluster namespace>.watch
    berrymq-node.<cluster namespace>.presence
    berrymq-node.<cluster namespace>.retained
    berrymq-retained.<cluster namespace>.message.<name>.<action>[.<namespace of the identifier>]
    berrymq-retained.<cluster namespace>.forgotten.<name>.<action>[.<namespace of the identifier>]

A ``*`` in the identifier of a message is the token ``%2A``: a subject that is published to has no
wildcards. So a receiver subscribes to several subjects; with a ``*`` of NATS where it follows one.
What NATS delivers is matched again by the bus: a subscription too many costs only traffic.
"""

import itertools

from ..bus.routing_table import Parts
from ..identifier import WILDCARD, Identifier
from ..nats.subject import ANY, escape

__all__ = [
    "all_subjects",
    "covered_patterns",
    "inbox",
    "patterns_of",
    "presence_subject",
    "retained_notice",
    "retained_pattern",
    "retained_subject",
    "retained_subjects",
    "subject_of",
    "watch_inbox",
    "watch_subject",
]

#: The first token of all messages, and of what is for one node.
PREFIX = "berrymq"
NODE_PREFIX = "berrymq-node"

#: The first token of what is retained.
RETAINED_PREFIX = "berrymq-retained"


def subject_of(cluster: str, identifier: Identifier) -> str:
    """The subject that messages of an identifier are published to.

    Args:
        cluster: the namespace of the cluster.
        identifier: the message's.
    """
    subject = f"{PREFIX}.{escape(cluster)}.{escape(identifier.name)}.{escape(identifier.action)}"
    if identifier.namespace is None:
        return subject
    return f"{subject}.{escape(identifier.namespace)}"


def patterns_of(cluster: str, parts: Parts) -> list[str]:
    """The subjects to subscribe to for what a receiver follows, wildcards of senders included.

    Args:
        cluster: the namespace of the cluster.
        parts: namespace, name and action of what it follows.
    """
    namespace, name, action = parts
    prefix = f"{PREFIX}.{escape(cluster)}"
    ends: tuple[str, ...]
    if namespace is None:
        # A message in the namespace "*" reaches those without a namespace, too.
        ends = ("", f".{ANY}")
    elif namespace == WILDCARD:
        ends = ("", f".{WILDCARD}")
    else:
        ends = tuple(f".{each}" for each in _variants(namespace))
    return [
        f"{prefix}.{a_name}.{an_action}{end}"
        for a_name, an_action, end in itertools.product(_variants(name), _variants(action), ends)
    ]


def _variants(part: str) -> tuple[str, ...]:
    """What a part that is followed matches: itself, and the wildcard of a sender."""
    return (WILDCARD,) if part == WILDCARD else (escape(part), ANY)


def all_subjects(cluster: str) -> str:
    """The pattern of all messages of a cluster."""
    return f"{PREFIX}.{escape(cluster)}.>"


def inbox(cluster: str, node: tuple[str, int]) -> str:
    """The subject of what is for one node alone, by its name and epoch."""
    name, epoch = node
    return f"{NODE_PREFIX}.{escape(cluster)}.{escape(name)}.{epoch}.talk"


def presence_subject(cluster: str) -> str:
    """The subject of what all nodes are told about a node that is lost or back."""
    return f"{NODE_PREFIX}.{escape(cluster)}.presence"


def watch_subject(cluster: str) -> str:
    """The subject of nodes that look for another one to hold their wills."""
    return f"{NODE_PREFIX}.{escape(cluster)}.watch"


def watch_inbox(cluster: str, node: tuple[str, int]) -> str:
    """The subject of what a node and those that hold its will tell each other."""
    name, epoch = node
    return f"{NODE_PREFIX}.{escape(cluster)}.{escape(name)}.{epoch}.watch"


def retained_subjects(cluster: str, kind: str) -> str:
    """The pattern of all that is retained, ``"message"``, or of what was ``"forgotten"``."""
    return f"{RETAINED_PREFIX}.{escape(cluster)}.{kind}.>"


def retained_notice(cluster: str) -> str:
    """The subject on which identifiers are told of which the bucket has something new."""
    return f"{NODE_PREFIX}.{escape(cluster)}.retained"


def retained_subject(cluster: str, kind: str, identifier: Identifier) -> str:
    """Where a message of an identifier is retained, or that it was forgotten."""
    _, space, rest = subject_of(cluster, identifier).split(".", 2)
    return f"{RETAINED_PREFIX}.{space}.{kind}.{rest}"


def retained_pattern(pattern: str) -> str:
    """Where the messages are retained that are published to subjects of a pattern."""
    _, cluster, rest = pattern.split(".", 2)
    return f"{RETAINED_PREFIX}.{cluster}.message.{rest}"


def covered_patterns(cluster: str, identifier: Identifier) -> list[str]:
    """Where all messages are retained that an identifier covers: its wildcards stand for any."""
    namespace, *parts = identifier.namespace, identifier.name, identifier.action
    name, action = (WILDCARD if part == WILDCARD else escape(part) for part in parts)
    pattern = f"{RETAINED_PREFIX}.{escape(cluster)}.message.{name}.{action}"
    if namespace is None:
        return [pattern]
    if namespace == WILDCARD:
        return [pattern, f"{pattern}.*"]
    return [f"{pattern}.{escape(namespace)}"]
