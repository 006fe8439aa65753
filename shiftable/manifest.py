"""``shiftable.toml``: what an application needs, and where each environment gets it from."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import attrs

from shiftable import registry
from shiftable.config import Place, did_you_mean, schema, structure
from shiftable.errors import ConfigError, Problem, ProviderError
from shiftable.provider import SERVICES, Provider
from shiftable.service import Spec

__all__ = [
    "FILE_NAME",
    "Declared",
    "Environment",
    "Manifest",
    "Project",
    "find",
    "json_schema",
    "known_types",
    "parse",
    "read",
    "spec_type",
]

FILE_NAME = "shiftable.toml"

_SPECS = {
    "blob": "BucketSpec",
    "secrets": "SecretsSpec",
    "dns": "ZoneSpec",
    "database": "DatabaseSpec",
    "compute": "FleetSpec",
}


def spec_type(service: str) -> type[Spec]:
    """Return what a table of a service becomes. A service that no file mentions is not imported."""
    found: type[Spec] = getattr(importlib.import_module(f"shiftable.{service}.driver"), _SPECS[service])
    return found


@attrs.frozen(kw_only=True)
class Project:
    """``[project]``.

    Args:
        name: of the application.
        owner: who answers for it.
    """

    name: str
    owner: str | None = None


@attrs.frozen(kw_only=True)
class Environment:
    """``[environments.x]``.

    Args:
        provider: label of a ``[providers.x]`` table, or the type of a provider that needs no settings.
        overrides: another provider for single resources, ``"database.orders" = "gcp"``.
        mirrors: a second provider to which secrets are written too, ``"secrets.app" = "gcp"``, while they move.
    """

    provider: str
    overrides: Mapping[str, str] = attrs.Factory(dict)
    mirrors: Mapping[str, str] = attrs.Factory(dict)


@attrs.frozen(kw_only=True)
class Declared:
    """A resource that the application declares.

    Args:
        label: what the application calls it; ``spec.name`` is what the provider calls it.
        native: its per-provider tables as they stand in the file, by provider type.
    """

    service: str
    label: str
    spec: Spec
    native: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, repr=False)

    @property
    def address(self) -> str:
        """``blob.assets``."""
        return f"{self.service}.{self.label}"


@attrs.frozen(kw_only=True)
class Manifest:
    """A whole file that has been read and found right."""

    path: Path
    project: Project
    environments: Mapping[str, Environment]
    providers: Mapping[str, Mapping[str, Any]] = attrs.field(repr=False)
    resources: Mapping[str, Declared]
    text: str = attrs.field(repr=False)

    def provider(
        self,
        label: str,
        secret: Callable[[str], str] | None = None,
        bucket: Callable[[str], Any] | None = None,
    ) -> Provider[Any]:
        """Make the provider of a label; its credentials stay references until a driver needs them.

        Args:
            label: of a ``[providers.x]`` table, or a type.
            secret: reads a secret of the application by ``label/key``.
            bucket: opens a bucket of the application by its label.

        Raises:
            ProviderError: it is not installed, or broken.
            ConfigError: its settings are wrong.
        """
        table = dict(self.providers.get(label, {"type": label}))
        cls = registry.load(table.pop("type"))
        place = Place(f"providers.{label}", self.path.parent, secret, self.text, bucket)
        return cls(structure(cls.settings_type, table, place))

    def provider_type(self, label: str) -> str:
        """Return the type of the provider with that label."""
        return str(self.providers.get(label, {"type": label})["type"])


def find(start: Path | None = None) -> Path:
    """Return the ``shiftable.toml`` of a folder or of the nearest one above it.

    Raises:
        ConfigError: there is none.
    """
    folder = (start or Path.cwd()).resolve()
    for candidate in (folder, *folder.parents):
        if (candidate / FILE_NAME).is_file():
            return candidate / FILE_NAME
    raise ConfigError(f"there is no {FILE_NAME} in {folder} or above it; `shiftable init` writes one")


def nearest(path: Path | None = None) -> Manifest:
    """Read the file that is given, or that of a folder or of the nearest one above it.

    Raises:
        ConfigError: there is none; with all its problems.
    """
    return read(find(path) if path is None or path.is_dir() else path)


def read(path: Path) -> Manifest:
    """Read a file.

    Raises:
        ConfigError: with everything that is wrong in it. A provider that is not installed is no problem yet, as
            another environment may use it; a type that nobody knows is.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors put a mark before the text
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not TOML: {exc}") from exc
    return parse(text, path.resolve())


