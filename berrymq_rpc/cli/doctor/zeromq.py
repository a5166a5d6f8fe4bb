"""``tcp://`` and ``ipc://``: nodes and servers, and what else may be there."""

from collections.abc import AsyncIterator
from contextlib import suppress

from ...endpoint import Endpoint
from ...security import CurveClient, Security
from . import foreign, native
from .check import Check, failed, ok, warning
from .conversation import Conversation, Lost, Refused, conversation
from .first_words import Found, find_speaker
from .ipc import file_checks
from .network import Place, reach

__all__ = ["examine"]

#: Sockets that a client can connect to, and talk with.
_TALKS = frozenset(("ROUTER", "REP", "DEALER"))

#: What each other type of socket is for.
_OTHERS = {
    "PUB": "it sends to subscribers alone",
    "XPUB": "it sends to subscribers alone",
    "SUB": "it receives from publishers alone",
    "XSUB": "it receives from publishers alone",
    "PULL": "it takes messages, and answers none: a NotificationOnlyPullServer of JSON-RPC is one",
    "PUSH": "it gives work to PULL sockets",
    "REQ": "it asks and does not answer",
    "PAIR": "it talks with one PAIR socket",
}


async def examine(
    endpoint: str, security: Security | None, timeout: float, version: str
) -> AsyncIterator[Check]:
    """Check a node or server, each check within bounds.

    Args:
        endpoint: of ``tcp://`` or ``ipc://``.
        security: the keys of this side; ``None`` for none.
        timeout: seconds for each check.
        version: of this package.
    """
    address = Endpoint.parse(endpoint)
    place: Place | str | None = None
    if address.scheme == "ipc":
        async for found in file_checks(address.path, timeout):
            if isinstance(found, Check):
                yield found
            else:
                place = found
    else:
        assert address.port is not None
        async for each in reach(address.host, address.port, timeout):
            if isinstance(each, Check):
                yield each
            else:
                place = each
    if place is None:
        return
    found_there = await find_speaker(place, timeout)
    can_talk, protocol = _who(found_there, endpoint)
    if not can_talk:
        yield protocol
        return
    keys = _by_greeting(found_there, security)
    if keys is not None:
        yield protocol
        yield keys
        return
    async with conversation(endpoint, security, timeout) as talk:
        async for check in _talk(talk, protocol, found_there, security, timeout, version):
            yield check


def _who(found: Found, endpoint: str) -> tuple[bool, Check]:
    """The check of who answers, and whether it can be talked with."""
    speaker, greeting = found.speaker, found.greeting
    if greeting is None:
        text = f"{speaker.text} listens at {endpoint}: it is not a node or server"
        return False, failed("protocol", text, speaker.advice, speaker=speaker.word)
    zmtp = ".".join(map(str, greeting.version))
    details = {"speaker": "zeromq", "zmtp": zmtp, "mechanism": greeting.mechanism}
    details["socket"] = found.socket_type or ""
    if found.refusal is not None:
        text = f"a ZeroMQ socket refuses this side: {found.refusal}"
        return False, failed("protocol", text, "is it a node or a server?", **details)
    kind = found.socket_type
    if greeting.mechanism == "NULL" and kind not in _TALKS and kind is not None:
        what = _OTHERS.get(kind, "it is of no type that clients talk with")
        text = f"a ZeroMQ socket of type {kind} listens there: {what}"
        return False, failed("protocol", text, "give the address of a node or server", **details)
    if greeting.mechanism == "PLAIN":
        text = "a ZeroMQ socket that wants a user and a password (PLAIN) listens there"
        return False, failed("protocol", text, "berrymq_rpc uses keys (CURVE)", **details)
    return True, ok("protocol", f"ZeroMQ (ZMTP {zmtp}, {greeting.mechanism})", **details)


def _by_greeting(found: Found, security: Security | None) -> Check | None:
    """What the greeting says about keys, where it is not what this side has."""
    mechanism = found.greeting.mechanism if found.greeting else "NULL"
    if mechanism == "CURVE" and security is None:
        return failed(
            "keys",
            "the server wants keys, and none are given",
            "give --key and --server-key (berrymq keygen NAME makes a pair), and have the server "
            "authorize it (berrymq authorize FOLDER NAME.key)",
            reason="keys wanted",
        )
    if mechanism == "NULL" and security is not None:
        return failed(
            "keys",
            "the server has no key, and this side talks only to one that has",
            "is it the right server? Give it a key, or leave --key and --server-key away if you "
            "trust the network",
            reason="no keys",
        )
    return None


