"""Text of peers and programs as it may be shown anywhere: short, and all of it visible."""

__all__ = ["MAX_TEXT", "plain_text"]

#: Characters of one text. Peers choose identifiers, names of methods and of users.
MAX_TEXT = 200


def plain_text(text: object) -> str:
    """A text of at most `MAX_TEXT` characters in which all can be seen.

    Control characters, those that change the direction of writing, and halves of surrogate pairs
    are escaped as in Python's source.
    """
    shown = str(text)
    is_long = len(shown) > MAX_TEXT
    shown = shown[:MAX_TEXT]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)
        is_long = is_long or len(shown) > MAX_TEXT
    return f"{shown[: MAX_TEXT - 3]}..." if is_long else shown
