"""Patterns on keys: ``*.jpg``, ``/logs/**/*.gz``. The rules stand in ``Glob`` and in the how-to page of moves."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Final

import attrs

from shiftable.errors import InvalidArgument

__all__ = ["Glob"]

_MOST_ALTERNATIVES = 1_000
_QUICK_RUNS = 2
"""The places that ``re`` tries for them are at most the key's length, squared."""
_ALPHABET = 4_096


@attrs.frozen
class _Class:
    """One character: ``[a-z]``, or all but those. Never a ``/``."""

    ranges: tuple[tuple[str, str], ...] = ()
    negated: bool = True

    def has(self, char: str) -> bool:
        """Tell whether a character is one of them."""
        return char != "/" and any(low <= char <= high for low, high in self.ranges) != self.negated

    @property
    def regex(self) -> str:
        """Return the class for ``re``."""
        spans = "".join(f"{re.escape(low)}-{re.escape(high)}" for low, high in self.ranges)
        if self.negated:
            return f"[^/{spans}]"
        return f"(?!/)[{spans}]"


@attrs.frozen
class _Run:
    """Any number of characters, none too: of all there are, or of all but ``/``."""

    slashes: bool


_ANY: Final = _Class()
_Token = str | _Class | _Run


@attrs.frozen
class Glob:
    """A pattern on whole keys.

    - ``*`` stands for any characters but ``/``, ``**`` for any characters, each also for none;
    - ``?`` stands for one character but ``/``, ``[abc]``, ``[a-z]`` for one of those, ``[!abc]`` or ``[^abc]`` for one
      that is none of those and no ``/``;
    - ``{a,b*}`` stands for either; alternatives may be empty and hold all of this, themselves too;
    - a backslash takes the next character for itself; everything else stands for itself;
    - a pattern that begins with ``/`` begins where the key begins (that ``/`` is no part of the key); any other also
      begins behind every ``/`` of the key;
    - a pattern that ends with ``/`` goes on with ``**``: all that is below.

    Characters are code points, compared as they are: no case folding, no normal forms, no locale. A match takes a time
    that grows with the key's length, at worst its square for the plainest patterns, never more.

    Raises:
        InvalidArgument: it is no pattern, and where it goes wrong.
    """

    pattern: str
    _matches: Callable[[str], bool] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        """Compile it."""
        anchored = self.pattern.startswith("/")
        body = self.pattern[1:] if anchored else self.pattern
        found = _Parser(self.pattern, len(self.pattern) - len(body)).parsed()
        object.__setattr__(self, "_matches", _compiled(found, anchored=anchored))

    def matches(self, key: str) -> bool:
        """Tell whether the whole key is what the pattern says."""
        return self._matches(key)

    def __reduce__(self) -> tuple[type[Glob], tuple[str]]:
        return Glob, (self.pattern,)


