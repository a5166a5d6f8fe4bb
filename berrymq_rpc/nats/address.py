"""Addresses of NATS servers, and of a service behind them.

::

    nats://host                     port 4222
    nats://host:4222,host2/calc     two servers of a cluster; the service calc
    nats://user:password@host       also nats://token@host; %XX for characters of the address
    nats+tls://host                 over TLS alone
"""

from dataclasses import dataclass, field
from urllib.parse import unquote

from ..endpoint import Endpoint, without_password
from .subject import checked_name

__all__ = ["DEFAULT_PORT", "NATS_SCHEMES", "NatsAddress", "Server", "checked_service"]

#: Where a NATS server listens unless it is told otherwise.
DEFAULT_PORT = 4222

#: The schemes of NATS addresses.
NATS_SCHEMES = ("nats", "nats+tls")


@dataclass(frozen=True, slots=True)
class Server:
    """Where one NATS server listens.

    Args:
        host: a name, or an address without brackets.
        port: from 1 to 65,535.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Server":
        """Read ``host`` or ``host:port``.

        Raises:
            ValueError: it is neither.
        """
        host, colon, digits = text.rpartition(":")
        if not colon or "]" in digits:
            host, digits = text, str(DEFAULT_PORT)
        endpoint = Endpoint.parse(f"nats://{host}:{digits}").require_port()
        if endpoint.path or endpoint.port is None:
            raise ValueError(f"{text!r} is not a host and a port")
        return cls(endpoint.host, endpoint.port)

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach it."""
        return Endpoint("nats", self.host, self.port).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """A parsed address. As text it has neither user nor password nor token.

    Args:
        servers: of one cluster; one or more.
        service: whose calls are meant, or ``None``.
        tls: whether it is TLS or nothing.
        user, password: what the address had before an ``@``, or ``None``.
        token: the same, where there was no colon.
    """

    servers: tuple[Server, ...]
    service: str | None = None
    tls: bool = False
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> "NatsAddress":
        """Parse an address.

        Raises:
            TypeError: it is not text.
            ValueError: it is not an address of NATS. The text of the error has no password.
        """
        if not isinstance(text, str):
            raise TypeError(f"an address of NATS is text such as 'nats://host', not {text!r}")
        scheme, separator, place = text.partition("://")
        if not separator or scheme not in NATS_SCHEMES:
            raise ValueError(f"{_shown(text)!r} is not an address of NATS: write nats://host:4222")
        authority, slash, service = place.partition("/")
        user_info, at, hosts = authority.rpartition("@")
        if "@" in user_info or "@" in service:
            # Else a part of a password were a host or a service, which errors show.
            raise ValueError(
                f"{_shown(text)!r} is not an address of NATS: write %40 for an @ and %2F for a "
                "slash in a user, a password or a token"
            )
        if slash and not service:
            raise ValueError(
                f"{_shown(text)!r} is not an address of NATS: no service after its slash"
            )
        try:
            servers = tuple(map(Server.parse, hosts.split(",")))
        except ValueError:
            raise ValueError(
                f"{_shown(text)!r} is not an address of NATS: write nats://host:4222, with commas "
                "between several servers"
            ) from None
        user, colon, password = user_info.partition(":")
        if at and not user:
            raise ValueError(f"{_shown(text)!r} is not an address of NATS: no user before its @")
        return cls(
            servers,
            checked_service(service) if service else None,
            scheme == "nats+tls",
            unquote(user) if colon else None,
            unquote(password) if colon else None,
            unquote(user) if at and not colon else None,
        )

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach the servers."""
        return all(server.is_loopback for server in self.servers)

    def __str__(self) -> str:
        scheme = "nats+tls" if self.tls else "nats"
        service = f"/{self.service}" if self.service else ""
        return f"{scheme}://{','.join(map(str, self.servers))}{service}"


def checked_service(name: object) -> str:
    """Return the name of a service; ``*`` stands for one that nobody else has.

    Raises:
        TypeError, ValueError: it is none.
    """
    return "*" if name == "*" else checked_name(name, "a service")


def _shown(text: str) -> str:
    """An address for an error: a token has no colon, so all before an ``@`` is left out."""
    scheme, separator, place = without_password(text).partition("://")
    before, at, rest = place.rpartition("@")
    return f"{scheme}{separator}{'...' if before else ''}{at}{rest}"
