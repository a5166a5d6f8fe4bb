"""Keys: make a pair, authorize a public key and revoke it; the options of the other commands."""

import os
import shutil
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from ..security import CurveClient, CurveServer, KeyPair, Security
from ..security.key_pair import PUBLIC_SUFFIX, SECRET_SUFFIX, checked_name, public_key, read_public
from .arguments import json_option
from .completion import completes_files, completes_names
from .failure import Failed
from .output import Output

__all__ = [
    "authorize",
    "bridge_keys",
    "client_keys",
    "in_options",
    "key_files",
    "keygen",
    "revoke",
    "server_keys",
    "without_keys",
]


# -- commands ----------------------------------------------------------------------------------


@click.command()
@click.argument("name")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Where to write the files; made where it is missing.  [default: this folder]",
)
@json_option("Write the public key and the files as one line of JSON.")
def keygen(name: str, folder: Path, as_json: bool) -> None:
    """Make a key pair.

    NAME.key is to be given away, NAME.key_secret to be kept: only its owner can read it. Keys that
    are there are never replaced.
    """
    pair = KeyPair.generate()
    try:
        secret = pair.save(folder, name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="NAME") from error
    except OSError as error:
        raise Failed(f"no key was made: {error}") from error
    output = Output(sys.stdout)
    public_file = secret.with_suffix(PUBLIC_SUFFIX)
    if as_json:
        files = {"public_file": str(public_file), "secret_file": str(secret)}
        output.json({"event": "generated", "name": name, "public": pair.public, **files})
        return
    output.line("Public key: ", (pair.public, "bold green"))
    output.line(f"{public_file}: give it to those who are to trust {name}.")
    output.line(f"{secret}: keep it secret.")


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument(
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    shell_complete=completes_files(PUBLIC_SUFFIX),
)
@json_option("Write what was done as one line of JSON.")
def authorize(folder: Path, file: Path, as_json: bool) -> None:
    """Authorize a public key.

    FILE is copied into FOLDER, which a server watches. Its name is the name of the user: alice.key
    is the key of alice.
    """
    if file.suffix == SECRET_SUFFIX:
        raise click.UsageError(
            f"{file} is a secret key, which stays with its owner: give {file.stem}{PUBLIC_SUFFIX}"
        )
    if file.suffix != PUBLIC_SUFFIX:
        raise click.UsageError(f"{file} is not named NAME{PUBLIC_SUFFIX}")
    try:
        key = read_public(file, or_secret=False)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = folder / file.name
        if target.exists() and read_public(target) != key:
            raise Failed(
                f"{target} is another key: revoke it first (berrymq revoke {folder} {file.stem})"
            )
        if others := [name for name in _names_of(key, folder) if name != file.stem]:
            raise Failed(
                f"this key is authorized already, as {others[0]}: revoke it first (berrymq revoke "
                f"{folder} {others[0]})"
            )
        _copy(file, target)
    except (OSError, ValueError) as error:
        raise Failed(f"the key was not authorized: {error}") from error
    output = Output(sys.stdout, as_json=as_json)
    text = f"{file.stem} is authorized: {target}"
    output.event("authorized", text, name=file.stem, file=str(target))


def _copy(file: Path, target: Path) -> None:
    """Copy a file so that a server never reads half of it, and can read it as another user."""
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(file, part)
    # It is no secret: who may look into the folder is for the folder's mode to say.
    part.chmod(0o644)
    os.replace(part, target)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("name", shell_complete=completes_names("folder", PUBLIC_SUFFIX))
@json_option("Write what was done as one line of JSON.")
def revoke(folder: Path, name: str, as_json: bool) -> None:
    """Revoke the key of a user.

    It is taken out of FOLDER, and so refused; its connections are cut.
    """
    name = name.removesuffix(PUBLIC_SUFFIX)
    try:
        target = folder / f"{checked_name(name)}{PUBLIC_SUFFIX}"
        key = _key_in(target)
        target.unlink()
        others = [] if key is None else _names_of(key, folder)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="NAME") from error
    except FileNotFoundError:
        names = ", ".join(sorted(file.stem for file in folder.glob(f"*{PUBLIC_SUFFIX}")))
        raise Failed(f"{folder} has no key of {name}. It has: {names or 'none'}") from None
    except OSError as error:
        raise Failed(f"the key was not revoked: {error}") from error
    if others:
        raise Failed(
            f"{target} was removed, but its key is authorized under another name as well: revoke "
            f"{', '.join(others)}"
        )
    output = Output(sys.stdout, as_json=as_json)
    text = f"{name} is not authorized any more."
    output.event("revoked", text, name=name, file=str(target))


