"""What fails while a value is written, made safe to show.

A native error may echo the value in its text, and the frames that it came through hold the value in their variables,
which error reporters and test runners print.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

from shiftable.errors import OperationError, Resource
from shiftable.masking import Masked

__all__ = ["sealed"]

_ENOUGH = 24
"""Characters of the value's beginning that give it away: messages are often cut short."""

_UNLIKELY = 8
"""A spelling of so many characters stands in no message by chance."""

_WORD = 3
"""A spelling of so many characters, that stands alone, is hardly a word of the message."""

_QUOTES = "\"'`"


def sealed(
    error: Exception, value: Masked, *, name: str, provider: str, operation: str, resource: Resource
) -> Exception:
    """Return the error to raise instead, from outside the handler, so that nothing hangs on it unseen.

    Ours keeps its native cause, which loses its frames. Whatever shows the value anywhere in its chain is replaced by
    an error of the same class that stands alone; the secret's name does not count, where the value may be a part of it
    (``db/user/app`` is ``app``). An error that no table knows is a bug and keeps its frames.

    A short value stands in many messages by chance: ``e`` in nearly all. Withholding them all would tell nobody
    anything, and telling that they are withheld would tell the value. A spelling of fewer than 8 characters therefore
    counts only where it stands alone (``password is hunter``, not ``hunters``), one of fewer than 3 only between
    quotes, as messages and Python's own texts show values.
    """
    chain = tuple(_chain(error))
    spellings = _spellings(value)
    if any(_shows(link, spellings, name) for link in chain):
        return _alone(error, spellings, provider=provider, operation=operation, resource=resource)
    if isinstance(error, OperationError):
        for link in chain[1:]:
            link.__traceback__ = None
    return error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and all that hangs on it, each once."""
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        link = waiting.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += [near for near in (link.__cause__, link.__context__) if near is not None]
        waiting += link.exceptions if isinstance(link, BaseExceptionGroup) else ()


def _spellings(value: Masked) -> frozenset[str]:
    """Return how the beginning of the value looks in the encodings that messages use."""
    raw = value.reveal_bytes()
    forms = [repr(raw)[2:-1], base64.b64encode(raw).decode().rstrip("="), raw.hex(), quote(raw), quote_plus(raw)]
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        pass
    else:
        forms += [text, repr(text)[1:-1], json.dumps(text)[1:-1]]
    return frozenset(form[:_ENOUGH] for form in forms)


def _shows(link: BaseException, spellings: frozenset[str], name: str) -> bool:
    return any(_tells(text.replace(name, ""), spellings) for text in _texts(link))


def _tells(text: str, spellings: frozenset[str]) -> bool:
    return any(_stands(spelling, text) for spelling in spellings)


def _stands(spelling: str, text: str) -> bool:
    """Tell whether a spelling is in a text, and not by chance. No regular expression: ``re`` keeps them, and so it."""
    if len(spelling) >= _UNLIKELY or text == spelling:
        return spelling in text
    at = text.find(spelling)
    while at >= 0:
        before, after = text[at - 1 : at], text[at + len(spelling) :][:1]
        if len(spelling) < _WORD:
            stands = bool(before and after) and before in _QUOTES and after in _QUOTES
        else:
            stands = not (_in_word(before) or _in_word(after))
        if stands:
            return True
        at = text.find(spelling, at + 1)
    return False


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _texts(link: BaseException) -> tuple[str, ...]:
    """Return what an error tells; of ours without the key, which is in every one of them."""
    if isinstance(link, OperationError):
        return link.message, link.code, link.request_id or "", *getattr(link, "__notes__", ())
    return str(link), repr(link), repr(link.args), repr(vars(link))


def _alone(
    error: Exception, spellings: frozenset[str], *, provider: str, operation: str, resource: Resource
) -> OperationError:
    """Make an error of the same class without anything that shows the value, and without a chain."""
    ours = error if isinstance(error, OperationError) else OperationError("")
    code, request_id = ("" if _tells(mark, spellings) else mark for mark in (ours.code, ours.request_id or ""))
    return type(ours)(
        f"the message of {type(error.__cause__ or error).__name__} is withheld, because it shows the value",
        provider=provider,
        operation=operation,
        resource=resource,
        code=code,
        request_id=request_id or None,
        retry_after=ours.retry_after,
    )
