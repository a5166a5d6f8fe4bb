"""The page on the command documents all of it, and nothing else."""

import re

import click
import pytest

from berrymq_rpc.cli.command import COMMANDS, EXIT_CODES, berrymq

from .conftest import ROOT

PAGE = (ROOT / "docs" / "reference" / "command.rst").read_text(encoding="utf-8")
ENTRIES = dict(
    re.findall(r"^``berrymq (\w+)[^\n]*``\n((?:    [^\n]*\n|\n)+)", PAGE, flags=re.MULTILINE)
)


def test_each_command_has_an_entry() -> None:
    assert set(ENTRIES) == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_option_is_documented(name: str) -> None:
    command = berrymq.get_command(click.Context(berrymq), name)
    assert command is not None
    options = {
        option
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    others = {
        option
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.secondary_opts
    }
    # These are documented once for all commands; --hello is for `make run`.
    common = {"--wait", "--key", "--server-key", "--hello", "--namespace", "--insecure", "--json"}
    common |= {"--log-json", "--credentials", "--nkey", "--nats-ca", "--nats-certificate"}
    common |= {"--nats-certificate-key"}
    (usage,) = re.findall(rf"^``berrymq {name}[^\n]*``$", PAGE, re.MULTILINE)
    documented = set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", usage + ENTRIES[name]))
    assert documented - common - others == options - common


def test_exit_codes() -> None:
    documented = re.findall(r"^(\d+) +[A-Z]", PAGE, re.MULTILINE)
    assert documented == re.findall(r"^  (\d+) ", EXIT_CODES, re.MULTILINE)
