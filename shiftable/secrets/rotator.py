"""What a rotator implements: how the values of one kind are replaced."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, NoReturn

import attrs

from shiftable.config import did_you_mean
from shiftable.errors import ConfigError, Conflict, Fault
from shiftable.masking import Masked

__all__ = ["EXPOSED_LABEL", "GROUP", "Absent", "Rotator", "kinds"]

GROUP = "shiftable.rotators"

KNOWN: Mapping[str, str] = {"aws-iam-access-key": "shiftable-aws"}
"""Kinds of this project and the distributions that hold them, for the hint to install one."""

EXPOSED_LABEL = "shiftable-exposed"
"""The label of a secret that somebody could read who should not any more: since when, as ISO 8601. Versions that were
there by then are due to be replaced; the label stays, and says nothing of later ones."""


def _is_not_negative(_: object, field: attrs.Attribute[Any], value: timedelta) -> None:
    if value < timedelta(0):
        raise ValueError(f"{field.name} must not be negative")


def _is_over_in_time(rotator: Rotator, _: object, value: timedelta) -> None:
    if rotator.every is not None and 2 * value > rotator.every:
        raise ValueError("every must be at least twice as long as grace, in which nothing new is begun")


def _is_positive(_: object, field: attrs.Attribute[Any], value: timedelta | None) -> None:
    if value is not None and value <= timedelta(0):
        raise ValueError(f"{field.name} must be longer than nothing")


@attrs.frozen(kw_only=True)
class Rotator(ABC):
    """How the values of one kind are replaced; its fields are what ``[secrets.x.rotate]`` says of one key.

    A rotation is create, set, test, finish and retire. Where it stands is kept in the stages of the secret and nowhere
    else: a value that was created is *pending*, one that was finished is *current*, and the one before is *previous*
    until it is retired. A rotator knows no store. It is handed values and changes what they are for, its *target*.

    A run may end anywhere, also between what a method did and the next line of its caller, and another run then calls
    the same method with the same values. So every method does nothing where it was done before. Two runs may meet,
    as well: ``create`` of one of them comes to nothing, and whatever changes the target first takes a lock that the
    target has, then calls ``confirm``, then changes; so that a run that slept does not undo what another one did.

    Native errors are raised untouched and claimed by ``classify``; no message may show a value.

    Args:
        every: how old a value may become; without it only an expiry date or an exposure make it due.
        before: how long before its expiry date a value is due.
        grace: how long the value before stays usable after the change, at least; at most twice as long, if a run
            comes by then. Zero retires it at once.
    """

    kind: ClassVar[str]
    begins: ClassVar[bool] = True
    """Whether a secret that does not exist yet is made; else somebody stores the first value."""

    every: timedelta | None = attrs.field(default=None, validator=_is_positive)
    before: timedelta = attrs.field(default=timedelta(days=1), validator=_is_not_negative)
    grace: timedelta = attrs.field(default=timedelta(days=1), validator=[_is_not_negative, _is_over_in_time])

    @classmethod
    def variant(cls, kind: str) -> type[Rotator] | Rotator:
        """Return the class of a kind; for one that is not installed, or broken, a value that says so when used.

        Raises:
            ValueError: nobody knows that kind.
        """
        return _found(kind)

    @classmethod
    def variants(cls) -> Mapping[str, type[Rotator] | None]:
        """Return the classes of all kinds; ``None`` for one that cannot be used here."""
        found = ((name, _found(name)) for name in {*kinds(), *KNOWN})
        return {name: value if isinstance(value, type) else None for name, value in found}

    def check(self, current: Masked) -> str | None:
        """Say why a value is none of this kind, without showing it; ``None`` if it is one. Calls nobody."""
        return None

    def parts(self, value: Masked) -> tuple[Masked, ...]:
        """Return all that no message may show of a value: itself, and the password that a document holds."""
        return (value,)

    @abstractmethod
    def create(self, current: Masked | None) -> Masked:
        """Make the value that follows the current one.

        Args:
            current: ``None`` where the secret does not exist yet; a kind that cannot begin from nothing raises
                ``Conflict``. What is made then becomes current at once: nothing is set.
        """

    def usable(self, pending: Masked) -> bool:
        """Tell whether a value that was created can still be set. If not, another one is created in its place."""
        return True

    def discard(self, value: Masked) -> None:
        """Give up a value that was created and not stored, as another run was faster."""

    def set(self, new: Masked, old: Masked, confirm: Callable[[], object]) -> None:
        """Make the target accept the new value, and the old one too where it can accept both.

        Args:
            confirm: raises ``Conflict`` when this is no longer the rotation that is under way.
        """

    def beside(self, values: Sequence[Masked]) -> Mapping[str, str]:
        """Return what is stored beside while those values are valid, newest first: public halves of keys.

        It is stored in the same store, as the current versions of other keys, when the new value is set and when the
        old one is retired.
        """
        return {}

    def test(self, new: Masked) -> None:
        """Use the new value as its user will; whatever goes wrong keeps it from becoming current."""

    def retire(self, old: Masked, current: Masked, confirm: Callable[[], object]) -> None:
        """Make the target refuse the old value, and go on accepting the current one.

        Args:
            confirm: raises ``Conflict`` when these are no longer the previous and the current value.
        """

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native error means; ``None`` for one that is not the target's."""
        return None


@attrs.frozen(kw_only=True)
class Absent(Rotator):
    """A kind that the file names and that is not installed, or broken, here: whoever uses it is told.

    Args:
        reason: what to do about it.
    """

    kind: ClassVar[str] = "absent"

    reason: str

    def check(self, current: Masked) -> NoReturn:
        """Say what is missing."""
        raise ConfigError(self.reason)

    def create(self, current: Masked | None) -> NoReturn:
        """Say what is missing."""
        raise ConfigError(self.reason)


def needs_a_first(kind: str) -> Conflict:
    """Return the error of kinds that cannot begin from nothing."""
    return Conflict(f"{kind} replaces a credential that is in use: store that one first, with `shiftable secrets put`")


def kinds() -> tuple[str, ...]:
    """Return the names of the installed kinds. Imports none of them."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def _found(kind: str) -> type[Rotator] | Rotator:
    points = [point for point in entry_points(group=GROUP) if point.name == kind]
    if not points and kind in KNOWN:
        return Absent(reason=f'the rotator {kind!r} is not installed; run: pip install "{KNOWN[kind]}"')
    if not points:
        raise ValueError(f"unknown kind {kind!r}{did_you_mean(kind, {*kinds(), *KNOWN})}")
    if len({point.value for point in points}) > 1:
        return Absent(reason=f"two distributions claim the rotator {kind!r}: {' and '.join(map(_origin, points))}")
    try:
        found = points[0].load()
    except Exception as exc:  # noqa: BLE001  whatever its import does; it hides no other kind
        why = f"{type(exc).__name__}: {exc}"
        return Absent(reason=f"the rotator {kind!r} of {_origin(points[0])} cannot be imported: {why}")
    if not (isinstance(found, type) and issubclass(found, Rotator) and getattr(found, "kind", None) == kind):
        return Absent(reason=f"the rotator {kind!r} of {_origin(points[0])} is no Rotator of that kind")
    return found


def _origin(point: EntryPoint) -> str:
    name = f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed distribution"
    return f"{name} ({point.value})"
