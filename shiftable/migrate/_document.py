"""The final report as one document: JSON with a versioned schema, or one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from shiftable.migrate._plan import Plan
from shiftable.migrate._progress import Recorder, Sample
from shiftable.migrate._report import Report
from shiftable.migrate.mover import Options

__all__ = ["SCHEMA", "Document"]

SCHEMA = "shiftable.migrate.report/1"
"""Changes when a field goes or means something else; new fields may come without."""


@attrs.frozen(kw_only=True)
class Document:
    """What a call of the migration did, whole or until it was stopped.

    Args:
        options: how it was done, the filter too.
        plan: what was planned, if this call planned.
        move: what was moved, if anything was.
        verification: what was compared, if anything was.
        failure: why it ended before there was a result.
        samples: how far it was, over time.
    """

    source: str
    target: str
    started: datetime
    finished: datetime
    options: Mapping[str, Any]
    plan: Plan | None = None
    move: Report | None = None
    verification: Report | None = None
    failure: str = ""
    samples: tuple[Sample, ...] = ()

    @classmethod
    def of(
        cls,
        recorder: Recorder,
        *,
        route: tuple[str, str],
        options: Options,
        times: tuple[datetime, datetime],
        failure: str = "",
    ) -> Document:
        """Make the document of what a recorder has seen."""
        plans = [found for found in recorder.results if isinstance(found, Plan)]
        reports = [found for found in recorder.results if isinstance(found, Report)]
        return cls(
            source=route[0],
            target=route[1],
            started=times[0],
            finished=times[1],
            options=options.facts,
            plan=plans[-1] if plans else None,
            move=_only(report for report in reports if report.kind == "move"),
            verification=_only(report for report in reports if report.kind == "verification"),
            failure=failure,
            samples=recorder.samples,
        )

    @property
    def outcome(self) -> str:
        """``complete``, ``incomplete``, ``stopped`` or ``failed``."""
        results = [found for found in (self.plan, self.move, self.verification) if found is not None]
        reports = [found for found in (self.move, self.verification) if found is not None]
        if any(report.stopped for report in reports):
            return "stopped"
        if self.failure or not results:
            return "failed"
        return "complete" if all(found.complete for found in results) else "incomplete"

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.finished - self.started).total_seconds()

    def to_json(self) -> str:
        """Return the document for machines."""
        found = {
            "schema": SCHEMA,
            "outcome": self.outcome,
            "failure": self.failure,
            "source": self.source,
            "target": self.target,
            "started": self.started.isoformat(),
            "finished": self.finished.isoformat(),
            "options": self.options,
            "plan": _plan(self.plan),
            "move": json.loads(self.move.to_json()) if self.move else None,
            "verification": json.loads(self.verification.to_json()) if self.verification else None,
            "samples": [attrs.asdict(sample) for sample in self.samples],
        }
        return json.dumps(found, indent=2) + "\n"

    def to_html(self) -> str:
        """Return the document for people."""
        from shiftable.migrate._html import page

        return page(self)


def _plan(plan: Plan | None) -> dict[str, Any] | None:
    """Return a plan without the world that it pins: that is for the saved plan."""
    if plan is None:
        return None
    found: dict[str, Any] = json.loads(plan.to_json())
    for resource in found["resources"]:
        del resource["segments"]
    return found | {"complete": plan.complete}


def _only(found: Any) -> Report | None:  # noqa: ANN401  an iterable of reports
    last: Sequence[Report] = tuple(found)[-1:]
    return last[0] if last else None
