"""Which versions and instance classes RDS has in a region."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs
from botocore.exceptions import ClientError

from shiftable.database.driver import GIB, DatabaseSpec, Engine
from shiftable_aws import _rds_classes
from shiftable_aws._rds_groups import failure
from shiftable_aws._rds_settings import RdsSettings
from shiftable_aws._rds_told import NATIVE

if TYPE_CHECKING:
    from shiftable_aws._session import Session

__all__ = ["Offers", "Version", "is_within", "numbers_of"]

_NUMBERS = re.compile(r"\d+(\.\d+)*")


@attrs.frozen
class Version:
    """A version that RDS has, and the family of its parameter groups: ``16.10``, ``postgres16``."""

    name: str
    family: str


@attrs.define(eq=False)
class Offers:
    """Asks RDS once."""

    _session: Session
    _versions: dict[Engine, tuple[Version, ...]] = attrs.field(factory=dict, init=False, repr=False)
    _orderable: dict[tuple[object, ...], bool] = attrs.field(factory=dict, init=False, repr=False)

    def version(self, engine: Engine, version: str) -> Version:
        """Return the newest version that RDS has of a declared one."""
        if engine not in self._versions:
            paginator = self._session.client("rds").get_paginator("describe_db_engine_versions")
            self._versions[engine] = tuple(
                Version(found["EngineVersion"], found["DBParameterGroupFamily"])
                for page in paginator.paginate(Engine=NATIVE[engine])
                for found in page["DBEngineVersions"]
                if _NUMBERS.fullmatch(found["EngineVersion"])
            )
        every = self._versions[engine]
        fitting = [known for known in every if is_within(known.name, version)]
        if not fitting:
            majors = sorted({known.family for known in every})
            raise failure("InvalidParameterValue", f"RDS has no {engine} {version} here; it has {', '.join(majors)}")
        return max(fitting, key=lambda known: numbers_of(known.name))

    def offered(self, engine: Engine, version: str) -> Version:
        """Return a version like ``version``; of one that servers still have and RDS no longer offers, the newest."""
        try:
            return self.version(engine, version)
        except ClientError:
            major = version.rpartition(".")[0]
            if not major:
                raise
            return self.version(engine, major)

    def is_orderable(self, spec: DatabaseSpec, version: Version, name: str) -> bool:
        """Tell whether a server can be of a class, as it is declared."""
        key = (spec.engine, version, name, RdsSettings.of(spec).storage_type, spec.high_availability)
        if key not in self._orderable:
            answer = self._session.client("rds").describe_orderable_db_instance_options(
                Engine=NATIVE[spec.engine], EngineVersion=version.name, DBInstanceClass=name, Vpc=True
            )
            self._orderable[key] = any(
                option["StorageType"] == RdsSettings.of(spec).storage_type
                and (option["MultiAZCapable"] or not spec.high_availability)
                for option in answer["OrderableDBInstanceOptions"]
            )
        return self._orderable[key]

    def extent(self, name: str) -> tuple[int, int]:
        """Return the CPUs and GiB of a class: of the table, or of the EC2 machine behind one that is newer."""
        size = _rds_classes.classes().sizes.get(name)
        if size is not None:
            return size.cpus, size.memory // GIB
        filters: Any = [{"Name": "instance-type", "Values": [name.removeprefix("db.")]}]
        found = self._session.client("ec2").describe_instance_types(Filters=filters)["InstanceTypes"]
        if not found:
            text = f"{name} is not in {_rds_classes.classes().source}, and EC2 knows no such machine"
            raise failure("InvalidParameterValue", text)
        return found[0]["VCpuInfo"]["DefaultVCpus"], found[0]["MemoryInfo"]["SizeInMiB"] // 1024


def numbers_of(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, which can be compared."""
    return tuple(int(number) for number in version.split("."))


def is_within(version: str, declared: str) -> bool:
    """Tell whether a version is a declared one, or one of those: ``16.10`` is of ``16``."""
    return f"{version}.".startswith(f"{declared}.")
