"""The group of all commands, and the exit codes that they share."""

from importlib import import_module
from typing import cast

import click

from .log_json import log_json

__all__ = ["berrymq"]

#: The module of each command, in the order of the help. It is imported when the command is used:
#: all of them together take as long as the interpreter, the bus and the calls.
COMMANDS = {
    "serve": "serve",
    "send": "send",
    "tail": "tail",
    "top": "top.command",
    "get": "get",
    "call": "call",
    "methods": "methods",
    "stub": "stub",
    "bridge": "bridge",
    "queues": "queues",
    "doctor": "doctor.command",
    "find": "find",
    "keygen": "keys",
    "authorize": "keys",
    "revoke": "keys",
    "completion": "completion",
}

EXIT_CODES = """\b
Exit codes:
  0    success
  1    the peer refused, or the method raised an exception
  2    the command line is wrong; nothing was sent
  3    no peer answers at the endpoint, or the connection was lost
  4    timeout: no message, or no answer
  5    refused: the key, or the permission
  130  ended by Ctrl-C
  141  ended because the reader of the output has closed it"""


class Commands(click.Group):
    """A group that imports its commands as they are used."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = import_module(f".{COMMANDS[name]}", __package__)
        return log_json(cast(click.Command, getattr(module, name)))


@click.group(
    cls=Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="berrymq-rpc", prog_name="berrymq")
def berrymq() -> None:
    """Messages and calls between processes, from a shell.

    ENDPOINT is where a node or server listens, such as tcp://127.0.0.1:5555.
    IDENTIFIER is what a message is about, such as job:done; * stands for a whole part.
    """


log_json(berrymq)
