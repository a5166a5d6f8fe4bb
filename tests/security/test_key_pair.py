"""Key pairs, and ZeroMQ's certificate files."""

import os
import pickle
import struct
from pathlib import Path

import pytest
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from berrymq_rpc.security import KeyPair
from berrymq_rpc.security.key_pair import checked_key, public_key, read_public


def test_a_new_pair_each_time() -> None:
    one, other = KeyPair.generate(), KeyPair.generate()
    assert one != other
    assert one == KeyPair(one.public, one.secret)
    assert hash(one) == hash(KeyPair(one.public, one.secret))
    assert len(one.public) == len(one.secret) == 40
    # As pyzmq has them.
    assert KeyPair(one.public.encode(), one.secret.encode()) == one  # type: ignore[arg-type]


def test_the_secret_is_shown_nowhere(tmp_path: Path) -> None:
    pair = KeyPair.generate()
    assert pair.secret not in repr(pair)
    assert pair.public in repr(pair)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(pair)
    with pytest.raises(ValueError, match="not a pair") as not_a_pair:
        KeyPair(KeyPair.generate().public, pair.secret)
    assert pair.secret not in str(not_a_pair.value)
    with pytest.raises(ValueError, match="the secret key") as malformed:
        KeyPair(pair.public, pair.secret + "x")
    assert pair.secret not in str(malformed.value)


def test_saved_and_loaded(tmp_path: Path) -> None:
    pair = KeyPair.generate()
    folder = tmp_path / "new" / "keys"
    secret = pair.save(folder, "oven")
    assert secret == folder / "oven.key_secret"
    assert KeyPair.load(secret) == pair
    assert KeyPair.load(folder / "oven.key") == pair
    assert read_public(folder / "oven.key") == pair.public
    assert read_public(secret) == pair.public
    assert pair.secret not in (folder / "oven.key").read_text()


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_modes(tmp_path: Path) -> None:
    secret = KeyPair.generate().save(tmp_path / "keys", "oven")
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert secret.stat().st_mode & 0o777 == 0o600
    for mode in (0o640, 0o604, 0o660, 0o644):
        secret.chmod(mode)
        with pytest.raises(PermissionError, match="chmod 600"):
            KeyPair.load(secret)
    secret.chmod(0o400)
    KeyPair.load(secret)


def test_a_key_that_is_there_is_kept(tmp_path: Path) -> None:
    pair = KeyPair.generate()
    secret = pair.save(tmp_path, "oven")
    with pytest.raises(FileExistsError, match=r"oven\.key exists"):
        KeyPair.generate().save(tmp_path, "oven")
    (tmp_path / "oven.key").unlink()
    with pytest.raises(FileExistsError, match=r"oven\.key_secret exists"):
        KeyPair.generate().save(tmp_path, "oven")
    assert KeyPair.load(secret) == pair


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../oven", "a\\b", "a\0", "a\n", ".hidden"])
def test_names_that_are_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a key"):
        KeyPair.generate().save(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_zeromq_reads_ours_and_we_read_zeromqs(tmp_path: Path) -> None:
    pair = KeyPair.generate()
    secret = pair.save(tmp_path, "ours")
    read = zmq.auth.load_certificate(str(secret))
    assert read == (pair.public.encode(), pair.secret.encode())
    assert zmq.auth.load_certificate(str(tmp_path / "ours.key"))[0] == pair.public.encode()
    public_file, secret_file = zmq.auth.create_certificates(str(tmp_path), "theirs")
    os.chmod(secret_file, 0o600)
    theirs = KeyPair.load(secret_file)
    assert theirs.public == read_public(public_file)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "metadata\n",
        "curve\n",
        "metadata\n    public-key = 'x'\n",
        "curve\n    public-key = short\n",
        "\0" * 100,
        "#" * 70_000,
    ],
)
def test_files_that_are_no_certificate(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.key_secret"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ValueError, match=r"bad\.key_secret"):
        KeyPair.load(file)
    with pytest.raises(ValueError, match=r"bad\.key_secret"):
        read_public(file)


def test_a_public_file_holds_no_secret(tmp_path: Path) -> None:
    KeyPair.generate().save(tmp_path, "oven")
    public = tmp_path / "oven.key"
    copied = tmp_path / "only.key_secret"
    copied.write_bytes(public.read_bytes())
    copied.chmod(0o600)
    with pytest.raises(ValueError, match="holds no secret key"):
        KeyPair.load(copied)


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = KeyPair.generate()
    monkeypatch.setenv("OVEN_KEY", f"{pair.secret}\n")
    assert KeyPair.from_environment("OVEN_KEY") == pair
    monkeypatch.setenv("OVEN_KEY", f"{pair.secret}x")
    with pytest.raises(ValueError, match="OVEN_KEY") as malformed:
        KeyPair.from_environment("OVEN_KEY")
    assert pair.secret not in str(malformed.value)
    monkeypatch.delenv("OVEN_KEY")
    with pytest.raises(ValueError, match="OVEN_KEY is not set"):
        KeyPair.from_environment("OVEN_KEY")


def test_public_keys_as_users_give_them(tmp_path: Path) -> None:
    pair = KeyPair.generate()
    pair.save(tmp_path, "oven")
    assert public_key(pair) == public_key(pair.public) == pair.public
    assert public_key(tmp_path / "oven.key") == public_key(str(tmp_path / "oven.key"))
    with pytest.raises(TypeError, match="a public key is text"):
        public_key(5)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="nowhere"):
        public_key(tmp_path / "nowhere.key")


@given(st.binary(min_size=32, max_size=32))
def test_each_key_of_32_bytes(data: bytes) -> None:
    text = z85.encode(data).decode()
    assert checked_key(text, "it") == checked_key(text.encode(), "it") == text


@given(st.text(max_size=60) | st.text(z85.Z85CHARS.decode(), min_size=38, max_size=42))
def test_what_is_no_key(text: str) -> None:
    try:
        checked_key(text, "it")
    except ValueError:
        if len(text) == 40 and set(text) <= set(z85.Z85CHARS.decode()):
            # Five characters that stand for more than four bytes.
            with pytest.raises(struct.error):
                z85.decode(text)
    else:
        assert len(z85.decode(text)) == 32


@pytest.mark.parametrize("value", [None, 5, b"short", [], "x" * 41])
def test_values_that_are_no_key(value: object) -> None:
    with pytest.raises((TypeError, ValueError), match="the server's key: a key is"):
        checked_key(value, "the server's key")
