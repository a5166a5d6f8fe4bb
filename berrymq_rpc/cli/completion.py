"""``berrymq completion``: the script by which a shell completes commands, options and values.

What is completed must be cheap, as it is asked at each press of a key: no network, and one folder.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from .failure import Failed
from .output import Output

__all__ = ["completes_files", "completes_names", "completion"]

#: The name of the program that is completed, and the variable by which the script asks it.
PROGRAM, VARIABLE = "berrymq", "_BERRYMQ_COMPLETE"

SHELLS = ("bash", "zsh", "fish")

#: Files of a folder that are offered.
MAX_OFFERED = 200

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Write the script that has a shell complete commands.

    For bash, put this into ~/.bashrc: eval "$(berrymq completion bash)". For zsh the same with zsh
    into ~/.zshrc, after compinit. For fish: berrymq completion fish >
    ~/.config/fish/completions/berrymq.fish
    """
    group = click.get_current_context().find_root().command
    found = get_completion_class(shell)
    if found is None:
        raise Failed(f"this version of click knows no completion for {shell}")
    # Not `source()`, which asks the bash that it finds for its version; it may be another one.
    made = found(group, {}, PROGRAM, VARIABLE)
    Output(sys.stdout).text(made.source_template % made.source_vars())


def completes_files(suffix: str = "") -> Complete:
    """Complete the name of a file.

    Args:
        suffix: of the files that are meant. Where the folder has none, all are offered.
    """

    def complete(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found = _files(incomplete, suffix) if suffix else []
        # The shell itself knows files best.
        return [CompletionItem(each) for each in found] or [CompletionItem(incomplete, type="file")]

    return complete


def completes_names(folder: str, suffix: str) -> Complete:
    """Complete the name that a file in a folder stands for.

    Args:
        folder: the parameter with the folder.
        suffix: of the files.
    """

    def complete(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        place = context.params.get(folder)
        found = [] if place is None else _files(os.path.join(place, incomplete), suffix)
        return [CompletionItem(Path(each).name.removesuffix(suffix)) for each in found]

    return complete


def _files(incomplete: str, suffix: str) -> list[str]:
    """The files that begin and end like this, as the user has written their folder."""
    folder, begin = os.path.split(incomplete)
    try:
        names = sorted(os.listdir(os.path.expanduser(folder) or "."))
    except OSError:
        return []
    fitting = [each for each in names if each.startswith(begin) and each.endswith(suffix)]
    shown = [each for each in fitting if begin.startswith(".") or not each.startswith(".")]
    return [os.path.join(folder, each) for each in shown[:MAX_OFFERED]]
