"""What all five services have in common: drivers, admin verbs, declared resources and their changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, cast

import attrs

from shiftable.config import default_of
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    Fault,
    InvalidArgument,
    NotFound,
    ProviderName,
    Resource,
    Unsupported,
    translated,
)
from shiftable.features import Features
from shiftable.paging import Page, paged

__all__ = ["Change", "Driver", "FieldChange", "Handle", "Service", "Spec"]


@attrs.frozen(kw_only=True)
class Spec:
    """What an application declares of one resource. Sizes in the file end in ``_gib``.

    ``name_key`` is what the provider's name of the resource is called in the file; it defaults to the label.

    Args:
        native: what only one provider knows, ``[compute.web.aws]``: a value of that provider's own settings class.
    """

    name_key: ClassVar[str] = "name"

    name: str
    native: object = attrs.field(default=None, eq=False, kw_only=True, metadata={"in_file": False})


S = TypeVar("S", bound=Spec)


@attrs.frozen
class FieldChange:
    """One field of a resource that differs from what is declared."""

    name: str
    before: Any
    after: Any


@attrs.frozen(kw_only=True)
class Change(Generic[S]):
    """One step that would make a resource what its declaration says: a value, to be shown, compared and applied.

    Args:
        service: ``blob``.
        before: as it is; ``None`` when it does not exist.
        after: as it is declared; ``None`` when it is to be destroyed.
        destroys: whether something that exists is lost.
        reason: why it is needed, where that is not obvious.
        duration: how long it takes, where that is known.
        monthly_cost: the difference in US dollars, where that is known.
    """

    service: str
    before: S | None
    after: S | None
    destroys: bool = False
    reason: str = ""
    duration: timedelta | None = None
    monthly_cost: Decimal | None = None

    @property
    def action(self) -> Literal["create", "update", "delete"]:
        """What has to be done."""
        if self.before is None:
            return "create"
        return "delete" if self.after is None else "update"

    @property
    def name(self) -> str:
        """The provider's name of the resource."""
        return cast("S", self.after or self.before).name

    @property
    def fields(self) -> tuple[FieldChange, ...]:
        """The fields that differ; of a resource to be created, those that are no defaults."""
        if self.after is None:
            return ()
        changes = []
        for field in attrs.fields(type(self.after)):
            if field.name == "name" or not field.eq:
                continue
            before = getattr(self.before, field.name) if self.before else None
            after = getattr(self.after, field.name)
            if after != (before if self.before else default_of(field)):
                changes.append(FieldChange(field.name, before, after))
        return tuple(changes)


class Driver(ABC, Generic[S]):
    """One provider's implementation of one service.

    A driver translates arguments into one call of the provider and its answer into a frozen value. It raises the
    provider's own exceptions; ``classify`` names them. It may be used from many threads at once.

    Attributes:
        label: what the file calls the provider; whoever makes the driver says it.
    """

    label: str = ""

    @property
    @abstractmethod
    def provider(self) -> str:
        """The provider's name in errors, ``aws``."""

    @property
    def named(self) -> ProviderName:
        """The provider's name, with the label that whoever made the driver has given it."""
        return ProviderName(self.provider, self.label)

    @property
    @abstractmethod
    def features(self) -> Features:
        """What this driver can do."""

    @abstractmethod
    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means; ``None`` if it is none of the provider's."""

    def check_name(self, name: str) -> str | None:
        """Say why the provider could not hold a resource of that name; ``None`` if it can. Sends nothing."""
        return None if name else "the name is empty"

    def missing_features(self, spec: S) -> tuple[str, ...]:
        """Say what a declaration needs and this driver does not have. Sends nothing."""
        return ()

    @abstractmethod
    def create(self, spec: S) -> None:
        """Make the resource exist. It fails if the name exists already."""

    @abstractmethod
    def describe(self, name: str) -> S:
        """Return the resource as a declaration would say it, or fail as for a missing one."""

    @abstractmethod
    def update(self, current: S, spec: S) -> None:
        """Change ``current`` into ``spec``; never by destroying it."""

    @abstractmethod
    def destroy(self, name: str) -> None:
        """Delete the resource. It fails if it is missing, or if it holds anything."""

    @abstractmethod
    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the names of all resources, in the provider's order."""

    def close(self) -> None:
        """Give back what the driver holds. Closing twice is no error."""


D = TypeVar("D", bound=Driver[Any])
T = TypeVar("T")


class _Portable(Generic[D]):
    """What services and handles share: the driver, the translation of its errors, the way down to it."""

    service: ClassVar[str]

    def __init__(self, driver: D) -> None:
        self._driver = driver

    @property
    def provider(self) -> ProviderName:
        """Name of the provider, ``aws``; its ``label`` is what the file calls it."""
        return self._driver.named

    def unwrap(self, driver_type: type[T]) -> T:
        """Return the driver, typed, to reach what only this provider has.

        Raises:
            Unsupported: it is another driver.
        """
        if not isinstance(self._driver, driver_type):
            found = type(self._driver).__name__
            raise Unsupported(f"this is a {found}, not a {driver_type.__name__}", provider=self.provider)
        return self._driver

    def _translated(self, operation: str, resource: Resource | None) -> translated:
        return translated(
            self._driver.classify,
            provider=self.provider,
            operation=f"{self.service}.{operation}",
            resource=resource,
        )

    def _invalid(self, operation: str, resource: Resource, why: str) -> InvalidArgument:
        return InvalidArgument(why, provider=self.provider, operation=f"{self.service}.{operation}", resource=resource)

    def _require(self, supported: object, operation: str, resource: Resource, what: str) -> None:
        """Refuse an optional operation before anything is sent."""
        if not supported:
            raise Unsupported(
                f"this provider has no {what}",
                provider=self.provider,
                operation=f"{self.service}.{operation}",
                resource=resource,
            )


