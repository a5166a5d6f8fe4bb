"""The group of all commands, and the exit codes that they share."""

import click

from .bridge import bridge
from .call import call
from .get import get
from .keys import authorize, keygen, revoke
from .methods import methods
from .queues import queues
from .send import send
from .serve import serve
from .stub import stub
from .tail import tail

__all__ = ["berrymq"]

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


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="berrymq-rpc", prog_name="berrymq")
def berrymq() -> None:
    """Messages and calls between processes, from a shell.

    ENDPOINT is where a node or server listens, such as tcp://127.0.0.1:5555.
    IDENTIFIER is what a message is about, such as job:done; * stands for a whole part.
    """


for each in (
    serve,
    send,
    tail,
    get,
    call,
    methods,
    stub,
    bridge,
    queues,
    keygen,
    authorize,
    revoke,
):
    berrymq.add_command(each)
