"""The command itself."""

import shutil
import sys
import time
from pathlib import Path

import click

from ...endpoint import Endpoint
from ..arguments import json_option, some_seconds
from ..failure import Failed, Refused
from ..output import Output
from .source import Source, page_address
from .view import SORTS, View, lines_of

__all__ = ["top"]

#: Cells of a line where there is no terminal.
WIDTH = 100


@click.command()
@click.argument("address", type=page_address)
@click.option(
    "--token",
    envvar="BERRYMQ_TOKEN",
    metavar="TOKEN",
    help="The token of the page.  [env: BERRYMQ_TOKEN]",
)
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The authority of the page's certificate.",
)
@click.option(
    "--interval",
    type=some_seconds,
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between two looks.",
)
@click.option(
    "--sort", type=click.Choice(SORTS), default=SORTS[0], show_default=True, help="What is first."
)
@click.option("--filter", "wanted", default="", metavar="TEXT", help="Only rows with this text.")
@click.option(
    "--once", is_flag=True, help="Look once, and write what there is.  [default: on a pipe]"
)
@json_option("Write each state as one line of JSON.")
def top(
    address: Endpoint,
    token: str | None,
    ca: Path | None,
    interval: float,
    sort: str,
    wanted: str,
    once: bool,
    as_json: bool,
) -> None:
    """Show what runs, as the live page does.

    ADDRESS is that of the page: http://host:port, as serve --http and bridge --http have it.
    """
    output = Output(sys.stdout)
    source = Source(address, token, ca)
    view = View(sort=sort, filter=wanted, unicode=output.is_unicode)
    try:
        value, state = source.ask()
        if as_json:
            output.json(value)
            while not once:
                time.sleep(interval)
                output.json(_again(source))
        elif once or not output.is_terminal:
            width = shutil.get_terminal_size((WIDTH, 24)).columns
            output.styled(lines_of(state, view, width, None))
        else:
            from .screen import Screen

            Screen(source, view, interval).show(state)
    finally:
        source.close()


def _again(source: Source) -> object:
    """The next state, however long the server is away; each reason is told once."""
    notes = Output(sys.stderr, as_json=True)
    told = ""
    while True:
        try:
            value = source.ask()[0]
        except Refused:
            raise
        except Failed as error:
            reason = error.format_message()
            if reason != told:
                notes.note("lost", f"{reason}; asking again", "yellow")
                told = reason
            time.sleep(1.0)
        else:
            if told:
                notes.note("restored", f"{source.place} answers again", "green")
            return value