class Handle(_Portable[D]):
    """One resource of a service, by name. Making a handle calls nobody."""

    resource_type: ClassVar[str]

    def __init__(self, driver: D, name: str) -> None:
        super().__init__(driver)
        self.name = name
        self.resource = Resource(self.resource_type, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} on {self.provider.label}>"


H = TypeVar("H", bound=Handle[Any])


class Service(_Portable[D], ABC, Generic[S, D, H]):
    """The admin verbs that every service object has."""

    resource_type: ClassVar[str]

    @abstractmethod
    def open(self, spec: S) -> H:
        """Return the handle of a declared resource. Calls nobody."""

    @abstractmethod
    def _handle(self, name: str) -> H: ...

    def create(self, spec: S) -> H:
        """Make a resource exist.

        Raises:
            AlreadyExists: the name is taken, perhaps by somebody else.
            InvalidArgument: the provider cannot hold such a name.
            Unsupported: the declaration needs what the provider does not have.
        """
        resource = self._checked("create", spec.name)
        missing = self.missing_features(spec)
        self._require(not missing, "create", resource, " and no ".join(missing))
        with self._translated("create", resource):
            self._driver.create(spec)
        return self.open(spec)

    def describe(self, name: str) -> S:
        """Return an existing resource as a declaration would say it.

        Raises:
            NotFound: there is none.
        """
        with self._translated("describe", self._checked("describe", name)):
            return cast("S", self._driver.describe(name))

    def get(self, name: str) -> H:
        """Return the handle of an existing resource.

        Raises:
            NotFound: there is none.
        """
        self.describe(name)
        return self._handle(name)

    def exists(self, name: str) -> bool:
        """Tell whether there is such a resource. A refused permission is an error, not a no."""
        try:
            self.describe(name)
        except NotFound:
            return False
        return True

    def delete(self, name: str) -> None:
        """Delete a resource.

        Raises:
            NotFound: there is none.
            Conflict: it is not empty.
        """
        with self._translated("delete", self._checked("delete", name)):
            self._driver.destroy(name)

    def missing_features(self, spec: S) -> tuple[str, ...]:
        """Say what a declaration needs and this provider does not have. Calls nobody."""
        return tuple(self._driver.missing_features(spec))

    def diff(self, spec: S) -> tuple[Change[S], ...]:
        """Say what would have to change for the resource to be as declared; nothing, if it is."""
        try:
            current = self.describe(spec.name)
        except NotFound:
            return (Change(service=self.service, before=None, after=spec),)
        return () if current == spec else (Change(service=self.service, before=current, after=spec),)

    def apply(self, change: Change[S]) -> None:
        """Carry out one change. Creating what exists meanwhile as declared is no error.

        Few providers change settings by compare-and-swap, so the resource is described once more right before it is
        updated or deleted: a plan that is out of date is refused, two writers in the same moment are not told apart.

        Raises:
            Conflict: the resource is no longer what the change starts from.
            NotFound: it is gone.
        """
        match change:
            case Change(before=None, after=spec) if spec is not None:
                try:
                    self.create(spec)
                except AlreadyExists:
                    if self.diff(spec):
                        raise
            case Change(before=current, after=None) if current is not None:
                self._check_unchanged("delete", current)
                self.delete(current.name)
            case Change(before=current, after=spec) if current is not None and spec is not None:
                resource, missing = self._checked("update", spec.name), self.missing_features(spec)
                self._require(not missing, "update", resource, " and no ".join(missing))
                self._check_unchanged("update", current)
                with self._translated("update", resource):
                    self._driver.update(current, spec)

    def settle(self, spec: S) -> None:
        """Wait until what was begun for a resource is done. Most are there at once.

        Raises:
            Conflict: it failed.
            Timeout: it took longer than such things take.
        """

    def _check_unchanged(self, operation: str, before: S) -> None:
        if self.describe(before.name) != before:
            raise Conflict(
                "it is no longer what the change starts from; plan again",
                provider=self.provider,
                operation=f"{self.service}.{operation}",
                resource=Resource(self.resource_type, before.name),
            )

    def list(self, *, limit: int | None = None) -> Iterator[H]:
        """Iterate over the handles of all resources of the account."""

        def fetch(cursor: str | None, left: int | None) -> Page[str]:
            with self._translated("list", None):
                return self._driver.names(cursor, left)

        return (self._handle(name) for name in paged(fetch, limit=limit))

    def close(self) -> None:
        """Give back what the driver holds."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.provider.label}>"

    def _checked(self, operation: str, name: str) -> Resource:
        resource = Resource(self.resource_type, name)
        why = self._driver.check_name(name)
        if why is not None:
            raise self._invalid(operation, resource, why)
        return resource