class _Parser:
    """Reads a pattern into sequences of tokens, one for each way through its braces."""

    def __init__(self, pattern: str, start: int) -> None:
        self._text = pattern
        self._at = start

    def parsed(self) -> list[tuple[_Token, ...]]:
        if self._at == len(self._text):
            raise self._wrong("it is empty")
        found = self._sequence(nested=False)
        if self._ends_below():
            found = [(*tokens, _Run(slashes=True)) for tokens in found]
        return found

    def _ends_below(self) -> bool:
        """Tell whether it ends with a ``/``, of which a backslash takes nothing away: it means itself anyway."""
        return self._text.endswith("/")

    def _sequence(self, *, nested: bool) -> list[tuple[_Token, ...]]:
        """Read up to the end, in braces up to a comma or their end."""
        found: list[tuple[_Token, ...]] = [()]
        while self._at < len(self._text):
            char = self._text[self._at]
            if nested and char in ",}":
                break
            ways = self._braces() if char == "{" else [(self._token(),)]
            found = [(*before, *after) for before, after in itertools.product(found, ways)]
            if len(found) > _MOST_ALTERNATIVES:
                raise self._wrong(f"its braces make more than {_MOST_ALTERNATIVES:,} alternatives")
        return found

    def _braces(self) -> list[tuple[_Token, ...]]:
        opened = self._at
        found: list[tuple[_Token, ...]] = []
        while self._at == opened or self._text[self._at] == ",":
            self._at += 1
            found += self._sequence(nested=True)
            if self._at == len(self._text):
                raise self._wrong("a { is not closed", opened)
        self._at += 1
        return found

    def _token(self) -> _Token:
        char = self._text[self._at]
        if char == "*":
            return self._run()
        if char == "[":
            return self._class()
        if char == "\\":
            return self._escaped()
        self._at += 1
        return _ANY if char == "?" else char

    def _run(self) -> _Run:
        begun = self._at
        while self._text.startswith("*", self._at):
            self._at += 1
        return _Run(slashes=self._at - begun > 1)

    def _escaped(self) -> str:
        if self._at + 1 == len(self._text):
            raise self._wrong("nothing follows the backslash")
        self._at += 2
        return self._text[self._at - 1]

    def _class(self) -> _Class:
        opened = self._at
        self._at += 1
        negated = self._text.startswith(("!", "^"), self._at)
        self._at += negated
        ranges: list[tuple[str, str]] = []
        while not ranges or not self._text.startswith("]", self._at):
            low = high = self._member(opened)
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                high = self._member(opened)
            if low > high:
                raise self._wrong(f"the range {low}-{high} is backwards", opened)
            ranges.append((low, high))
        self._at += 1
        return _Class(tuple(ranges), negated)

    def _member(self, opened: int) -> str:
        if self._at >= len(self._text):
            raise self._wrong("a [ is not closed", opened)
        if self._text[self._at] == "\\":
            return self._escaped()
        self._at += 1
        return self._text[self._at - 1]

    def _wrong(self, why: str, at: int | None = None) -> InvalidArgument:
        place = (self._at if at is None else at) + 1
        return InvalidArgument(
            f"the pattern {self._text!r} cannot be used: {why} (character {place});"
            " a backslash takes a special character for itself"
        )


def _compiled(found: list[tuple[_Token, ...]], *, anchored: bool) -> Callable[[str], bool]:
    """Return the quickest matcher that no key can stall: ``re`` tries the places of runs one against the other."""
    if all(_is_quick(tokens, anchored=anchored) for tokens in found):
        ways = "|".join(_regex(tokens) for tokens in found)
        expression = re.compile(("" if anchored else "(?:.*/)?") + f"(?:{ways})", re.DOTALL)
        return lambda key: expression.fullmatch(key) is not None
    automata = [_Automaton(tokens, anchored=anchored) for tokens in found]
    return lambda key: any(automaton.matches(key) for automaton in automata)


def _is_quick(tokens: tuple[_Token, ...], *, anchored: bool) -> bool:
    runs = [token for token in tokens if isinstance(token, _Run)]
    return len(runs) + (not anchored) <= _QUICK_RUNS


def _regex(tokens: tuple[_Token, ...]) -> str:
    return "".join(_pieces(tokens))


def _pieces(tokens: tuple[_Token, ...]) -> Iterator[str]:
    for token in tokens:
        if isinstance(token, str):
            yield re.escape(token)
        elif isinstance(token, _Run):
            yield ".*" if token.slashes else "[^/]*"
        else:
            yield token.regex


class _Automaton:
    """All states at once as the bits of one number; bit n: n tokens that are no runs have matched."""

    def __init__(self, tokens: tuple[_Token, ...], *, anchored: bool) -> None:
        self._anchored = anchored
        self._singles: list[str | _Class] = []
        self._stay = 0
        self._stay_but_slash = 0
        for token in tokens:
            here = 1 << len(self._singles)
            if not isinstance(token, _Run):
                self._singles.append(token)
            elif token.slashes:
                self._stay |= here
            else:
                self._stay_but_slash |= here
        self._steps: dict[str, int] = {}

    def matches(self, key: str) -> bool:
        """Tell whether the whole key gets to the last state."""
        states = 1
        for char in key:
            step = self._steps.get(char)
            if step is None:
                step = self._step(char)
            stay = self._stay if char == "/" else self._stay | self._stay_but_slash
            states = (states & step) << 1 | states & stay
            if char == "/" and not self._anchored:
                states |= 1
        return bool(states >> len(self._singles) & 1)

    def _step(self, char: str) -> int:
        """Return the states in which a character goes one on; remember it for the alphabets that people use."""
        found = 0
        for number, single in enumerate(self._singles):
            if single == char if isinstance(single, str) else single.has(char):
                found |= 1 << number
        if len(self._steps) < _ALPHABET:
            self._steps[char] = found
        return found
