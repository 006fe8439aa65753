"""Moves: everything an application declares, from one provider to another, planned, pinned, verified.

>>> import tempfile, pathlib, types
>>> from shiftable import connect
>>> from shiftable.blob import BucketSpec
>>> from shiftable.migrate import Migration
>>> clouds = {"frankfurt": connect("memory"), "local": connect("memory")}
>>> declared = types.SimpleNamespace(service="blob", label="assets", spec=BucketSpec(name="shop-assets"))
>>> bucket = clouds["frankfurt"].blob.create(declared.spec)
>>> _ = bucket.put("logo.png", b"...")
>>> with tempfile.TemporaryDirectory() as folder:
...     app = types.SimpleNamespace(
...         state_dir=pathlib.Path(folder), declared=lambda: (declared,), cloud=lambda label: clouds[label]
...     )
...     migration = Migration(app, "frankfurt", "local")
...     plan = migration.plan()
...     report = migration.apply(plan)
...     again = migration.apply()
>>> plan.resources[0].to_do.count, report.complete, report.changed, again.changed
(1, True, 1, 0)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from shiftable.migrate._document import SCHEMA, Document
from shiftable.migrate._estimate import Cost, Demand, Estimate, Source
from shiftable.migrate._filters import Filter, KeyList, Rule
from shiftable.migrate._inventory import Inventory
from shiftable.migrate._journal import Named
from shiftable.migrate._migration import Migration
from shiftable.migrate._movers import FACETS
from shiftable.migrate._plan import Plan, ResourcePlan
from shiftable.migrate._progress import JsonEvents, Observer, Phase, Progress, Recorder, Sample, Silent
from shiftable.migrate._report import Large, LossCount, Report, ResourceReport, Tally
from shiftable.migrate._workers import Workers
from shiftable.migrate.mover import Action, Options, Trouble

if TYPE_CHECKING:
    from shiftable.migrate._compute_cutover import FleetCutover, FleetStatus, NamedRecord
    from shiftable.migrate._compute_health import HealthCheck
    from shiftable.migrate._cutover import Cutover, Delegation, Drift, Parent, Status
    from shiftable.migrate._dns_ask import NameServer

__all__ = [
    "FACETS",
    "SCHEMA",
    "Action",
    "Cost",
    "Cutover",
    "Delegation",
    "Demand",
    "Document",
    "Drift",
    "Estimate",
    "Filter",
    "FleetCutover",
    "FleetStatus",
    "HealthCheck",
    "Inventory",
    "JsonEvents",
    "KeyList",
    "Large",
    "LossCount",
    "Migration",
    "NameServer",
    "Named",
    "NamedRecord",
    "Observer",
    "Options",
    "Parent",
    "Phase",
    "Plan",
    "Progress",
    "Recorder",
    "Report",
    "ResourcePlan",
    "ResourceReport",
    "Rule",
    "Sample",
    "Silent",
    "Source",
    "Status",
    "Tally",
    "Trouble",
    "Workers",
]

_HOMES = {
    "Cutover": "_cutover",
    "Delegation": "_cutover",
    "Drift": "_cutover",
    "FleetCutover": "_compute_cutover",
    "FleetStatus": "_compute_cutover",
    "HealthCheck": "_compute_health",
    "NameServer": "_dns_ask",
    "NamedRecord": "_compute_cutover",
    "Parent": "_cutover",
    "Status": "_cutover",
}


def __getattr__(name: str) -> object:
    """Import what belongs to one service when it is used: a move of zones needs nothing of blobs."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"shiftable.migrate.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
