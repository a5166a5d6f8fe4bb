"""Key pairs for CURVE, and the certificate files of ZeroMQ in which they are kept."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

__all__ = ["PUBLIC_SUFFIX", "SECRET_SUFFIX", "KeyPair", "checked_key", "public_key", "read_public"]

PUBLIC_SUFFIX = ".key"
SECRET_SUFFIX = ".key_secret"

#: Characters of a key as text.
KEY_LENGTH = 40

#: Bytes of a certificate file at most: with its comments it has some 400.
_MAX_FILE = 64 << 10

#: ZeroMQ's RFC 32.
_Z85_DIGITS = (
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
)
_Z85 = frozenset(_Z85_DIGITS)

_PUBLIC_TEXT = """\
#   ZeroMQ CURVE public certificate: give this file to those who are to trust its owner.

metadata
curve
    public-key = "{public}"
"""

_SECRET_TEXT = """\
#   ZeroMQ CURVE **secret** certificate: keep this file to yourself.

metadata
curve
    public-key = "{public}"
    secret-key = "{secret}"
"""


class KeyPair:
    """A key that others know this side by, and the secret that proves it.

    The texts are Z85, 40 characters each, as ZeroMQ writes them. The secret is in no ``repr`` and
    no error.

    Args:
        public: the public key.
        secret: the secret key.

    Raises:
        TypeError, ValueError: one of them is not a key, or they are not a pair.
    """

    __slots__ = ("public", "secret")

    def __init__(self, public: str, secret: str) -> None:
        self.public = checked_key(public, "the public key")
        self.secret = checked_key(secret, "the secret key", shown=False)
        if _public_of(self.secret) != self.public:
            raise ValueError("the public key and the secret key are not a pair")

    @classmethod
    def generate(cls) -> "KeyPair":
        """Make a new pair."""
        import zmq

        public, secret = zmq.curve_keypair()
        return cls(public.decode("ascii"), secret.decode("ascii"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "KeyPair":
        """Read a pair from its secret file, ``NAME.key_secret``.

        Args:
            path: the file; the name of its public file, ``NAME.key``, does as well where both lie
                in one folder.

        Raises:
            OSError: it cannot be read.
            PermissionError: users other than its owner may read it.
            ValueError: it is not a secret certificate of ZeroMQ.
        """
        file = Path(path)
        if file.suffix == PUBLIC_SUFFIX:
            file = file.with_suffix(SECRET_SUFFIX)
        try:
            opened = file.open("rb")
        except FileNotFoundError:
            raise FileNotFoundError(
                errno.ENOENT,
                "no such file of keys: make one with KeyPair.generate().save(...) or "
                "berrymq keygen",
                str(file),
            ) from None
        with opened:
            if os.name == "posix":
                mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
                if mode & 0o077:
                    raise PermissionError(
                        f"{file} holds a secret key, and others may read it (mode {mode:04o}): "
                        f"run chmod 600 {file}, and replace the key if somebody may have it"
                    )
            keys = _parse(opened.read(_MAX_FILE + 1), file)
        if "secret-key" not in keys:
            raise ValueError(f"{file} holds no secret key: give the file NAME{SECRET_SUFFIX}")
        secret = checked_key(keys["secret-key"], f"the secret key in {file}", shown=False)
        return cls(keys.get("public-key") or _public_of(secret), secret)

    @classmethod
    def from_environment(cls, name: str) -> "KeyPair":
        """Make the pair of a secret key that an environment variable holds, as containers do it.

        Args:
            name: the variable, such as ``"BERRYMQ_SECRET_KEY"``.

        Raises:
            ValueError: it is not set, or holds no key.
        """
        secret = os.environ.get(name, "").strip()
        if not secret:
            raise ValueError(f"the environment variable {name} is not set")
        checked_key(secret, f"the environment variable {name}", shown=False)
        return cls(_public_of(secret), secret)

    def save(self, folder: str | os.PathLike[str], name: str) -> Path:
        """Write ``NAME.key``, to be given away, and ``NAME.key_secret``, with mode 0600.

        Args:
            folder: made with mode 0700 where it is missing.
            name: who the key is for, such as ``"oven"``.

        Returns:
            The path of the secret file.

        Raises:
            FileExistsError: there is a key of that name: it is kept.
            OSError: the files cannot be written.
            ValueError: `name` cannot be the name of a file.
        """
        checked_name(name)
        place = Path(folder)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        public = place / f"{name}{PUBLIC_SUFFIX}"
        secret = place / f"{name}{SECRET_SUFFIX}"
        for file in (public, secret):
            if file.exists():
                raise FileExistsError(f"{file} exists: remove it first, or choose another name")
        # The secret first: a public key without its secret would be handed around in vain.
        _write(secret, _SECRET_TEXT.format(public=self.public, secret=self.secret), 0o600)
        _write(public, _PUBLIC_TEXT.format(public=self.public), 0o644)
        return secret

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyPair) and self.secret == other.secret

    def __hash__(self) -> int:
        return hash(self.public)

    def __reduce__(self) -> Any:
        raise TypeError("a KeyPair is not pickled: save it, and load it where it is needed")

    def __repr__(self) -> str:
        return f"<KeyPair {self.public}>"


def checked_key(key: object, what: str, *, shown: bool = True) -> str:
    """Return a key, checked: 40 characters of Z85 for 32 bytes.

    Args:
        shown: whether the error may show it: not where it may be a secret.

    Raises:
        TypeError, ValueError: it is not a key.
    """
    if isinstance(key, bytes):
        key = key.decode("ascii", "replace")
    if not isinstance(key, str):
        raise TypeError(f"{what}: a key is text of {KEY_LENGTH} characters, not {type(key)}")
    if len(key) == KEY_LENGTH and _Z85.issuperset(key) and _fits(key):
        return key
    text = f", not {key[:60]!r}" if shown else ""
    raise ValueError(f"{what}: a key is {KEY_LENGTH} characters of Z85{text}")


def checked_name(name: object) -> str:
    """Return the name of a key's owner, checked: it is the name of a file.

    Raises:
        TypeError, ValueError: it cannot be one.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a key is text, not {name!r}")
    if not name or name.startswith(".") or set(name) & set('/\\\0:"') or not name.isprintable():
        raise ValueError(f"{name!r} cannot be the name of a key: it is the name of a file")
    return name


