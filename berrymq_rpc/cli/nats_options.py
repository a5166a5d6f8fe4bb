"""The options of commands at NATS: how to prove who this side is, and to check the server."""

import os
import ssl
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import click

from ..nats.options import Nats, NatsEndpoint, is_nats, settings_of
from .completion import completes_files

__all__ = ["LOGIN_VARIABLE", "nats_options"]

#: What an address has before its ``@``, so that other users of this host do not see it.
LOGIN_VARIABLE = "BERRYMQ_NATS_LOGIN"

_OPTIONS = (
    click.option(
        "--credentials",
        metavar="FILE",
        shell_complete=completes_files(".creds"),
        help="At NATS: the .creds file of this side's user.",
    ),
    click.option(
        "--nkey",
        metavar="FILE",
        shell_complete=completes_files(),
        help="At NATS: the file with the seed of this side's nkey.",
    ),
    click.option(
        "--nats-ca",
        metavar="FILE",
        shell_complete=completes_files(),
        help="At NATS: the authority that has to have signed the server's certificate. TLS is a "
        "must then.",
    ),
    click.option(
        "--nats-certificate",
        metavar="FILE",
        shell_complete=completes_files(),
        help="At NATS: this side's certificate, with its secret key. TLS is a must then.",
    ),
    click.option(
        "--nats-certificate-key",
        metavar="FILE",
        shell_complete=completes_files(),
        help="The secret key, if the file of the certificate does not have it.",
    ),
)


def nats_options(name: str = "endpoint") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options, which are for an address at NATS.

    Args:
        name: the command's argument with the address. The command gets it with what the options
            say.
    """

    def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def command(
            *,
            credentials: str | None,
            nkey: str | None,
            nats_ca: str | None,
            nats_certificate: str | None,
            nats_certificate_key: str | None,
            **options: Any,
        ) -> Any:
            proofs = credentials, nkey
            files = nats_ca, nats_certificate, nats_certificate_key
            endpoint = options[name]
            if endpoint is not None and is_nats(endpoint):
                settings = _settings(settings_of(endpoint), *proofs, *files)
                options[name] = NatsEndpoint(settings)
            elif any((*proofs, *files)):
                raise click.UsageError(
                    "--credentials, --nkey and --nats-... are for addresses that begin with nats://"
                )
            return function(**options)

        for option in reversed(_OPTIONS):
            command = option(command)
        return command

    return with_options


def _settings(
    settings: Nats,
    credentials: str | None,
    nkey: str | None,
    ca: str | None,
    certificate: str | None,
    certificate_key: str | None,
) -> Nats:
    has_proof = settings.has_secret or credentials or nkey
    login = None if has_proof else os.environ.get(LOGIN_VARIABLE)
    try:
        if login:
            scheme, _, place = str(settings).partition("://")
            settings = Nats(f"{scheme}://{login}@{place}")
        for file in (credentials, nkey):
            if file is not None and not os.path.isfile(file):
                raise ValueError(f"there is no file {file}")
        context = _context(ca, certificate, certificate_key)
        return replace(settings, tls=context, credentials=credentials, nkey=nkey)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _context(
    ca: str | None, certificate: str | None, certificate_key: str | None
) -> ssl.SSLContext | None:
    if certificate_key is not None and certificate is None:
        raise click.UsageError("--nats-certificate-key wants --nats-certificate")
    if ca is None and certificate is None:
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            context.load_cert_chain(certificate, certificate_key)
    except OSError as error:
        raise click.UsageError(f"the certificate cannot be used: {error}") from error
    return context
