"""What the library logs, on standard error."""

import logging

from .output import Output

__all__ = ["show_log"]


class OutputHandler(logging.Handler):
    """Writes warnings and errors as lines."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            style = "red" if record.levelno >= logging.ERROR else "yellow"
            self._output.line((f"{record.levelname.lower()}: {record.getMessage()}", style))
        except Exception:
            self.handleError(record)


def show_log(output: Output, *, lines_of_nodes: bool = True) -> None:
    """Write what the library logs from now on.

    Args:
        output: where.
        lines_of_nodes: whether what it says of connections to other nodes is written too; a
            command that says it itself does not want it twice.
    """
    logger = logging.getLogger("berrymq_rpc")
    logger.addHandler(OutputHandler(output))
    logger.propagate = False
    if not lines_of_nodes:
        logging.getLogger("berrymq_rpc.exchange").setLevel(logging.CRITICAL)