def read_public(path: str | os.PathLike[str], *, or_secret: bool = True) -> str:
    """Read the public key in a certificate file of ZeroMQ, public or secret.

    Args:
        or_secret: whether the file may hold the secret key as well, whatever its name is.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no public key, or the secret key as well.
    """
    file = Path(path)
    with file.open("rb") as opened:
        keys = _parse(opened.read(_MAX_FILE + 1), file)
    if "public-key" not in keys:
        raise ValueError(f"{file} holds no public key")
    if "secret-key" in keys and not or_secret:
        raise ValueError(f"{file} holds a secret key, which stays with its owner")
    return checked_key(keys["public-key"], f"the public key in {file}")


def public_key(value: str | os.PathLike[str] | KeyPair) -> str:
    """The public key that a user gave: as text, by the file that holds it, or by a pair.

    Raises:
        OSError: the file cannot be read.
        TypeError, ValueError: it is not a key.
    """
    if isinstance(value, KeyPair):
        return value.public
    if isinstance(value, str) and len(value) == KEY_LENGTH and _Z85.issuperset(value):
        return checked_key(value, "the public key")
    if isinstance(value, str | os.PathLike):
        try:
            return read_public(value)
        except FileNotFoundError:
            raise FileNotFoundError(
                errno.ENOENT,
                f"no such file, and no public key, which has {KEY_LENGTH} characters",
                str(value),
            ) from None
    raise TypeError(f"a public key is text or the path of its file, not {value!r}")


def _fits(key: str) -> bool:
    """Whether each five characters of a key stand for four bytes: some stand for more."""
    return all(
        sum(_Z85_DIGITS.index(key[i + j]) * 85 ** (4 - j) for j in range(5)) < 2**32
        for i in range(0, KEY_LENGTH, 5)
    )


def _public_of(secret: str) -> str:
    import zmq

    public: bytes = zmq.curve_public(secret.encode("ascii"))
    return public.decode("ascii")


def _parse(data: bytes, file: Path) -> dict[str, str]:
    """The keys in the section ``curve`` of a file in ZeroMQ's property language (RFC 4)."""
    if len(data) > _MAX_FILE:
        raise ValueError(f"{file} is too long to be a certificate of ZeroMQ")
    keys: dict[str, str] = {}
    section = ""
    for line in data.decode("utf-8", "replace").splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if not line[0].isspace():
            section = text
        elif section == "curve":
            name, equals, value = text.partition("=")
            if equals:
                keys[name.strip()] = value.strip().strip("\"'")
    if not keys:
        raise ValueError(f"{file} is not a certificate of ZeroMQ: it has no section 'curve'")
    return keys


def _write(file: Path, text: str, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(file, flags, mode), "w", encoding="ascii") as opened:
        opened.write(text)