async def _talk(
    talk: Conversation,
    check: Check,
    found: Found,
    security: Security | None,
    timeout: float,
    version: str,
) -> AsyncIterator[Check]:
    try:
        trouble = await talk.connected(timeout)
    except TimeoutError:
        yield check
        yield failed(
            "keys" if security is not None else "protocol",
            f"ZeroMQ's handshake did not end within {timeout:g} s",
            "is the server frozen, or does it wait for what checks the keys? Its log may say",
            **({"reason": "handshake"} if security is not None else {}),
        )
        return
    if trouble is not None:
        yield check
        yield _refused(trouble, security)
        return
    answer = await _native(talk, found, timeout)
    if isinstance(answer, Lost | Refused):
        yield check
        yield _refused(answer, security)
        return
    if answer is None:
        yield await _foreign(talk, found, timeout)
        if security is not None:
            yield _authorized(security)
        return
    details = dict(check.details) | {"dialect": "native"}
    text = f"a node or server of berrymq_rpc, over {check.text}"
    yield ok("protocol", text, **details)
    yield ok("keys", "none are wanted") if security is None else _authorized(security)
    if answer.properties is None:
        reason = answer.goodbye or "it sent no greeting"
        yield failed("version", f"the peer says goodbye: {reason}", "upgrade the older side")
        return
    for each in native.checks_of_greeting(answer.properties, version):
        yield each
    if answer.goodbye is not None:
        closing = f"the peer says goodbye: {answer.goodbye}"
        yield warning("service", closing, "is it being restarted?")
        return
    for each in await native.pings(talk, timeout):
        yield each


def _refused(trouble: Refused | Lost, security: Security | None) -> Check:
    if isinstance(trouble, Lost):
        return failed(
            "protocol",
            f"the connection was lost: {trouble.reason}",
            "does the server end, or does something on the way cut connections?",
        )
    reason = trouble.error.reason or ""
    own = security.keys.public if isinstance(security, CurveClient) else ""
    text, advice = {
        "key": (
            f"the server does not authorize this side's key {own}",
            "have the file NAME.key put into its folder: berrymq authorize FOLDER NAME.key",
        ),
        "handshake": (
            "the server closed the handshake",
            "either --server-key is not its key, or it cannot check keys at the moment: its log "
            "says why",
        ),
    }.get(reason, (str(trouble.error), "compare the keys of both sides"))
    return failed("keys", text, advice, reason=reason)


def _authorized(security: Security) -> Check:
    own = security.keys.public if isinstance(security, CurveClient) else ""
    return ok("keys", f"the server accepts the key {own}", key=own)


async def _native(
    talk: Conversation, found: Found, timeout: float
) -> native.Heard | Lost | Refused | None:
    """The greeting of a native peer; ``None`` if it is none."""
    if found.socket_type == "REP":
        # It would answer a message that it cannot read with an error, or with its end.
        return None
    heard: native.Heard | None = None
    with suppress(TimeoutError):
        answer = await talk.ask(native.hello(), timeout)
        while not isinstance(answer, Lost | Refused):
            said = native.read(answer)
            if said is None:
                # Another protocol, which refuses what it cannot read.
                return None
            heard = said if heard is None else _joined(heard, said)
            if heard.pongs or heard.goodbye is not None:
                return heard
            answer = await talk.next(timeout)
        return answer
    return heard


def _joined(first: native.Heard, second: native.Heard) -> native.Heard:
    return native.Heard(
        second.clock,
        first.properties or second.properties,
        first.pongs + second.pongs,
        first.goodbye or second.goodbye,
    )


async def _foreign(talk: Conversation, found: Found, timeout: float) -> Check:
    """Which other protocol it is."""
    wait = min(timeout, 1.0)
    is_rep = found.socket_type == "REP"
    details = {"mechanism": found.greeting.mechanism if found.greeting else ""}
    details |= {"speaker": "zeromq", "socket": found.socket_type or ""}
    asked = [] if is_rep else [foreign.aiozmq_call()]
    asked += [foreign.json_call(delimiter=True)]
    for frames in asked:
        with suppress(TimeoutError):
            answer = await talk.ask(frames, wait)
            if isinstance(answer, Lost | Refused):
                break
            if foreign.is_aiozmq_answer(answer):
                return warning(
                    "protocol",
                    "a plain aiozmq.rpc server, which has no deadlines, streams or limits",
                    'call it with berrymq call --dialect aiozmq, or open_client(dialect="aiozmq")',
                    dialect="aiozmq",
                    **details,
                )
            if foreign.is_json_answer(answer):
                return warning(
                    "protocol",
                    "a server of JSON-RPC over ZeroMQ",
                    "call it with berrymq_rpc.jsonrpc.zeromq.RPCClient (a REP socket) or "
                    "RPCNotifierClient: the command does not",
                    dialect="jsonrpc",
                    **details,
                )
    return failed(
        "protocol",
        f"a ZeroMQ socket{f' of type {found.socket_type}' if found.socket_type else ''} listens "
        "there, which answers nothing that was tried",
        "is its event loop held up, or is it another program that uses ZeroMQ? Give the address of "
        "a node or server",
        **details,
    )
