"""The rules that hold for every driver, as test classes: subclass one, override its fixture, run pytest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Conformance", "differs"]

F = TypeVar("F", bound=Callable[..., Any])


def differs(reason: str) -> Callable[[F], F]:
    """Mark a test that overrides a conformance test, and say why this driver may differ."""
    if not reason.strip():
        raise ValueError("say why this driver differs")

    def mark(test: F) -> F:
        test.differs = reason  # type: ignore[attr-defined]  # a function takes any attribute
        return test

    return mark


class Conformance:
    """Base of all conformance classes. No test may be overridden or dropped without a stated reason."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        for name, member in vars(cls).items():
            overrides = name.startswith("test_") and any(hasattr(base, name) for base in cls.__bases__)
            if overrides and not getattr(member, "differs", ""):
                raise TypeError(f"{cls.__name__}.{name} overrides a conformance test; say why with @differs('…')")