def parse(text: str, path: Path) -> Manifest:
    """Read what stands, or stood, in a file; ``path`` need not exist, and what the text says is relative to its folder.

    Raises:
        ConfigError: the same as for ``read``.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path} is not TOML: {exc}") from exc
    except RecursionError:
        raise ConfigError(f"{path} cannot be read: its arrays or tables are nested too deeply") from None
    return _Reader(path, text, document).manifest()


class _Reader:
    """Reads one document and collects what is wrong with it."""

    def __init__(self, path: Path, text: str, document: dict[str, Any]) -> None:
        self.path, self.text, self.document = path, text, document
        self.problems: list[Problem] = []

    def manifest(self) -> Manifest:
        self._refuse_unknown("", self.document, {"project", "environments", "providers", *SERVICES})
        project = self._structured(Project, "project", self.document.get("project", {}))
        providers: dict[str, Mapping[str, Any]] = dict(self._tables("providers"))
        resources = {declared.address: declared for declared in self._resources()}
        environments = {
            name: value
            for name, table in self._tables("environments")
            if (value := self._structured(Environment, f"environments.{name}", table)) is not None
        }
        if not self.document.get("environments"):
            self._problem("", ("environments",), "at least one is needed: [environments.development] provider = …")
        self._check_providers(providers)
        self._check_environments(environments, providers, resources)
        if self.problems:
            raise ConfigError(sorted(self.problems, key=lambda problem: problem.line or 0))
        assert project is not None  # noqa: S101  a missing one is among the problems
        return Manifest(
            path=self.path,
            project=project,
            environments=environments,
            providers=providers,
            resources=resources,
            text=self.text,
        )

    def _resources(self) -> Iterator[Declared]:
        for service in SERVICES:
            for label, table in self._tables(service):
                cls = spec_type(service)
                fields = {field.name for field in attrs.fields(cls)}
                native = {
                    k: v for k, v in table.items() if isinstance(v, dict) and k not in fields and k in known_types()
                }
                own = {cls.name_key: label} | {k: v for k, v in table.items() if k not in native}
                spec = self._structured(cls, f"{service}.{label}", own)
                for type_, settings in native.items():
                    self._check_native(service, f"{service}.{label}", type_, settings)
                if spec is not None:
                    yield Declared(service=service, label=label, spec=spec, native=native)

    def _check_native(self, service: str, place: str, type_: str, table: Mapping[str, Any]) -> None:
        provider = _loaded(type_)
        if provider is None:
            return  # not installed, or broken: whoever uses it is told
        cls = provider.native_types.get(service)
        if cls is None:
            self._problem(place, (type_,), f"the provider {type_} has no settings of its own for {service}")
        else:
            self._structured(cls, f"{place}.{type_}", table)

    def _check_providers(self, providers: dict[str, Mapping[str, Any]]) -> None:
        for label, table in providers.items():
            place = f"providers.{label}"
            if "type" not in table:
                self._problem(place, ("type",), f"is missing; {_choices()}")
            elif not isinstance(table["type"], str):
                self._problem(place, ("type",), "must be text")
            elif table["type"] not in known_types():
                self._problem(place, ("type",), f"unknown provider {table['type']!r}; {_choices(table['type'])}")
            elif (provider := _loaded(table["type"])) is not None:
                settings = {key: value for key, value in table.items() if key != "type"}
                self._structured(provider.settings_type, place, settings)

    def _check_environments(
        self,
        environments: Mapping[str, Environment],
        providers: Mapping[str, Any],
        resources: Mapping[str, Declared],
    ) -> None:
        for name, environment in environments.items():
            place = f"environments.{name}"
            self._check_label(place, ("provider",), environment.provider, providers)
            for address, label in environment.overrides.items():
                if address not in resources:
                    hint = did_you_mean(address, resources)
                    self._problem(place, ("overrides", address), f"no such resource is declared{hint}")
                self._check_label(place, ("overrides", address), label, providers)
            for address, label in environment.mirrors.items():
                if address not in resources or resources[address].service != "secrets":
                    hint = did_you_mean(address, [each for each in resources if each.startswith("secrets.")])
                    self._problem(place, ("mirrors", address), f"no such secrets are declared{hint}")
                elif label == environment.overrides.get(address, environment.provider):
                    self._problem(place, ("mirrors", address), f"{label} is their provider; name another one")
                self._check_label(place, ("mirrors", address), label, providers)

    def _check_label(self, place: str, path: tuple[str, ...], label: str, providers: Mapping[str, Any]) -> None:
        if label not in providers and label not in known_types():
            known = {*providers, *registry.names()}
            self._problem(place, path, f"there is no [providers.{label}]{did_you_mean(label, known)}")

    def _tables(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        group = self.document.get(name, {})
        if not isinstance(group, dict):
            self._problem("", (name,), f"must be a table of tables, [{name}.x]")
            return
        for label, table in group.items():
            if not label:
                self._problem(name, (label,), f"the label must not be empty, [{name}.x]")
            elif isinstance(table, dict):
                yield label, table
            else:
                self._problem(name, (label,), f"must be a table, [{name}.{label}]")

    def _structured(self, cls: type[Any], place: str, table: Mapping[str, Any]) -> Any:  # noqa: ANN401  of that class
        here = Place(place, self.path.parent, _not_now, self.text, _not_open_now)
        try:
            return structure(cls, table, here)
        except ConfigError as exc:
            self.problems.extend(exc.problems)
            return None

    def _refuse_unknown(self, place: str, table: Mapping[str, Any], known: set[str]) -> None:
        for key in table.keys() - known:
            self._problem(place, (key,), f"unknown{did_you_mean(key, known)}")

    def _problem(self, table: str, path: tuple[str, ...], message: str) -> None:
        self.problems.append(Place(table, text=self.text).problem(path, message))


def _not_now(name: str) -> str:
    raise ConfigError(f"the secret {name} cannot be read while the file is")


def _not_open_now(label: str) -> NoReturn:
    raise ConfigError(f"the bucket {label} cannot be opened while the file is read")


def known_types() -> frozenset[str]:
    """Return the types of all providers that are installed or could be."""
    return frozenset({*registry.names(), *registry.KNOWN})


def _choices(name: str = "") -> str:
    known = known_types()
    return did_you_mean(name, known).removeprefix("; ") or f"there is: {', '.join(sorted(known))}"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, with the settings of the installed providers, for editors."""

    def tables(of: dict[str, Any], **more: Any) -> dict[str, Any]:  # noqa: ANN401
        return {"type": "object", "additionalProperties": of, **more}

    services = {service: tables(_with_native(service, schema(spec_type(service)))) for service in SERVICES}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": FILE_NAME,
        "type": "object",
        "properties": {
            "project": schema(Project),
            "environments": tables(schema(Environment), minProperties=1),
            "providers": tables({"oneOf": list(_provider_schemas())}),
            **services,
        },
        "required": ["project", "environments"],
        "additionalProperties": False,
    }


def _loaded(type_: str) -> type[Provider[Any]] | None:
    """Return a provider's class; ``None`` if it is not installed, or broken."""
    try:
        return registry.load(type_)
    except ProviderError:
        return None


def _with_native(service: str, spec: dict[str, Any]) -> dict[str, Any]:
    for name in sorted(known_types()):
        provider = _loaded(name)
        native = provider.native_types.get(service) if provider else None
        if native is not None:
            spec["properties"].setdefault(name, schema(native))
        elif provider is None:
            spec["properties"].setdefault(name, {"type": "object"})  # nobody here can say what is in it
    return spec


def _provider_schemas() -> Iterator[dict[str, Any]]:
    for name in sorted(known_types()):
        provider = _loaded(name)
        settings: dict[str, Any] = {"type": "object", "properties": {}}
        if provider is not None:
            settings = schema(provider.settings_type)
        settings["properties"] = {"type": {"const": name}, **settings["properties"]}
        settings["required"] = ["type", *settings.get("required", [])]
        yield settings
