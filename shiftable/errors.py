"""Everything that shiftable raises, and the one place where native errors are translated.

::

    ShiftableError
    ├── ConfigError               the file, an argument or the environment is wrong; .problems
    ├── ProviderError             a provider is unknown, broken, ambiguous or too old
    ├── MigrationError            a move stopped; its journal says where
    └── OperationError            one operation on one resource failed
        ├── NotFound
        │   └── ParentNotFound    what should hold it is missing: the bucket of an object, the zone of a record
        ├── AlreadyExists
        ├── Conflict              another writer, or a state that forbids it
        ├── PreconditionFailed    if_absent or if_match did not hold
        │   └── NotModified       if_none_match did not hold: the object is still in that version
        ├── InvalidArgument
        ├── PermissionDenied
        ├── Unauthenticated
        ├── QuotaExceeded         a limit of the account, the disk or the service
        ├── Throttled             retryable; .retry_after
        ├── Unavailable           retryable
        ├── Timeout               retryable
        ├── Unsupported           this driver cannot; nothing was sent
        └── IntegrityError        what arrived is not what was sent
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, ClassVar, Self

import attrs

__all__ = [
    "AlreadyExists",
    "ConfigError",
    "Conflict",
    "Fault",
    "IntegrityError",
    "InvalidArgument",
    "MigrationError",
    "NotFound",
    "NotModified",
    "OperationError",
    "ParentNotFound",
    "PermissionDenied",
    "PreconditionFailed",
    "Problem",
    "ProviderError",
    "ProviderName",
    "QuotaExceeded",
    "Resource",
    "ShiftableError",
    "Throttled",
    "Timeout",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "cause_of",
    "classify_os",
    "translated",
]

logger = logging.getLogger(__name__)


class ShiftableError(Exception):
    """Root of all errors of this library."""


@attrs.frozen
class Problem:
    """One thing that is wrong, and where: ``[blob.assets] bukket: unknown; did you mean bucket?``."""

    place: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        line = f" (line {self.line})" if self.line else ""
        return f"{self.place}: {self.message}{line}" if self.place else f"{self.message}{line}"


class ConfigError(ShiftableError):
    """The configuration is wrong; ``problems`` lists everything that is, not only the first."""

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        found = (Problem("", problems),) if isinstance(problems, str) else tuple(problems)
        self.problems: tuple[Problem, ...] = found
        super().__init__("\n".join(str(problem) for problem in found))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems,)


class ProviderError(ShiftableError):
    """A provider cannot be used: unknown, broken, claimed twice, or made for another driver API."""


class MigrationError(ShiftableError):
    """A move cannot begin or go on; nothing of the source was touched."""


@attrs.frozen
class Resource:
    """What an operation was about: ``object 'logo.png' in bucket 'shop'``."""

    type: str
    name: str
    parent: Resource | None = None

    def __str__(self) -> str:
        within = f" in {self.parent}" if self.parent else ""
        return f"{self.type} {self.name!r}{within}"

    def ancestor(self, type_: str) -> Resource | None:
        """Return the nearest resource of that type, itself included."""
        here: Resource | None = self
        while here is not None and here.type != type_:
            here = here.parent
        return here


class ProviderName(str):
    """A provider's name, ``aws``, that knows what the file calls the provider: of one type there may be several.

    Attributes:
        label: ``frankfurt`` of ``[providers.frankfurt]``; the name itself where there is no file.
    """

    __slots__ = ("label",)
    label: str

    def __new__(cls, name: str, label: str = "") -> Self:
        """Make one of a name, which is its own label where there is none."""
        made = super().__new__(cls, name)
        made.label = label or name
        return made


class OperationError(ShiftableError):
    """One operation failed. Raised as itself only for native errors that no table knows.

    Attributes:
        provider: name of the provider, ``aws``; its ``label`` is what the file calls it, and what the message shows.
        operation: what was tried, ``blob.put``.
        resource: what it was tried on.
        code: the provider's own code, ``SlowDown``.
        request_id: what the provider's support asks for.
        retry_after: seconds that the provider asked to wait, if it did.
    """

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        operation: str = "",
        resource: Resource | None = None,
        code: str = "",
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider if isinstance(provider, ProviderName) else ProviderName(provider)
        self.operation = operation
        self.resource = resource
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        subject = " on ".join(str(part) for part in (self.operation, self.resource) if part)
        where = f" ({self.provider.label})" if self.provider else ""
        marks = [self.code] if self.code else []
        marks += [f"request {self.request_id}"] if self.request_id else []
        tail = f" [{', '.join(marks)}]" if marks else ""
        return f"{subject}{where}: {self.message}{tail}" if subject else f"{self.message}{tail}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.__dict__)


def _rebuilt(cls: type[OperationError], state: dict[str, Any]) -> OperationError:
    facts = {name: state[name] for name in ("provider", "operation", "resource", "code", "request_id", "retry_after")}
    error = cls(state["message"], **facts)
    error.__dict__.update(state)  # notes, and what a subclass adds
    return error


class NotFound(OperationError):
    """The resource does not exist."""


class ParentNotFound(NotFound):
    """What should hold the resource does not exist."""


class AlreadyExists(OperationError):
    """A resource of that name exists, perhaps somebody else's."""


class Conflict(OperationError):
    """Another writer was faster, or the resource is in a state that forbids the operation."""


class PreconditionFailed(OperationError):
    """The resource is not in the version that ``if_match`` names, or exists despite ``if_absent``."""


