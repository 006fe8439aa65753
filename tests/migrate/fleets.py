"""Two clouds of machines in memory, and an application that declares a fleet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from shiftable.compute import Compute, ComputeFeatures, Fleet, FleetSpec, MachineInfo
from shiftable.memory.compute import MemoryComputeDriver
from shiftable.migrate import Migration, Options
from shiftable.migrate._engine import Engine
from shiftable.service import Spec

__all__ = ["KEY", "WEB", "Fleets", "Machines"]

KEY = "ssh-ed25519 " + "A" * 68 + " somebody"
WEB = FleetSpec(name="web", image="debian-12", cpus=2, memory_gib=4, count=3, ssh_keys=(KEY,))


class Machines(MemoryComputeDriver):
    """The memory driver with a hook before and after each call that changes anything, a log of them, and features."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.chosen: dict[str, Any] = {}
        self.before: Callable[[str, str], None] = lambda _operation, _name: None
        self.after: Callable[[str, str], None] = lambda _operation, _name: None
        self.calls: list[tuple[str, str]] = []
        self.told: Callable[[MachineInfo], MachineInfo] = lambda machine: machine
        self.bad_labels: frozenset[str] = frozenset()
        self.listings = 0
        self.user_data_of: dict[str, bytes | None] = {}

    @property
    def features(self) -> ComputeFeatures:
        return attrs.evolve(super().features, **self.chosen)

    def missing_features(self, spec: FleetSpec) -> tuple[str, ...]:
        wrong = tuple(f"room for the label {key}" for key in sorted(self.bad_labels & {*spec.labels}))
        return (*super().missing_features(spec), *wrong)

    def machines(self, fleet: str | None, **kwargs: Any) -> Any:
        self.listings += 1
        found = super().machines(fleet, **kwargs)
        return attrs.evolve(found, items=tuple(map(self.told, found.items)))

    def machine(self, id: str) -> MachineInfo:
        return self.told(super().machine(id))

    def create(self, spec: FleetSpec) -> None:
        self._call("create", spec.name, super().create, spec)

    def create_machine(self, spec: FleetSpec, name: str, **kwargs: Any) -> MachineInfo:
        self.user_data_of[name] = kwargs["user_data"]
        found: MachineInfo = self._call("create_machine", name, super().create_machine, spec, name, **kwargs)
        return found

    def delete_machine(self, id: str) -> None:
        self._call("delete_machine", id, super().delete_machine, id)

    def destroy(self, name: str) -> None:
        self._call("destroy", name, super().destroy, name)

    def start(self, id: str) -> None:
        self._call("start", id, super().start, id)

    def stop(self, id: str) -> None:
        self._call("stop", id, super().stop, id)

    def _call(self, operation: str, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.before(operation, name)
        self.calls.append((operation, name))
        found = function(*args, **kwargs)
        self.after(operation, name)
        return found


@attrs.frozen
class Declared:
    service: str
    label: str
    spec: Spec


@attrs.define
class Cloud:
    services: Mapping[str, Any]

    def service(self, name: str) -> Any:
        return self.services[name]


class Fleets:
    """A fleet at ``old``, what is to have it at ``new``, and the application between them."""

    def __init__(self, folder: Path, spec: FleetSpec = WEB, **target: Any) -> None:
        self.state_dir = folder / ".shiftable"
        self.declaration = spec
        self.left, self.right = Machines(), Machines(**target)
        self.old, self.new = Compute(self.left, sleep=lambda _: None), Compute(self.right, sleep=lambda _: None)
        self.pauses = 0
        self.paused: Callable[[], None] = lambda: None

    def make(self, spec: FleetSpec | None = None) -> Fleet:
        """Make the fleet at the source."""
        return self.old.create(spec or self.declaration)

    def declared(self) -> tuple[Declared, ...]:
        return (Declared("compute", self.declaration.name, self.declaration),)

    def cloud(self, label: str) -> Cloud:
        return Cloud({"compute": {"old": self.old, "new": self.new}[label]})

    def migration(self, source: str = "old", target: str = "new", **options: Any) -> Migration:
        chosen = Options(**options)

        def pause(_stop: object, _seconds: float) -> None:
            self.pauses += 1
            self.paused()

        return Migration(self, source, target, (), chosen, engine=Engine(chosen, pause=pause))

    def plan(self, **options: Any) -> Any:
        return self.migration(**options).plan()

    def move(self, **options: Any) -> Any:
        return self.migration(**options).apply()

    def verify(self, **options: Any) -> Any:
        return self.migration(**options).verify()

    def there(self) -> list[MachineInfo]:
        """Return the target's machines as its driver has them."""
        return sorted((machine for machine in self.right._all(None)), key=lambda machine: machine.name)

    def here(self) -> list[MachineInfo]:
        """Return the source's."""
        return sorted((machine for machine in self.left._all(None)), key=lambda machine: machine.name)
