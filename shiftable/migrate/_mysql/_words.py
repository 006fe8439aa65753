"""Names and values as SQL has them, and the statements of ``SHOW CREATE`` taken apart."""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

__all__ = ["Statement", "account", "accounts_in", "literal", "quoted", "split", "stated", "with_definer"]

_NAME = r"`(?:[^`]|``)*`"
_FOREIGN = re.compile(rf"(?:CONSTRAINT {_NAME} )?FOREIGN KEY ", re.IGNORECASE)
_KEY = re.compile(rf"(?:UNIQUE |FULLTEXT |SPATIAL |VECTOR )?KEY ({_NAME}) ?\(", re.IGNORECASE)
_COUNTER = re.compile(r" AUTO_INCREMENT=(\d+)")
_DEFINER = re.compile(rf"DEFINER=({_NAME}(?:@{_NAME})?)")
_OPEN, _CLOSE = "(", ")"


def quoted(*names: str) -> str:
    """Return names as SQL has them."""
    return ".".join("`" + name.replace("`", "``") + "`" for name in names)


def literal(text: str) -> str:
    """Return a text as SQL has it, whatever the mode: no backslash means anything in it."""
    return "CONVERT(X'" + text.encode().hex() + "' USING utf8mb4)"


def account(user: str, host: str) -> str:
    """Return an account as SQL has it."""
    return f"{quoted(user)}@{quoted(host)}"


@attrs.frozen
class Statement:
    """``CREATE TABLE``, taken apart.

    Args:
        head: up to the parenthesis.
        parts: columns, primary key and checks, and keys that belong to the table from its beginning.
        keys: those that are made when its rows are there, by name.
        foreign: keys that need other tables.
        options: after the parenthesis; partitions, too.
        counter: the next number that the table gives; 0: none.
    """

    head: str
    parts: tuple[str, ...]
    keys: dict[str, str]
    foreign: tuple[str, ...]
    options: str
    counter: int

    def create(self, *, whole: bool = False) -> str:
        """Return the statement that makes the table, with all its keys if ``whole``."""
        parts = [*self.parts, *(self.keys.values() if whole else ())]
        counter = f" AUTO_INCREMENT={self.counter}" if self.counter else ""
        options = self.options
        if counter:
            # Before partitions, which end the statement.
            at = options.find("\n")
            options = options + counter if at < 0 else options[:at] + counter + options[at:]
        return f"{self.head}(\n  " + ",\n  ".join(parts) + f"\n){options}"


def stated(text: str, kept: frozenset[str] = frozenset()) -> Statement:
    """Take apart what ``SHOW CREATE TABLE`` says.

    Args:
        kept: keys that are made with the table.
    """
    begin = next(_outside(text, _OPEN))
    end = _closing(text, begin)
    parts: list[str] = []
    keys: dict[str, str] = {}
    foreign: list[str] = []
    every = list(split(text[begin + 1 : end]))
    named = [_KEY.match(part) for part in every]
    # Keys keep their order: what stands before one that is made with the table is made with it, too.
    first = 1 + max((at for at, key in enumerate(named) if key and _plain(key[1]) in kept), default=-1)
    for at, (part, key) in enumerate(zip(every, named, strict=True)):
        if _FOREIGN.match(part):
            foreign.append(part)
        elif key and at >= first:
            keys[_plain(key[1])] = part
        else:
            parts.append(part)
    options = text[end + 1 :]
    line = options.partition("\n")[0]
    counter = _COUNTER.search(_blanked(line))
    if counter:
        options = options[: counter.start()] + options[counter.end() :]
    return Statement(text[:begin], tuple(parts), keys, tuple(foreign), options, int(counter[1]) if counter else 0)


def split(body: str) -> Iterator[str]:
    """Yield what stands between the commas that are in no quotes and no parentheses."""
    depth, begin = 0, 0
    for at, sign in _signs(body):
        if sign == _OPEN:
            depth += 1
        elif sign == _CLOSE:
            depth -= 1
        elif sign == "," and depth == 0:
            yield body[begin:at].strip()
            begin = at + 1
    yield body[begin:].strip()


def with_definer(text: str, wanted: str) -> str:
    """Put another account in the place of the one that a statement runs as."""
    return _DEFINER.sub(lambda _: f"DEFINER={wanted}", text, count=1)


def accounts_in(text: str) -> str | None:
    """Return the account that a statement runs as, as SQL has it."""
    found = _DEFINER.search(text)
    return found[1] if found else None


def _signs(text: str) -> Iterator[tuple[int, str]]:
    """Yield parentheses and commas that are not quoted."""
    at = 0
    while at < len(text):
        sign = text[at]
        if sign in "`'\"":
            at = _after_quote(text, at)
            continue
        if sign in "(),":
            yield at, sign
        at += 1


def _after_quote(text: str, at: int) -> int:
    quote, at = text[at], at + 1
    while at < len(text):
        escaped = text[at] == "\\" and quote != "`"
        if escaped or text[at : at + 2] == quote * 2:
            at += 2
        elif text[at] == quote:
            return at + 1
        else:
            at += 1
    return at


def _outside(text: str, wanted: str) -> Iterator[int]:
    return (at for at, sign in _signs(text) if sign == wanted)


def _closing(text: str, begin: int) -> int:
    depth = 0
    for at, sign in _signs(text[begin:]):
        depth += {_OPEN: 1, _CLOSE: -1}.get(sign, 0)
        if depth == 0:
            return begin + at
    return len(text)


def _blanked(text: str) -> str:
    """Return a text of the same length whose quoted parts say nothing."""
    out, at = "", 0
    while at < len(text):
        if text[at] in "`'\"":
            end = _after_quote(text, at)
            out += "x" * (end - at)
            at = end
        else:
            out += text[at]
            at += 1
    return out


def _plain(name: str) -> str:
    return name[1:-1].replace("``", "`")
