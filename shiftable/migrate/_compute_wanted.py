"""What the target is to have of a fleet: the declaration in its words, what is lost on the way, what is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from shiftable.compute import ALIASES, Compute, FleetSpec, MachineInfo
from shiftable.compute._rules import number_of, of_machine
from shiftable.compute.driver import GIB
from shiftable.errors import ConfigError, InvalidArgument
from shiftable.migrate.mover import Loss

__all__ = ["Fitting", "Wanted", "labels_that_differ", "labels_that_fit", "misfits"]


@attrs.frozen
class Wanted:
    """A declaration as the target is to have it.

    Args:
        losses: what was given up, or stays behind.
        refused: sentences; the fleet does not move while there are any.
    """

    spec: FleetSpec
    losses: tuple[Loss, ...]
    refused: tuple[str, ...]


@attrs.define
class Fitting:
    """Fits one declaration to a target. Calls nobody.

    Args:
        source: the provider's name, for sentences.
        equivalents: what takes the place of names of the source: of images, zones, networks, identities, GPUs.
        degrade: what may be lost.
    """

    source: str
    target: Compute
    equivalents: Mapping[str, str]
    degrade: frozenset[str]
    _losses: list[Loss] = attrs.field(factory=list, init=False)
    _refused: list[str] = attrs.field(factory=list, init=False)

    def fitted(self, spec: FleetSpec) -> Wanted:
        """Return what the target is to have."""
        spec = self._image(spec)
        spec = self._zone(spec)
        spec = self._own_name(spec, "network", self.target.features.network, "takes its default network")
        spec = self._own_name(spec, "identity", self.target.features.identity, "makes machines that are nobody to it")
        if spec.gpu is not None:
            spec = attrs.evolve(spec, gpu=self.equivalents.get(spec.gpu, spec.gpu))
        spec = self._features(spec)
        spec = self._labels(spec)
        self._check(spec)
        return Wanted(spec, tuple(self._losses), tuple(self._refused))

    # names of the source's provider

    def _image(self, spec: FleetSpec) -> FleetSpec:
        image = self.equivalents.get(spec.image, spec.image)
        if image != spec.image:
            self._losses.append(Loss("image", f"{spec.image}: {image} takes its place, as --map says", accepted=True))
        elif image not in ALIASES:
            self._refused.append(
                f"the image {image!r} is known to {self.source} alone; say what takes its place,"
                f" --map {image}=debian-12 or a name of the target's"
            )
        return attrs.evolve(spec, image=image)

    def _zone(self, spec: FleetSpec) -> FleetSpec:
        names = spec.zones if spec.zone is None else (spec.zone,)
        known = self.equivalents if self.target.features.zones else {}
        for name in (each for each in names if each not in known):
            how = f" (--map {name}=NAME chooses)" if self.target.features.zones else ""
            self._losses.append(Loss("zone", f"{name}: a name of the source's; the target chooses{how}"))
        found = tuple(known[each] for each in names if each in known)
        if spec.zone is not None:
            return attrs.evolve(spec, zone=found[0] if found else None)
        return attrs.evolve(spec, zones=found)

    def _own_name(self, spec: FleetSpec, field: str, has: bool, instead: str) -> FleetSpec:  # noqa: FBT001  a feature
        name: str | None = getattr(spec, field)
        if name is None:
            return spec
        changed: dict[str, Any] = {field: self.equivalents.get(name) if has else None}
        if changed[field] is not None:
            return attrs.evolve(spec, **changed)
        told = f"--map {name}=NAME names the target's, " if has else "the target lets nobody choose one; "
        self._give_up(field, f"{field} {name}: a name of the source's", f"{told}--degrade {field} {instead}")
        return attrs.evolve(spec, **changed)

    # what the target cannot do

    def _features(self, spec: FleetSpec) -> FleetSpec:
        has = self.target.features
        if spec.firewall and not has.open_ports:
            rules = "; ".join(map(str, spec.firewall))
            lost = f"the target has no firewall to say {rules} to: whatever listens there can be reached"
            self._give_up("firewall", lost, "--degrade firewall gives it up")
            spec = attrs.evolve(spec, open_ports=(), rules=())
        if spec.spot and not has.spot:
            self._give_up("spot", "the target has no spot machines", "--degrade spot takes ordinary ones")
            spec = attrs.evolve(spec, spot=False)
        if spec.placement not in {None, *has.placements}:
            lost = f"the target does not place machines {spec.placement}"
            self._give_up("placement", lost, "--degrade placement leaves it to the target")
            spec = attrs.evolve(spec, placement=None)
        if spec.public_ip and not has.public_ip:
            lost = "the target's machines cannot be reached from the internet"
            self._give_up("public_ip", lost, "--degrade public_ip accepts that")
            spec = attrs.evolve(spec, public_ip=False)
        if not has.user_data and (spec.user_data is not None or spec.user_data_text is not None):
            lost = "the target hands no user data to machines: nothing of it is done there"
            self._give_up("user_data", lost, "--degrade user_data accepts that")
            spec = attrs.evolve(spec, user_data=None, user_data_text=None)
        return spec

    def _labels(self, spec: FleetSpec) -> FleetSpec:
        kept, lost = labels_that_fit(self.target, attrs.evolve(spec, labels={}), spec.labels)
        for each in lost:
            self._give_up("labels", each, "--degrade labels gives it up")
        return attrs.evolve(spec, labels=kept)

    def _check(self, spec: FleetSpec) -> None:
        """Refuse what is still lacking; nothing that a move could give up."""
        self._refused += [f"the target has no {what}" for what in self.target.missing_features(spec)]
        self._refused += _unnamable(self.target, spec)
        try:
            spec.read_user_data()
        except ConfigError as exc:
            self._refused.append(str(exc))

    def _give_up(self, facet: str, lost: str, how: str) -> None:
        if facet in self.degrade:
            self._losses.append(Loss(facet, lost, accepted=True))
        else:
            self._refused.append(f"{lost}; {how}")


def labels_that_fit(
    target: Compute, spec: FleetSpec, labels: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Leave out labels that a target cannot keep, each judged by itself, and then those that are too many.

    Args:
        spec: with the labels that there are already.

    Returns:
        those that it can keep, and what is said of the others.
    """
    bare = {*target.missing_features(spec)}
    kept, lost = dict[str, str](), list[str]()
    for key, value in sorted(labels.items()):
        with_it = attrs.evolve(spec, labels={**spec.labels, key: value})
        lacking = [why for why in target.missing_features(with_it) if why not in bare]
        most = target.features.max_labels
        if most is not None and len(spec.labels) + len(kept) + 1 >= most.value:
            lost.append(f"the label {key}: the target has {most} for each machine ({most.source})")
        elif lacking:
            lost.append(f"the label {key}: the target has no {lacking[0]}")
        else:
            kept[key] = value
    return kept, tuple(lost)


