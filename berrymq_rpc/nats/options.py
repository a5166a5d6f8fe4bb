"""How to connect to NATS (`Nats`), and how its durable queues are kept (`Durable`)."""

import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeAlias

from .address import NATS_SCHEMES, NatsAddress, checked_service
from .subject import checked_prefix

__all__ = ["Durable", "Nats", "NatsEndpoint", "NatsPlace", "is_nats", "nats_of", "settings_of"]

#: A file's path.
Path: TypeAlias = str | os.PathLike[str]

#: The prefix of inboxes unless the user gives one.
INBOX_PREFIX = "_INBOX"


@dataclass(frozen=True, slots=True)
class Nats:
    """A NATS server or cluster, and how to prove who this side is. Given where an address may be.

    One of password, token, nkey and credentials. Neither `repr` nor an error shows them.

    Args:
        servers: an address such as ``"nats://host:4222,host2/calc"``, or several of one cluster.
        service: whose calls are meant; it may stand in the address instead.
        user, password: what the server's ``users`` have.
        token: what the server's ``token`` has.
        nkey: the path of a file with the seed of an nkey.
        credentials: the path of a ``.creds`` file, which has a JWT and the seed of its nkey.
        tls: with what to check the server, and this side's certificate if it has one. It makes TLS
            a must, as ``nats+tls://`` does.
        inbox_prefix: what the subjects that answers come to begin with. One of your own, such as
            ``"_INBOX.alice"``, can be forbidden to others.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    servers: str | Iterable[str]
    service: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    nkey: Path | None = None
    credentials: Path | None = None
    tls: ssl.SSLContext | None = None
    inbox_prefix: str = INBOX_PREFIX
    address: NatsAddress = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        several: object = (self.servers,) if isinstance(self.servers, str) else self.servers
        texts = tuple(several) if isinstance(several, Iterable) else (several,)
        if not all(isinstance(text, str) for text in texts):
            # Without the value, which may have a secret in it.
            raise TypeError(
                "an address of NATS is text, such as nats://host:4222, or several texts"
            )
        if not texts:
            raise ValueError("no NATS server is given: write nats://host:4222")
        addresses = [NatsAddress.parse(text) for text in texts]
        first = addresses[0]
        if any(other.tls != first.tls for other in addresses):
            raise ValueError(
                "the addresses of one cluster are all nats:// or all nats+tls://, not some of each"
            )
        services = {a.service for a in addresses if a.service}
        if self.service is not None:
            services.add(checked_service(self.service))
        if len(services) > 1:
            raise ValueError(
                f"one service is meant, not {' and '.join(sorted(services))}: one client for each"
            )
        for name in ("user", "password", "token"):
            _check_text(name, getattr(self, name))
        given = {(self.user, self.password, self.token)}
        given |= {(a.user, a.password, a.token) for a in addresses}
        given.discard((None, None, None))
        if len(given) > 1:
            raise ValueError(
                "the addresses and the arguments name several users or tokens: give one of them"
            )
        for user, password, token in given:
            object.__setattr__(self, "user", user)
            object.__setattr__(self, "password", password)
            object.__setattr__(self, "token", token)
        if (self.user is None) != (self.password is None):
            raise ValueError("user= needs password=, and password= needs user=")
        if self.tls is not None and not isinstance(self.tls, ssl.SSLContext):
            raise TypeError(f"tls is an ssl.SSLContext, not {type(self.tls).__name__}")
        for name in ("nkey", "credentials"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, os.fspath(value))
        proofs = [self.password, self.token, self.nkey, self.credentials]
        if len([proof for proof in proofs if proof is not None]) > 1:
            raise ValueError(
                "password=, token=, nkey= and credentials= exclude each other: give one of them"
            )
        checked_prefix(self.inbox_prefix)
        servers = tuple(dict.fromkeys(server for a in addresses for server in a.servers))
        object.__setattr__(
            self,
            "address",
            NatsAddress(servers, next(iter(services), None), first.tls or self.tls is not None),
        )
        # What `repr` shows: never what an address had before its @.
        object.__setattr__(self, "servers", str(self.address))
        object.__setattr__(self, "service", self.address.service)

    @property
    def has_secret(self) -> bool:
        """Whether a password or token is sent to the server, which others must not read."""
        return self.password is not None or self.token is not None

    @property
    def has_proof(self) -> bool:
        """Whether this side says who it is, other than by a certificate."""
        return self.has_secret or self.nkey is not None or self.credentials is not None

    def for_service(self, service: str) -> "Nats":
        """The same servers for another service."""
        return replace(self, servers=str(replace(self.address, service=None)), service=service)

    def __str__(self) -> str:
        return str(self.address)


#: An address of NATS as text, or with more settings.
NatsPlace: TypeAlias = str | Nats


def nats_of(place: NatsPlace) -> Nats:
    """The settings of an address.

    Raises:
        TypeError, ValueError: it is not an address of NATS.
    """
    return place if isinstance(place, Nats) else settings_of(place)


def is_nats(place: object) -> bool:
    """Whether something is meant as a place in NATS, right or not."""
    return isinstance(place, Nats) or (
        isinstance(place, str) and place.partition("://")[0] in NATS_SCHEMES
    )


class NatsEndpoint(str):
    """The address of a service as text without secrets, with the settings that it stands for."""

    __slots__ = ("settings",)

    settings: Nats

    def __new__(cls, settings: Nats) -> "NatsEndpoint":
        made = super().__new__(cls, str(settings))
        made.settings = settings
        return made


def settings_of(endpoint: str) -> Nats:
    """The settings of an endpoint, which is a `NatsEndpoint` or text.

    Raises:
        TypeError, ValueError: it is not an address of NATS.
    """
    return endpoint.settings if isinstance(endpoint, NatsEndpoint) else Nats(endpoint)


@dataclass(frozen=True, slots=True)
class Durable:
    """How JetStream keeps the messages of durable queues.

    Args:
        keep: how long a message stays, whether it was read or not: what ``Queue(since=)`` replays.
            ``None`` keeps each until every queue that wants it has settled it.
        replicas: at how many servers of a cluster each message is: 1, 3 or 5.
        max_bytes: of all messages; a publish beyond it fails with `OverloadedError`.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    keep: timedelta | None = None
    replicas: int = 1
    max_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if self.keep is not None and not isinstance(self.keep, timedelta):
            raise TypeError(f"keep is a timedelta, not {self.keep!r}")
        if self.keep is not None and self.keep <= timedelta(0):
            raise ValueError(f"keep is longer than no time, not {self.keep}")
        if self.replicas not in (1, 3, 5) or isinstance(self.replicas, bool):
            raise ValueError(f"replicas is 1, 3 or 5, not {self.replicas!r}")
        if isinstance(self.max_bytes, bool) or not isinstance(self.max_bytes, int):
            raise TypeError(f"max_bytes is a whole number, not {self.max_bytes!r}")
        if self.max_bytes < 1:
            raise ValueError(f"max_bytes is above 0, not {self.max_bytes}")


def _check_text(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, str) and value):
        # Without the value, which may be a secret.
        raise TypeError(f"{name}= is text that is not empty; leave it away where there is none")
