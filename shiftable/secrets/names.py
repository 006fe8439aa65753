"""How a name becomes the id of a store whose ids may hold fewer characters, and how it comes back.

``shiftable.secrets._names`` is about the other thing: what is well formed as a name anywhere.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata

import attrs

__all__ = ["NAME_LABEL", "NameMap"]

NAME_LABEL = "shiftable-name"
"""The label of the store that holds an escaped name as it is; users neither see nor set it."""

_SEGMENT = "[a-z0-9]+(?:-[a-z0-9]+)*"
_PORTABLE = re.compile(f"{_SEGMENT}(?:/{_SEGMENT})*")
_HASH_LENGTH = 24
_HASH = f"[0-9a-f]{{{_HASH_LENGTH}}}"
_RAW = "~"
"""Before an id that looks escaped, of which nobody knows the name."""


@attrs.frozen
class NameMap:
    """Maps names to ids of one store, no two names to the same.

    * A portable name, ``[a-z0-9]+(-[a-z0-9]+)*`` joined by ``/``, only has its slashes replaced.
    * A name that is an id as it stands, and that no portable name becomes, stays as it is: so other tools' secrets have
      names here.
    * Every other name is escaped: what the store allows of it, a mark, and a hash. The name itself is kept beside it,
      under ``NAME_LABEL``. Without that it could not be told, and is shown as ``~`` and the id.

    >>> names = NameMap("__", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", longest=255)
    >>> names.native("shop/stripe-key"), names.native("DB_PASSWORD")
    ('shop__stripe-key', 'DB_PASSWORD')
    >>> names.native("shop/stripe.key")
    'shop__stripe-key___6b284bf0b63e472835c96b99'
    >>> names.name("shop__stripe-key"), names.name("shop__stripe-key___6b284bf0b63e472835c96b99", "shop/stripe.key")
    ('shop/stripe-key', 'shop/stripe.key')

    Args:
        separator: what a slash becomes: twice a character that is allowed.
        allowed: all characters of ids.
        longest: characters of an id.
        folds: ids that differ in case only are the same. Then names are in lower case, or escaped.
        beside: words for further ids that belong to a secret and are none themselves, see ``aside``.
    """

    separator: str
    allowed: str = attrs.field(repr=False)
    longest: int = attrs.field(kw_only=True)
    folds: bool = attrs.field(default=False, kw_only=True)
    beside: tuple[str, ...] = attrs.field(default=(), kw_only=True)

    def native(self, name: str) -> str:
        """Return the id of a name."""
        if _PORTABLE.fullmatch(name):
            return name.replace("/", self.separator)
        if name.startswith(_RAW) and self._is_id(name[1:]) and self._escaped.fullmatch(name[1:]):
            return name[1:]
        if self._is_id(name) and not (self._joined.fullmatch(name) or self._is_reserved(name)):
            return name
        return f"{self._readable(name)}{self._mark}{_hash(name)}"

    def name(self, native: str, original: str | None = None) -> str:
        """Return the name of an id, such that ``native`` of it is the id (in lower case, if the store folds).

        Args:
            original: what the store has under ``NAME_LABEL``. It counts only if it becomes that id: labels are copied.
        """
        native = self._folded(native)
        if original is not None and self.native(original) == native:
            return original
        if self._joined.fullmatch(native):
            return native.replace(self.separator, "/")
        return f"{_RAW}{native}" if self._is_reserved(native) else native

    def original(self, name: str) -> str | None:
        """Return what the store must have under ``NAME_LABEL`` with that name; ``None`` if the id alone tells it."""
        return None if self.name(self.native(name)) == name else name

    def is_certain(self, name: str) -> bool:
        """Tell whether the id of a name alone says that it is that name's: no label can make it another's."""
        return not self._is_reserved(self.native(name))

    def refusal(self, name: str) -> str | None:
        """Say why the store could not hold a secret of that name; ``None`` if it can."""
        if any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
            return "the name has control characters"
        length = len(self.native(name))
        if length > self.longest:
            return f"the name becomes an id of {length:,} characters; the limit is {self.longest:,}"
        return None

    def beginning(self, prefix: str) -> str:
        """Return what the ids of all names that begin with ``prefix`` begin with: others may, too."""
        return "" if prefix.startswith(_RAW) else self._readable(prefix)

    def aside(self, native: str, word: str) -> str:
        """Return a second id that belongs to an id: one that no name becomes, and that is no longer than allowed.

        >>> names = NameMap("--", "abcdefghijklmnopqrstuvwxyz0123456789-", longest=127, beside=("pending",))
        >>> names.aside("stripe-key", "pending")
        'stripe-key---pending'
        """
        native = self._folded(native)
        made = f"{native}{self._mark}{word}"
        if len(made) <= self.longest:
            return made
        tail = f"{self._mark}{_hash(native)}-{word}"
        return native[: self.longest - len(tail)] + tail

    def is_aside(self, native: str) -> bool:
        """Tell whether an id belongs to another one, and so is no secret of its own."""
        return self._aside.fullmatch(self._folded(native)) is not None

    @property
    def _mark(self) -> str:
        """One more than a separator: no two portable names are joined so."""
        return self.separator + self.separator[-1]

    @property
    def _joined(self) -> re.Pattern[str]:
        """What portable names become."""
        return _compiled(f"{_SEGMENT}(?:{re.escape(self.separator)}{_SEGMENT})*")

    @property
    def _escaped(self) -> re.Pattern[str]:
        return _compiled(f".*{re.escape(self._mark)}{_HASH}")

    @property
    def _aside(self) -> re.Pattern[str]:
        words = "|".join(re.escape(word) for word in self.beside) or "(?!)"
        return _compiled(f".*{re.escape(self._mark)}(?:{_HASH}-)?(?:{words})")

    def _is_reserved(self, native: str) -> bool:
        return bool(self._escaped.fullmatch(native) or self._aside.fullmatch(native))

    def _is_id(self, name: str) -> bool:
        return set(name) <= set(self.allowed) and self._folded(name) == name

    def _folded(self, native: str) -> str:
        return native.lower() if self.folds else native

    def _readable(self, name: str) -> str:
        """Return as much of a name as an id can show, in no more characters than leave room for a hash."""
        allowed = set(self.allowed)
        shown = (
            self.separator if character == "/" else self._folded(character) if character in allowed else "-"
            for character in name
        )
        return "".join(shown)[: self.longest - len(self._mark) - _HASH_LENGTH]


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _hash(name: str) -> str:
    """Return 96 bits of SHA-256: of names that nobody chose for it, no two are the same."""
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:_HASH_LENGTH]
