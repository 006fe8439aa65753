"""One provider, with its five services."""

from __future__ import annotations

import threading
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import attrs

from shiftable import registry
from shiftable.config import Credential, Place, did_you_mean, in_file, structure
from shiftable.errors import ConfigError, Problem, ProviderName
from shiftable.provider import SERVICES, Provider

if TYPE_CHECKING:
    from shiftable.blob import BlobStore
    from shiftable.compute import Compute
    from shiftable.database import Databases
    from shiftable.dns import Dns
    from shiftable.secrets import Secrets
    from shiftable.service import Driver, Service

__all__ = ["Cloud", "connect"]

D = TypeVar("D", bound="Driver[Any]")
T = TypeVar("T")


class Cloud:
    """The services of one provider. Each is made when it is first used; all may be used from many threads.

    >>> from shiftable import connect
    >>> with connect("memory") as cloud:
    ...     bucket = cloud.blob.bucket("pictures")
    """

    def __init__(self, provider: Provider[Any], label: str = "") -> None:
        self._provider = provider
        self._label = label
        self._services: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> ProviderName:
        """The provider's name, ``aws``; its ``label`` is what the file calls it."""
        return ProviderName(self._provider.name, self._label)

    @property
    def region(self) -> str | None:
        """Where its settings place it; ``None``, if they do not say, or name an endpoint of their own."""
        settings = self._provider.settings
        if getattr(settings, "endpoint", None) is not None:
            return None
        return getattr(settings, "region", None) or getattr(settings, "location", None)

    @property
    def blob(self) -> BlobStore:
        """Blob storage: buckets of objects."""
        from shiftable.blob import BlobStore

        return self._once("blob", lambda: BlobStore(self._labelled(self._provider.blob())))

    @property
    def secrets(self) -> Secrets:
        """Secrets, by prefix."""
        from shiftable.secrets import Secrets

        return self._once("secrets", lambda: Secrets(self._labelled(self._provider.secrets())))

    @property
    def dns(self) -> Dns:
        """DNS: zones of record sets."""
        from shiftable.dns import Dns

        return self._once("dns", lambda: Dns(self._labelled(self._provider.dns())))

    @property
    def database(self) -> Databases:
        """Managed databases."""
        from shiftable.database import Databases

        return self._once("database", lambda: Databases(self._labelled(self._provider.database())))

    @property
    def compute(self) -> Compute:
        """Fleets of machines."""
        from shiftable.compute import Compute

        return self._once("compute", lambda: Compute(self._labelled(self._provider.compute())))

    def service(self, name: str) -> Service[Any, Any, Any]:
        """Return a service by its name, for code that treats all alike."""
        if name not in SERVICES:
            raise ConfigError(f"unknown service {name!r}{did_you_mean(name, SERVICES)}")
        return cast("Service[Any, Any, Any]", getattr(self, name))

    def unwrap(self, provider_type: type[T]) -> T:
        """Return the provider, typed, to reach its session.

        Raises:
            ConfigError: it is another provider.
        """
        if not isinstance(self._provider, provider_type):
            raise ConfigError(f"this is a {type(self._provider).__name__}, not a {provider_type.__name__}")
        return self._provider

    def close(self) -> None:
        """Give back what the services and the session hold. Closing twice is no error."""
        with self._lock:
            services, self._services = self._services, {}
        for service in services.values():
            service.close()
        self._provider.close()

    def _labelled(self, driver: D) -> D:
        driver.label = self._label
        return driver

    def _once(self, name: str, make: Callable[[], T]) -> T:
        found = self._services.get(name)
        if found is None:
            made = make()  # without the lock: it may read a credential from the secrets of this very cloud
            with self._lock:
                found = self._services.setdefault(name, made)  # of two threads at once, the first one's
        return cast("T", found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Cloud {self.name.label}>"


def connect(provider: str, **settings: object) -> Cloud:
    """Return the services of a provider without a file: ``connect("aws", region="eu-central-1")``.

    Args:
        provider: its type: ``aws``, ``azure``, ``baremetal``, ``gcp``, ``libcloud``, ``memory`` or another that is
            installed.
        settings: as in ``[providers.x]``, with Python's values; credentials are ``Credential``.

    Raises:
        ProviderError: the provider is not installed, or broken.
        ConfigError: a setting is unknown, missing or wrong.
    """
    provider_type = registry.load(provider)
    return Cloud(provider_type(_settings(provider, provider_type.settings_type, settings)))


def _settings(provider: str, cls: type[T], given: dict[str, object]) -> T:
    fields = {field.alias: field for field in attrs.fields(cast("Any", cls))}
    place = f"connect({provider!r})"
    problems = [
        Problem(place, f"unknown setting {name!r}{did_you_mean(name, fields)}") for name in given if name not in fields
    ]
    problems += [
        Problem(place, f"the setting {name!r} is missing")
        for name, field in fields.items()
        if field.default is attrs.NOTHING and name not in given
    ]
    hints = typing.get_type_hints(cls)
    problems += [
        Problem(place, f"the setting {name!r} is a credential: pass Credential.env(…), .file(…) or .literal(…)")
        for name, value in given.items()
        if isinstance(value, str) and Credential in (hints.get(name), *typing.get_args(hints.get(name)))
    ]
    if not problems:
        given, problems = _taken(cls, given, place)
    if problems:
        raise ConfigError(problems)
    try:
        return cls(**given)
    except (TypeError, ValueError) as exc:
        raise ConfigError([Problem(place, str(exc))]) from exc


def _taken(cls: type[Any], given: dict[str, object], place: str) -> tuple[dict[str, object], list[Problem]]:
    """Read each setting that could also stand in the file as if it did: a path may be text, a number may not."""
    hints, taken, problems = typing.get_type_hints(cls), dict(given), []
    for field in in_file(cls):
        if field.alias in given:
            try:
                value: Any = given[field.alias]  # as a value stands in a table
                taken[field.alias] = structure(hints[field.name], value, Place(""))
            except ConfigError as exc:
                problems += [attrs.evolve(each, place=f"{place} {field.alias}") for each in exc.problems]
    return taken, problems