def labels_that_differ(machine: MachineInfo, spec: FleetSpec) -> list[str]:
    """Return the names of wanted labels that a machine lacks or has otherwise."""
    return sorted(key for key, value in spec.labels.items() if machine.labels.get(key) != value)


def _unnamable(target: Compute, spec: FleetSpec) -> Iterator[str]:
    try:
        target.fleet(spec.name)
    except InvalidArgument as exc:
        yield str(exc)


def misfits(machine: MachineInfo, spec: FleetSpec, *, ours: bool) -> Iterator[str]:
    """Say in what a machine of the target is not what is wanted.

    Args:
        ours: a move has made it; then it may stand still, and is started again.
    """
    if machine.state in {"failed", "suspended", "unknown"}:
        yield f"it is {machine.state} ({machine.raw_state}); look at its console, and delete it"
    elif machine.state in {"stopped", "stopping"} and not ours:
        yield f"it is {machine.state}, and not ours; start it"
    for name in ("image", "arch", "spot"):
        if getattr(machine, name) != getattr(spec, name):
            yield f"its {name} is {getattr(machine, name)}, and not {getattr(spec, name)}"
    least = {
        "CPUs": (machine.cpus, spec.cpus),
        "GiB of memory": (machine.memory / GIB, spec.memory_gib),
        "GPUs": (machine.gpus, spec.gpus),
        "GiB of disk": (machine.disk_gib, spec.disk_gib),
    }
    yield from (f"it has {has:g} {what}, and not {wanted}" for what, (has, wanted) in least.items() if has < wanted)
    yield from _placed(machine, spec)
    lost = labels_that_differ(machine, spec)
    if lost:
        yield f"labels are others: {', '.join(lost)}"


def _placed(machine: MachineInfo, spec: FleetSpec) -> Iterator[str]:
    """Say where it is reached otherwise than it is to be."""
    zone = of_machine(spec, number_of(spec.name, machine.name)).zone
    if zone not in (None, machine.zone):
        yield f"its zone is {machine.zone}, and not {zone}"
    if machine.state == "running" and bool(machine.public_addresses) is not spec.public_ip:
        yield "it has no public address" if spec.public_ip else "it has a public address, which is not wanted"
    if machine.firewall != spec.firewall:
        yield f"its firewall lets in {_told(machine.firewall)}, and not {_told(spec.firewall)}"


def _told(values: Iterable[object]) -> str:
    return "; ".join(map(str, values)) or "nobody"
