"""What a listener without ZeroMQ must have before other hosts may reach it."""

import ssl as ssl_module

from ...endpoint import Endpoint, check_exposure
from .tokens import Tokens

__all__ = ["check_listener"]


def check_listener(
    host: str, port: int, *, ssl: ssl_module.SSLContext | None, tokens: Tokens, insecure: bool
) -> None:
    """Refuse a listener beyond loopback that lets in everybody, or sends tokens in the clear.

    Raises:
        TypeError: `ssl` is not a context.
        ValueError: it has neither a token over TLS nor TLS with client certificates, nor is it
            `insecure`.
    """
    if ssl is not None and not isinstance(ssl, ssl_module.SSLContext):
        raise TypeError(f"ssl must be an ssl.SSLContext, not {type(ssl).__name__}")
    problem = "there is no authentication. Give token= and ssl="
    if ssl is not None:
        if tokens or ssl.verify_mode is ssl_module.CERT_REQUIRED:
            return
        problem = "TLS says who serves, not who calls. Give token=, or ask for client certificates"
    elif tokens:
        problem = "without TLS, whoever sees the traffic has the token. Give ssl="
    check_exposure(str(Endpoint("tcp", host, port)), insecure, problem)
