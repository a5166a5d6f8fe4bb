"""``berrymq tail``: show the messages of a node, or of a cluster, as they arrive."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import click

from ..bus import Bus, Empty, Message
from ..bus.message_iterator import Messages
from ..errors import AuthenticationError, ConnectionLostError, RPCTimeoutError, ServiceClosedError
from ..exchange import DurableHistory, Node, QueueConnection
from ..identifier import Identifier
from ..security import Security
from .arguments import (
    exportable_identifier,
    is_cluster,
    json_option,
    moment,
    place_argument,
    wait_option,
)
from .cluster import ClusterOptions, Visit, cluster_errors, cluster_options
from .failure import peer_errors
from .keys import client_keys, without_keys
from .nats_options import nats_options
from .output import Output, show_log

__all__ = ["tail"]

#: Seconds for which the node keeps the queue while the connection is down.
TTL = 60.0

#: Messages of a cluster that wait to be shown; the oldest are dropped, and a note says so.
MAX_WAITING = 10_000

#: How often what is kept is read until few come meanwhile, and how many are few.
MAX_ROUNDS = 20
FEW = 100

#: Seconds between two attempts: a node that is closing refuses at once.
PAUSE = 0.2

EVERYTHING = "*@*:*"


@click.command()
@place_argument
@click.argument("identifiers", metavar="[IDENTIFIER]...", type=exportable_identifier, nargs=-1)
@click.option(
    "--since",
    type=moment,
    metavar="WHEN",
    help="Of a cluster: show first what its durable queues keep, from a time such as "
    "2026-11-28T10:00 on, or 15m ago, or from the message with this number.",
)
@json_option("Write each message as one line of JSON.")
@click.option("--quiet", is_flag=True, help="Report nothing on standard error while it works.")
@cluster_options
@wait_option
@nats_options()
@client_keys
def tail(
    endpoint: str,
    identifiers: tuple[str, ...],
    since: datetime | int | None,
    as_json: bool,
    quiet: bool,
    cluster: ClusterOptions,
    wait: float,
    security: Security | None,
) -> None:
    """Show the messages of a node, or of a cluster, as they arrive.

    Each IDENTIFIER selects some; without one all are shown. Ctrl-C ends it. When the connection to
    the node is lost it waits for the node to come back, and reports both on standard error; so it
    does with a cluster, such as nats://host:4222. It ends where it is refused.
    """
    wanted = tuple(dict.fromkeys(identifiers)) or (EVERYTHING,)
    output, notes = Output(sys.stdout), Output(sys.stderr, as_json=as_json)
    show = Shown(output, notes, as_json, quiet)
    if is_cluster(endpoint):
        without_keys(security)
        show_log(notes, exchange=False, security=False)
        asyncio.run(_tail_cluster(endpoint, wanted, since, show, cluster, wait))
        return
    if since is not None:
        raise click.UsageError(
            "--since is for a cluster: an address such as nats://host:4222. A node keeps nothing "
            "that was sent before"
        )
    show_log(notes, exchange=False)
    asyncio.run(_tail(endpoint, wanted, show, wait, security, cluster.insecure))


class Shown:
    """What is shown: messages on standard output, notes on standard error.

    Args:
        output, notes: where.
        as_json: messages are JSON.
        quiet: there are no notes.
    """

    def __init__(self, output: Output, notes: Output, as_json: bool, quiet: bool) -> None:
        self.output = output
        self._notes = notes
        self._as_json = as_json
        self.quiet = quiet

    def message(self, message: Message) -> None:
        self.output.message(message, as_json=self._as_json)

    def note(self, word: str, text: str, style: str = "dim", **fields: Any) -> None:
        if not self.quiet:
            self._notes.note(word, text, style, **fields)

    def missed(self, count: int, text: str) -> None:
        if count:
            self.note("missed", text, "yellow", count=count)


async def _tail(
    endpoint: str,
    identifiers: tuple[str, ...],
    show: Shown,
    wait: float,
    security: Security | None,
    insecure: bool,
) -> None:
    bus = Bus()
    if not show.quiet:
        _report_losses(bus, endpoint, show)
    # One queue keeps the messages in their order, and has each once.
    parsed = [Identifier(each) for each in identifiers]
    widest = widest_of(parsed)
    async with Node(bus=bus, connect_timeout=wait, security=security, insecure=insecure) as node:
        async with peer_errors(endpoint, connecting=True):
            connection = await node.connect_via_queue(widest, endpoint, TTL)
        async with connection, show.output.watched():
            show.note("following", f"following {' '.join(identifiers)} at {endpoint}")
            while True:
                async with peer_errors(endpoint):
                    message = await _next(connection)
                dropped = getattr(message, "dropped", 0)
                text = f"{dropped} messages were missed: the queue at {endpoint} was full"
                show.missed(dropped, text)
                sent = Identifier(message.id)
                if any(each.is_match(sent) for each in parsed):
                    show.message(message)


def widest_of(identifiers: list[Identifier]) -> Identifier:
    """An identifier that matches all messages that some identifiers match, and few others."""
    first, *others = identifiers
    if not others:
        return first
    names, actions = ({getattr(e, part) for e in identifiers} for part in ("name", "action"))
    spaces = {each.namespace for each in identifiers}
    name, action = (found.pop() if len(found) == 1 else "*" for found in (names, actions))
    space = spaces.pop() if len(spaces) == 1 else "*"
    return Identifier(f"{name}:{action}" if space is None else f"{name}@{space}:{action}")


async def _tail_cluster(
    place: str,
    identifiers: tuple[str, ...],
    since: datetime | int | None,
    show: Shown,
    options: ClusterOptions,
    wait: float,
) -> None:
    async with Visit.to(place, options, wait) as visit, show.output.watched():
        if not show.quiet:
            _report_losses(visit.bus, place, show)
            visit.bus.regist_function("connection:missed", lambda message: _missed(show, message))
        seen: Counter[str] = Counter()
        history = None
        if since is not None:
            with cluster_errors(place):
                history = visit.node.durable_history(since)
            for _ in range(MAX_ROUNDS):
                began = history.position
                await _show_history(visit, place, history, identifiers, show)
                # While it was read others may have come, which are read faster than kept here.
                if began is not None and (history.position or 0) - began < FEW:
                    break
        with visit.bus.messages(*identifiers, maxsize=MAX_WAITING) as messages:
            await visit.settled(wait)
            if history is not None:
                # What was stored before the server knew that this side follows it.
                seen = await _show_history(visit, place, history, identifiers, show)
                await visit.settled(wait)
            text = f"following {' '.join(identifiers)} at {place} ({options.namespace})"
            show.note("following", text)
            await _follow(visit, messages, seen, show)


async def _follow(visit: Visit, messages: Messages, seen: Counter[str], show: Shown) -> None:
    dropped = 0
    # What has come by now may be in the history too.
    doubtful = messages.qsize()
    while True:
        message = await visit.unless_refused(anext(messages))
        if messages.dropped > dropped:
            count, dropped = messages.dropped - dropped, messages.dropped
            text = f"{count} messages were missed: they came faster than they are shown"
            show.missed(count, text)
        is_doubtful, doubtful = doubtful > 0, doubtful - 1
        if visit.is_own(message):
            continue
        if is_doubtful and seen[key := _key(message)]:
            seen[key] -= 1
            continue
        show.message(message)


async def _show_history(
    visit: Visit, place: str, history: DurableHistory, identifiers: tuple[str, ...], show: Shown
) -> Counter[str]:
    """Show what is kept; return which messages it were, and how often."""
    parsed = [Identifier(each) for each in identifiers]
    shown: Counter[str] = Counter()
    is_first = history.position is None
    with cluster_errors(place):
        kept = aiter(history)
        while (message := await visit.unless_refused(_next_kept(kept))) is not None:
            if is_first:
                _note_missing(history, show)
                is_first = False
            sent = Identifier(message.id)
            if any(each.is_match(sent) for each in parsed):
                show.message(message)
                shown[_key(message)] += 1
    if is_first:
        _note_missing(history, show)
    return shown


def _note_missing(history: DurableHistory, show: Shown) -> None:
    show.missed(history.missing, "older messages than these were missed: they are kept no more")


async def _next_kept(kept: AsyncIterator[Message]) -> Message | None:
    return await anext(kept, None)


def _key(message: Message) -> str:
    return repr((message.origin, message.id, message.args, sorted(message.kwargs.items())))


def _report_losses(bus: Bus, endpoint: str, show: Shown) -> None:
    def lost(message: Message) -> None:
        show.note("lost", f"connection to {endpoint} lost; waiting for it to come back", "yellow")

    def restored(message: Message) -> None:
        show.note(
            "restored",
            f"connection to {endpoint} restored; messages sent meanwhile may be missing",
            "green",
        )

    bus.regist_function("connection:lost", lost)
    bus.regist_function("connection:restored", restored)


def _missed(show: Shown, message: Message) -> None:
    count, origin = message.kwargs.get("count"), message.kwargs.get("origin")
    text = f"{count} messages of {origin} were missed"
    show.note("missed", text, "yellow", count=count, origin=origin)


async def _next(connection: QueueConnection) -> Message:
    """Return the next message, however often the connection is lost before it comes."""
    while True:
        try:
            return await connection.get()
        except AuthenticationError:
            # It would be refused until somebody authorizes its key again.
            raise
        except (ConnectionLostError, RPCTimeoutError, ServiceClosedError, Empty):
            # The connection restores itself, and reports it on the bus.
            await asyncio.sleep(PAUSE)