def _names_of(key: str, folder: Path) -> list[str]:
    """The names under which a key lies in a folder."""
    files = sorted(folder.glob(f"*{PUBLIC_SUFFIX}"))
    return [file.stem for file in files if not file.name.startswith(".") and _key_in(file) == key]


def _key_in(file: Path) -> str | None:
    try:
        return read_public(file)
    except (OSError, ValueError):
        # It authorizes no key.
        return None


# -- options -----------------------------------------------------------------------------------

KEY_VARIABLE = "BERRYMQ_KEY"

_key_option = click.option(
    "--key",
    metavar="FILE",
    envvar=KEY_VARIABLE,
    shell_complete=completes_files(SECRET_SUFFIX),
    help="This side's secret key, as made by keygen; or the variable BERRYMQ_KEY.",
)


_server_key_option = click.option(
    "--server-key",
    metavar="KEY",
    envvar="BERRYMQ_SERVER_KEY",
    shell_complete=completes_files(PUBLIC_SUFFIX),
    help="The server's public key or its file; or the variable BERRYMQ_SERVER_KEY. No other "
    "server is talked to.",
)
_authorized_option = click.option(
    "--authorized",
    metavar="FOLDER",
    type=click.Path(file_okay=False),
    help="The folder with the keys of those who may connect. It is watched.",
)


def in_options(error: ValueError) -> str:
    """What is wrong with an address that others reach, in the words of the command's options."""
    return (
        str(error)
        .replace("ive security=", "ive --key and --authorized")
        .replace("pass insecure=True", "give --insecure")
        .replace("with security=", "with --key and --authorized")
        .replace("announce= tells", "--announce tells")
        .replace("announce must be", "--announce must be")
    )


def client_keys(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--key`` and ``--server-key``; the command gets both as `security`."""

    @wraps(function)
    def command(*, key: str | None, server_key: str | None, **options: Any) -> Any:
        return function(**options, security=_client_security(key, server_key))

    return _key_option(_server_key_option(command))


def key_files(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--key`` and ``--server-key``; the command gets both as they are, unread."""
    return _key_option(_server_key_option(function))


def server_keys(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--key``, once or more, and ``--authorized``; the command gets all as `security`."""

    @wraps(function)
    def command(*, keys: tuple[str, ...], authorized: str | None, **options: Any) -> Any:
        if not keys and (file := os.environ.get(KEY_VARIABLE)):
            # click would split the name at its spaces, as the option may be given several times.
            keys = (file,)
        return function(**options, security=_server_security(keys, authorized))

    option = click.option(
        "--key",
        "keys",
        metavar="FILE",
        multiple=True,
        shell_complete=completes_files(SECRET_SUFFIX),
        help="This side's secret key, as made by keygen; or the variable BERRYMQ_KEY. While a new "
        "one replaces an old one, each with a --bind.",
    )
    return option(_authorized_option(command))


def bridge_keys(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add all three; the command gets `security` to connect, and `listener_security` to listen."""

    @wraps(function)
    def command(
        *, key: str | None, server_key: str | None, authorized: str | None, **options: Any
    ) -> Any:
        only_listens = authorized is not None and server_key is None
        return function(
            **options,
            security=None if only_listens else _client_security(key, server_key),
            listener_security=(
                None if authorized is None else _server_security((key,) if key else (), authorized)
            ),
        )

    return _key_option(_server_key_option(_authorized_option(command)))


def without_keys(security: Security | None) -> None:
    """See that no keys are given for a cluster.

    Raises:
        click.UsageError: they are.
    """
    if security is not None:
        raise click.UsageError(
            "--key and --server-key are for tcp:// and ipc://. At NATS: a user and a password "
            "before the @ of the address, --credentials or --nkey"
        )


def _client_security(key: str | None, server_key: str | None) -> Security | None:
    if server_key is None:
        if key is None:
            return None
        raise click.UsageError(
            "--key wants --server-key: the public key of the server, or its file"
        )
    try:
        return CurveClient(key, server=public_key(server_key))
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error


def _server_security(keys: tuple[str, ...], authorized: str | None) -> Security | None:
    if authorized is None:
        if not keys:
            return None
        raise click.UsageError("--key wants --authorized: the folder of keys that may connect")
    if not keys:
        raise click.UsageError("--authorized wants --key: this server's own secret key")
    try:
        return CurveServer(keys, authorized)
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error
