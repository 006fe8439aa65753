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


def sealed(
    error: Exception, value: Masked, *, name: str, provider: str, operation: str, resource: Resource
) -> Exception:
    """Return the error to raise instead, from outside the handler, so that nothing hangs on it unseen.

    Ours keeps its native cause, which loses its frames. Whatever shows the value anywhere in its chain is replaced by
    an error of the same class that stands alone; the secret's name does not count, where the value may be a part of it
    (``db/user/app`` is ``app``). An error that no table knows is a bug and keeps its frames.
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
    texts = " ".join(_texts(link)).replace(name, "")
    return any(spelling in texts for spelling in spellings)


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
    code, request_id = (
        "" if any(spelling in mark for spelling in spellings) else mark for mark in (ours.code, ours.request_id or "")
    )
    return type(ours)(
        f"the message of {type(error.__cause__ or error).__name__} is withheld, because it shows the value",
        provider=provider,
        operation=operation,
        resource=resource,
        code=code,
        request_id=request_id or None,
        retry_after=ours.retry_after,
    )
