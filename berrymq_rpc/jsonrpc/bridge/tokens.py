"""The tokens of a listener: which are valid, and whose they are."""

import hmac
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from ...common.awaitable import discard, is_awaitable
from ...runtime.log import Log
from ...security.authorization import Answer

__all__ = ["MAX_SHOWN", "Token", "Tokens"]

logger = Log("berrymq_rpc.security")

#: What the listeners take: a token, several, users by their tokens, or a function of the token that
#: answers as those of `CurveServer` do.
Token: TypeAlias = str | Iterable[str] | Mapping[str, str] | Callable[[str], Answer]

#: Tokens that one request may show, so that none is a dictionary of guesses.
MAX_SHOWN = 2


class Tokens:
    """Answers whose a token is.

    Args:
        token: as a program gave it; ``None`` where none is wanted.

    Raises:
        TypeError: it is nothing of the kind.
        ValueError: it is empty, or a token or user is.
    """

    def __init__(self, token: Token | None) -> None:
        self._function: Callable[[str], Any] | None = None
        self._known: list[tuple[bytes, str | bool]] = []
        self._is_wanted = token is not None
        if callable(token):
            if inspect.iscoroutinefunction(token):
                raise TypeError("token: the function must be plain, not async")
            self._function = token
        elif token is not None:
            self._know(_users_of(token))

    def _know(self, users: Mapping[Any, Any]) -> None:
        if not users:
            raise ValueError("token: there must be one at least")
        for token, user in users.items():
            if not isinstance(token, str) or not (user is True or isinstance(user, str)):
                # Without the values: they may be tokens.
                raise TypeError("token: tokens and the names of users are text")
            if not token or not user:
                raise ValueError("the token must not be empty, nor the name of its user")
            self._known.append((token.encode("utf-8"), user))
            if not token.isascii():
                # Some clients still write what is not ASCII in Latin-1.
                self._known.append((token.encode("latin-1", "replace"), user))

    def __bool__(self) -> bool:
        return self._is_wanted

    def user_of(self, shown: Sequence[bytes]) -> str | bool:
        """Whether one of the tokens that a peer shows is valid, or the name of its user.

        Args:
            shown: those tokens; the first `MAX_SHOWN` count.
        """
        found: str | bool = False
        for each in shown[:MAX_SHOWN]:
            found = found or self._user_of(each)
        return found

    def _user_of(self, shown: bytes) -> str | bool:
        if self._function is not None:
            return self._asked(self._function, shown)
        found: str | bool = False
        # In a time that tells nothing about the tokens: all are compared, each to its end.
        for token, user in self._known:
            if hmac.compare_digest(shown, token):
                found = user
        return found

    def _asked(self, function: Callable[[str], Any], shown: bytes) -> str | bool:
        try:
            text = shown.decode("utf-8")
        except UnicodeDecodeError:
            text = shown.decode("latin-1")
        try:
            answer = function(text)
        except Exception as error:
            # Without its text, which may quote the token.
            logger.error("token=%r raised %s: the token is refused", function, type(error).__name__)
            return False
        if answer is True or (isinstance(answer, str) and answer):
            return answer
        if is_awaitable(answer):
            discard(answer)
            logger.error("token=%r must not be async: the token is refused", function)
        return False


def _users_of(token: object) -> Mapping[Any, Any]:
    if isinstance(token, str):
        return {token: True}
    if isinstance(token, Mapping):
        return token
    if isinstance(token, Iterable) and not isinstance(token, bytes | bytearray):
        return dict.fromkeys(token, True)
    raise TypeError(
        "token is text, several tokens, users by their tokens, or a function of the token"
    )
