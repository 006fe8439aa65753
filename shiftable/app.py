"""The resources of one ``shiftable.toml`` in one environment."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import attrs

from shiftable import manifest
from shiftable.cloud import Cloud
from shiftable.config import Credential, Keeper, Place, did_you_mean, in_file, structure
from shiftable.errors import AlreadyExists, ConfigError, NotFound, PreconditionFailed
from shiftable.manifest import Declared, Manifest
from shiftable.provider import PURPOSES, SERVICES, Provider, Purpose
from shiftable.service import Change, Handle, Service, Spec

if TYPE_CHECKING:
    from shiftable.blob import Bucket
    from shiftable.compute import Fleet
    from shiftable.database import Database
    from shiftable.dns import Zone
    from shiftable.secrets import SecretStore

__all__ = ["ENVIRONMENT_VARIABLE", "App", "load"]

ENVIRONMENT_VARIABLE = "SHIFTABLE_ENV"

H = TypeVar("H", bound=Handle[Any])


class App:
    """What an application declares, in one environment: ``app.blob("assets")`` is a bucket, wherever it lies.

    A provider is connected when the first of its resources is used. May be used from many threads. What is pickled is
    the text of the file and its place: whoever unpickles it connects anew, with credentials that are found there.
    """

    def __init__(self, config: Manifest, environment: str) -> None:
        if environment not in config.environments:
            hint = did_you_mean(environment, config.environments)
            raise ConfigError(f"{config.path.name} has no environment {environment!r}{hint}")
        self.config = config
        self.environment = environment
        self._clouds: dict[str, Cloud] = {}
        self._reading = threading.local()
        self._lock = threading.RLock()

    @property
    def state_dir(self) -> Path:
        """The folder ``.shiftable`` beside the file, for journals and local data."""
        return self.config.path.parent / ".shiftable"

    def blob(self, label: str) -> Bucket:
        """Return the bucket that ``[blob.label]`` declares. Calls nobody."""
        return cast("Bucket", self.open("blob", label))

    def secrets(self, label: str) -> SecretStore:
        """Return the secrets that ``[secrets.label]`` declares. Calls nobody.

        It is a ``Mirror`` where the environment's ``mirrors`` name a second provider.
        """
        return cast("SecretStore", self.open("secrets", label))

    def dns(self, label: str) -> Zone:
        """Return the zone that ``[dns.label]`` declares. Calls nobody."""
        return cast("Zone", self.open("dns", label))

    def database(self, label: str) -> Database:
        """Return the database that ``[database.label]`` declares. Calls nobody."""
        return cast("Database", self.open("database", label))

    def compute(self, label: str) -> Fleet:
        """Return the fleet that ``[compute.label]`` declares. Calls nobody."""
        return cast("Fleet", self.open("compute", label))

    def open(self, service: str, label: str) -> Handle[Any]:
        """Return the handle of a declared resource, for code that treats all services alike."""
        declared = self._declared(service, label)
        handle = cast("Handle[Any]", self.service(declared).open(self.spec(declared)))
        second = self.config.environments[self.environment].mirrors.get(declared.address)
        return handle if second is None else self._mirrored(declared, handle, second)

    def _mirrored(self, declared: Declared, handle: Handle[Any], second: str) -> Handle[Any]:
        from shiftable.secrets import Mirror

        other = self.service(declared, second).open(self.spec(declared, second))
        return Mirror(cast("SecretStore", handle), cast("SecretStore", other))

    def declared(self, service: str | None = None) -> tuple[Declared, ...]:
        """Return the declared resources, of one service or of all, in the order of the file."""
        return tuple(found for found in self.config.resources.values() if service in (None, found.service))

    def provider_of(self, declared: Declared) -> str:
        """Return the label of the provider that a resource has in this environment."""
        environment = self.config.environments[self.environment]
        return environment.overrides.get(declared.address, environment.provider)

    def service(self, declared: Declared, provider: str | None = None) -> Service[Any, Any, Any]:
        """Return the service object that a resource belongs to, at its own or at another provider."""
        return self.cloud(provider or self.provider_of(declared)).service(declared.service)

    def spec(self, declared: Declared, provider: str | None = None) -> Spec:
        """Return what is declared, with what ``[service.label.provider]`` adds for its own or another provider."""
        type_ = self.config.provider_type(provider or self.provider_of(declared))
        spec = self._readable(declared.spec)
        if type_ not in declared.native:
            return spec
        cls = self.cloud(provider or self.provider_of(declared)).unwrap(Provider).native_types.get(declared.service)
        place = Place(
            f"{declared.address}.{type_}", folder=self.config.path.parent, secret=self._reveal, text=self.config.text
        )
        if cls is None:
            raise ConfigError([place.problem((), f"the provider {type_} has no settings of its own for this service")])
        return attrs.evolve(spec, native=structure(cls, declared.native[type_], place))

    def cloud(self, label: str) -> Cloud:
        """Return the services of a provider by the label of its ``[providers.x]`` table, or by its type.

        Raises:
            ProviderError: it is not installed, or broken.
            ConfigError: there is no such label; its settings are wrong.
        """
        with self._lock:
            if label not in self._clouds:
                self._clouds[label] = Cloud(self._provider(label), label)
            return self._clouds[label]

    def policy(
        self, *purposes: Purpose, declared: Iterable[Declared] | None = None, provider: str | None = None
    ) -> Mapping[str, Any]:
        """Write the least that a login must be allowed, as JSON that the provider takes: ``app.policy("write")``.

        Args:
            purposes: ``read`` and ``write`` what resources hold, as the application does; ``plan`` and ``apply``.
            declared: some of the resources; all, if nothing is said.
            provider: label of another provider than the environment's.

        Raises:
            ConfigError: there is no purpose; the resources are at no provider, or at several.
            Unsupported: none is written for the provider.
        """
        some = tuple(self.declared() if declared is None else declared)
        labels = sorted({provider or self.provider_of(each) for each in some})
        if not purposes or set(purposes) - set(PURPOSES):
            raise ConfigError(f"a policy is for {', '.join(PURPOSES)}, not for {', '.join(purposes) or 'nothing'}")
        if len(labels) != 1:
            where = f"resources at {', '.join(labels)}" if labels else "no resource"
            raise ConfigError(f"a policy is of one provider, and this is {where}; name resources of one of them")
        specs = [(each.service, self.spec(each, provider)) for each in some]
        return self.cloud(labels[0]).unwrap(Provider).policy(specs, purposes)

    def diff(self, declared: Declared) -> tuple[Change[Any], ...]:
        """Say what would have to change for a resource to be as declared."""
        return self.service(declared).diff(self.spec(declared))

    def apply(self, declared: Declared, change: Change[Any]) -> None:
        """Carry out one change of a declared resource, and write it down before and after.

        What takes minutes has only begun then: ``app.service(declared).settle(app.spec(declared))`` waits for it.
        """
        with self._recorded(declared, change.action, change.name):
            self.service(declared).apply(change)

    def destroy(self, declared: Declared) -> None:
        """Delete a declared resource, and write it down before and after.

        Raises:
            NotFound: it does not exist.
            Conflict: it is not empty.
        """
        name = self.spec(declared).name
        with self._recorded(declared, "delete", name):
            self.service(declared).delete(name)

    @contextlib.contextmanager
    def _recorded(self, declared: Declared, action: str, name: str) -> Iterator[None]:
        """Append to ``.shiftable/applied.jsonl`` what begins and how it ends, for whoever looks later."""
        facts = {
            "environment": self.environment,
            "provider": self.provider_of(declared),
            "resource": declared.address,
            "name": name,
            "action": action,
        }
        self._record(facts | {"state": "begun"})
        try:
            yield
        except BaseException as exc:
            self._record(facts | {"state": "failed", "error": type(exc).__name__})
            raise
        self._record(facts | {"state": "done"})

    def _record(self, facts: dict[str, str]) -> None:
        line = json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), **facts}, ensure_ascii=False) + "\n"
        try:
            self.state_dir.mkdir(exist_ok=True)
            with (self.state_dir / "applied.jsonl").open("ab", buffering=0) as file:
                file.write(line.encode())  # one write to the end of the file: lines of two processes never mix
        except OSError as exc:
            raise ConfigError(f"cannot write down what is done in {self.state_dir}: {exc.strerror}") from exc

    def credential(self, name: str) -> Credential:
        """Return a credential that refers to a secret, ``label/key``, as ``{ secret = "…" }`` does in the file."""
        return Credential.secret(name, self._reveal, _StoredSecrets(self))

    def close(self) -> None:
        """Give back all connections. The app may be used again."""
        with self._lock:
            clouds, self._clouds = self._clouds, {}
        for cloud in clouds.values():
            cloud.close()

    def _provider(self, label: str) -> Provider[Any]:
        known: Mapping[str, Any] = self.config.providers
        if label not in known and label not in manifest.known_types():
            hint = did_you_mean(label, {*known, *manifest.known_types()})
            raise ConfigError(f"{self.config.path.name} has no [providers.{label}]{hint}")
        return self.config.provider(label, self._reveal_setting, self.blob)

    def _declared(self, service: str, label: str) -> Declared:
        if service not in SERVICES:
            raise ConfigError(f"unknown service {service!r}{did_you_mean(service, SERVICES)}")
        found = self.config.resources.get(f"{service}.{label}")
        if found is None:
            labels = [declared.label for declared in self.declared(service)]
            raise ConfigError(f"{self.config.path.name} declares no [{service}.{label}]{did_you_mean(label, labels)}")
        return found

    def _readable(self, spec: Spec) -> Spec:
        """Let the credentials of a resource that refer to secrets find them: the file alone cannot."""
        return cast("Spec", _bound(spec, self._reveal, _StoredSecrets(self)))

    def _reveal(self, name: str) -> str:
        """Read the secret that a credential of the file refers to, as ``label/key``."""
        label, _, key = name.partition("/")
        reading: set[str] = self._reading.__dict__.setdefault("names", set())
        if name in reading:
            raise ConfigError(f"the credential {{ secret = {name!r} }} needs itself to be read")
        reading.add(name)
        try:
            secret = self.secrets(label).get(key)
            try:
                return secret.reveal()
            except ValueError:
                raise ConfigError(f"the credential {{ secret = {name!r} }} is binary; it must be text") from None
        finally:
            reading.discard(name)

    def _reveal_setting(self, name: str) -> str:
        """Read the secret that a provider needs. One that is missing says nothing of what the provider has."""
        try:
            return self._reveal(name)
        except NotFound as exc:
            label, _, key = name.partition("/")
            what = f"a provider's credential {{ secret = {name!r} }} cannot be read: {exc}"
            raise ConfigError(f"{what}; `shiftable secrets put {label} {key}` stores it") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.config.text, self.config.path, self.environment)

    def __repr__(self) -> str:
        return f"<App {self.config.project.name} in {self.environment}>"


def load(path: str | os.PathLike[str] | None = None, *, environment: str | None = None) -> App:
    """Read ``shiftable.toml``, here or above, and return the application's resources.

    Args:
        path: the file, or a folder to look in and above.
        environment: else ``SHIFTABLE_ENV``, else the only one there is, else ``development``.

    Raises:
        ConfigError: there is no file, or no such environment; with all problems of the file.
    """
    config = manifest.nearest(Path(path) if path is not None else None)
    return App(config, environment or os.environ.get(ENVIRONMENT_VARIABLE) or _default(config))


@attrs.frozen
class _StoredSecrets:
    """What credentials want of the secrets that they refer to, beside the current value."""

    app: App

    def pending(self, name: str) -> str | None:
        """Return the value that is about to become current, if there is one."""
        label, _, key = name.partition("/")
        store = self.app.secrets(label)
        if not store.features.pending:
            return None
        try:
            return store.get(key, stage="pending").reveal()
        except (NotFound, ValueError):  # none, or one that is no text and will be refused when it is current
            return None

    def make(self, name: str, new: Callable[[], str]) -> str:
        """Store a new secret, unless it exists; of two that do so at once, the first one's counts."""
        label, _, key = name.partition("/")
        store, read = self.app.secrets(label), self.app._reveal  # noqa: SLF001  of the same module
        try:
            return read(name)
        except NotFound:
            made = new()
        try:
            store.put(key, made, if_absent=True)
        except (AlreadyExists, PreconditionFailed):
            return read(name)
        return made


def _bound(value: object, read: Callable[[str], str], keeper: Keeper) -> object:
    """Return a value with all credentials in it, however deep, read by ``read`` and kept by ``keeper``."""
    if isinstance(value, Credential):
        return value.read_by(read, keeper)
    if isinstance(value, Mapping):
        inside = {key: _bound(each, read, keeper) for key, each in value.items()}
        return inside if any(inside[key] is not each for key, each in value.items()) else value
    if attrs.has(type(value)):
        before = {field.name: getattr(value, field.name) for field in in_file(type(value))}
        after = {name: _bound(each, read, keeper) for name, each in before.items()}
        changed: dict[str, Any] = {name: each for name, each in after.items() if each is not before[name]}
        return attrs.evolve(cast("Spec", value), **changed) if changed else value
    return value


def _again(text: str, path: Path, environment: str) -> App:
    return App(manifest.parse(text, path), environment)


def _default(config: Manifest) -> str:
    names = list(config.environments)
    if len(names) == 1:
        return names[0]
    if "development" in names:
        return "development"
    raise ConfigError(
        f"set {ENVIRONMENT_VARIABLE} to one of the environments of {config.path.name}: {', '.join(names)}"
    )