class NotModified(PreconditionFailed):
    """The resource is still in the version that ``if_none_match`` names."""


class InvalidArgument(OperationError, ValueError):
    """A name, key or value that the provider cannot hold. Most are refused before anything is sent."""


class PermissionDenied(OperationError):
    """The credentials are good and do not suffice."""


class Unauthenticated(OperationError):
    """There are no credentials, or they are wrong or expired."""


class QuotaExceeded(OperationError):
    """A limit of the account, the service or the disk is reached."""


class Throttled(OperationError):
    """Too many requests; ``retry_after`` says how long to wait where the provider does."""

    retryable = True


class Unavailable(OperationError):
    """The service cannot be reached or failed on its side."""

    retryable = True


class Timeout(OperationError, TimeoutError):
    """It took longer than was allowed; whether it happened is not known."""

    retryable = True


class Unsupported(OperationError, NotImplementedError):
    """The driver's features say no. Nothing was sent."""


class IntegrityError(OperationError):
    """The content is not what it should be: truncated, altered or changed while it was read."""


@attrs.frozen
class Fault:
    """What a provider's table says of one native error.

    Args:
        error: the class to raise.
        message: in the provider's words, or ours; never with a secret in it.
        missing: type of the resource that does not exist, where the native error says so (``bucket``).
    """

    error: type[OperationError]
    message: str = ""
    code: str = ""
    request_id: str | None = None
    retry_after: float | None = None
    missing: str | None = None


class translated:  # noqa: N801  reads as a verb: `with translated(...)`
    """Turn native errors into ours while the block runs, by the driver's table.

    An error that the table does not claim is a bug and passes through untouched. Ours come from the driver, which does
    not know what the file calls its provider, and learn that here.
    """

    __slots__ = ("_classify", "_operation", "_provider", "_resource")

    def __init__(
        self,
        classify: Callable[[Exception], Fault | None],
        *,
        provider: str,
        operation: str,
        resource: Resource | None = None,
    ) -> None:
        self._classify = classify
        self._provider = provider if isinstance(provider, ProviderName) else ProviderName(provider)
        self._operation = operation
        self._resource = resource

    def __enter__(self) -> Self:
        return self

    def __exit__(self, cls: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(exc, OperationError) and exc.provider == exc.provider.label == self._provider:
            exc.provider = self._provider
        if exc is None or not isinstance(exc, Exception) or isinstance(exc, ShiftableError):
            return
        fault = self._classify(exc)
        if fault is not None:
            logger.debug("%s %s failed: %s %s", self._provider, self._operation, fault.error.__name__, fault.code)
            raise self.error(fault) from exc

    def error(self, fault: Fault) -> OperationError:
        """Return the error of a fault that did not arrive as an exception: one key of a batch."""
        error, resource = fault.error, self._resource
        message = fault.message or (error.__doc__ or "").split(".")[0].split(";")[0]
        if error is NotFound and fault.missing and resource and resource.type != fault.missing:
            parent = resource.ancestor(fault.missing)
            if parent is not None:
                error, message = ParentNotFound, f"{parent} does not exist; `shiftable apply` makes what is declared"
        return error(
            message,
            provider=self._provider,
            operation=self._operation,
            resource=resource,
            code=fault.code,
            request_id=fault.request_id,
            retry_after=fault.retry_after,
        )


_OS_CODES: dict[int, type[OperationError]] = {
    errno.ENOENT: NotFound,
    errno.EEXIST: AlreadyExists,
    errno.EACCES: PermissionDenied,
    errno.EPERM: PermissionDenied,
    errno.EROFS: PermissionDenied,
    errno.ENOSPC: QuotaExceeded,
    errno.EDQUOT: QuotaExceeded,
    errno.EMFILE: QuotaExceeded,
    errno.EFBIG: QuotaExceeded,
    errno.ENAMETOOLONG: InvalidArgument,
    errno.EINVAL: InvalidArgument,
    errno.EILSEQ: InvalidArgument,
    errno.ENOTDIR: Conflict,
    errno.EISDIR: Conflict,
    errno.ENOTEMPTY: Conflict,
    errno.EBUSY: Conflict,
    errno.EIO: Unavailable,
    errno.ETIMEDOUT: Timeout,
}


_DEEP = 8


def cause_of(exc: BaseException, *kinds: type[BaseException]) -> BaseException | None:
    """Find in an error of a client library the one of some kinds that it was made of; ``None`` if there is none."""
    inside: BaseException | None = exc
    for _ in range(_DEEP):
        if inside is None or isinstance(inside, kinds):
            return inside
        held = (getattr(inside, "reason", None), *inside.args, inside.__cause__, inside.__context__)
        inside = next((each for each in held if isinstance(each, BaseException)), None)
    return None


def classify_os(exc: Exception) -> Fault | None:
    """Claim the operating system's errors: files and bare sockets, and names of hosts that it is not even asked for."""
    if isinstance(exc, UnicodeError) and "'idna' codec" in str(exc):
        why = "no host has such a name: a part of it is empty, or longer than 63 characters"
        return Fault(InvalidArgument, why)
    if not isinstance(exc, OSError):
        return None
    message = exc.strerror or str(exc)
    code = errno.errorcode.get(exc.errno, "") if exc.errno is not None else ""
    if isinstance(exc, TimeoutError):
        return Fault(Timeout, message, code)
    if isinstance(exc, ConnectionError | socket.gaierror):
        return Fault(Unavailable, message, code)
    return Fault(_OS_CODES.get(exc.errno or 0, OperationError), message, code)
