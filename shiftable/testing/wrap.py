"""A driver before another one: it keeps a record of the calls, and fails where a test says so."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import MethodType
from typing import Any, Generic, TypeVar, cast

import attrs

from shiftable.blob.driver import BlobDriver, Download
from shiftable.errors import Fault, OperationError, Unavailable
from shiftable.features import Features
from shiftable.service import Driver

__all__ = ["Call", "Injected", "Recorded", "dropped", "fault"]

D = TypeVar("D", bound=Driver[Any])

_SENDS_NOTHING = frozenset(
    {
        *("check_headers", "check_key", "check_labels", "check_metadata", "check_name", "check_secret", "check_tags"),
        *("as_kept", "missing_features"),
    }
)


@attrs.frozen
class Call:
    """One call that reached the driver."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Injected(Exception):
    """A native error that a test made up; every recorded driver classifies it as its fault says."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


Action = Callable[[Call, Callable[[], Any]], Any]
"""What happens in place of a call; the second argument makes the call itself and returns its result."""


class Recorded(Generic[D]):
    """Records what reaches a driver.

    >>> from shiftable.blob import BlobStore, BucketSpec
    >>> from shiftable.memory.blob import MemoryBlobDriver
    >>> recorded = Recorded(MemoryBlobDriver())
    >>> bucket = BlobStore(recorded.driver).create(BucketSpec(name="shop"))
    >>> recorded.on("put", fault(Unavailable))
    >>> bucket.put("key", b"")
    Traceback (most recent call last):
    shiftable.errors.Unavailable: blob.put on object 'key' in bucket 'shop' (memory): made up by a test
    >>> [call.name for call in recorded.calls]
    ['create', 'put']

    Attributes:
        driver: to be used in place of the real one. Asked for its features or for a check, it records nothing.
        inner: the real one.
        calls: in the order in which they began; those of all threads.
    """

    def __init__(self, driver: D, *, features: Features | None = None) -> None:
        self.inner = driver
        self.calls: list[Call] = []
        self._actions: dict[str, Action] = {}
        self.driver = cast("D", _Proxy(driver, features or driver.features, self._call))

    def on(self, name: str, action: Action) -> None:
        """From now on do this in place of the method of that name."""
        self._actions[name] = action

    def named(self, name: str) -> list[Call]:
        """Return the calls of one method."""
        return [call for call in self.calls if call.name == name]

    def _call(self, call: Call, proceed: Callable[[], Any]) -> Any:  # noqa: ANN401  whatever the driver answers
        self.calls.append(call)
        action = self._actions.get(call.name)
        return proceed() if action is None else action(call, proceed)


class _Proxy:
    """Looks like the driver behind it."""

    def __init__(self, inner: Driver[Any], features: Features, call: Callable[[Call, Callable[[], Any]], Any]) -> None:
        self._inner = inner
        self._checks = _with_features(inner, features)
        self._call = call
        self.features = features

    def classify(self, exc: Exception) -> Fault | None:
        return exc.fault if isinstance(exc, Injected) else self._inner.classify(exc)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the driver has
        if name in _SENDS_NOTHING:
            return getattr(self._checks, name)
        attribute = getattr(self._inner, name)
        if name.startswith("_") or name == "close" or not inspect.ismethod(attribute):
            return attribute
        if attribute.__func__ is BlobDriver.reopen:  # it makes another call, which is the one that is told
            return MethodType(BlobDriver.reopen, self)

        def method(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  the same
            return self._call(Call(name, args, kwargs), lambda: attribute(*args, **kwargs))

        return method


def _with_features(driver: Driver[Any], features: Features) -> Driver[Any]:
    """Return a driver that has other features, for the checks that read them."""
    if features is driver.features:
        return driver
    changed = copy.copy(driver)
    changed.__class__ = type(type(driver).__name__, (type(driver),), {"__slots__": (), "features": features})
    return changed


def fault(error: type[OperationError], *, after: int = 0, times: int | None = None) -> Action:
    """Fail with a made-up native error.

    Args:
        after: let so many calls pass first.
        times: then fail so often; ``None``: always.
    """
    seen = iter(range(10**9))  # one step of an iterator is atomic, calls come from many threads

    def action(_call: Call, proceed: Callable[[], Any]) -> Any:  # noqa: ANN401  whatever the driver answers
        number = next(seen)
        if number < after or (times is not None and number >= after + times):
            return proceed()
        raise Injected(Fault(error, "made up by a test"))

    return action


def dropped(download: Download, size: int, *, error: type[OperationError] | None = Unavailable) -> Download:
    """Return a download that breaks after so many bytes: by an error, or with ``None`` as if it ended there."""

    def chunks() -> Iterator[bytes]:
        left = size
        for chunk in download.chunks:
            if left:
                yield chunk[:left]
            left -= min(left, len(chunk))
            if not left:
                break
        download.close()
        if error is not None:
            raise Injected(Fault(error, "made up by a test"))

    return attrs.evolve(download, chunks=chunks())
