"""One self-contained HTML page of a migration: no scripts, nothing from elsewhere, charts as SVG in the text."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import attrs

from shiftable.migrate._report import LossCount, Report, Tally
from shiftable.migrate.mover import Action

if TYPE_CHECKING:
    from shiftable.migrate._document import Document
    from shiftable.migrate._estimate import Estimate
    from shiftable.migrate._journal import Named
    from shiftable.migrate._plan import Plan
    from shiftable.migrate._progress import Sample

__all__ = ["page", "visible"]

_ROWS = 500
"""Of a table; what is cut is counted. The JSON report has more, the journal all."""
_WIDTH = 720
_HEIGHT = 160
_ODD = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Characters that do not show, or turn the text around them."""
_COLOURS = {
    Action.CREATE: "a",
    Action.REPLACE: "b",
    Action.COMPARE: "c",
    Action.UNCHANGED: "d",
    Action.DELETE: "e",
    Action.STALE: "f",
    Action.FOREIGN: "f",
    Action.HIDDEN: "f",
}
_PLAIN = {
    "a": "#0969da",
    "b": "#8250df",
    "c": "#1a7f37",
    "d": "#6e7781",
    "e": "#cf222e",
    "f": "#9a6700",
}
"""The colours of the light mode once more, as attributes: what turns pages into paper may read no styles in charts."""
_MEANING = {
    "complete": ("good", "Everything is there"),
    "incomplete": ("bad", "Not everything is there"),
    "stopped": ("bad", "Stopped before the end"),
    "failed": ("bad", "Failed"),
}

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #ffffff; --card: #f6f8fa; --line: #d0d7de;
  --a: #0969da; --b: #8250df; --c: #1a7f37; --d: #6e7781; --e: #cf222e; --f: #9a6700; --good: #1a7f37; --bad: #b3151f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa4af; --paper: #0d1117; --card: #161b22;
  --line: #30363d; --a: #58a6ff; --b: #bc8cff; --c: #3fb950; --d: #8b949e; --e: #ff7b72; --f: #d29922; --good: #3fb950;
  --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 60rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: .5rem 0; } .soft { color: var(--soft); }
.verdict { font-weight: 600; } .good { color: var(--good); } .bad { color: var(--bad); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
.facts dt { color: var(--soft); font-size: .85rem; } .facts dd { margin: 0; font-size: 1.2rem; font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
caption { text-align: left; color: var(--soft); padding-bottom: .35rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
bdi, code { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
.odd { color: var(--bad); }
svg { display: block; width: 100%; height: auto; margin: .5rem 0; } svg text { fill: var(--soft); font-size: 12px; }
.fa { fill: var(--a); } .fb { fill: var(--b); } .fc { fill: var(--c); } .fd { fill: var(--d); } .fe { fill: var(--e); }
.ff { fill: var(--f); } .track { fill: var(--line); } .axis { stroke: var(--line); }
.line { fill: none; stroke: var(--a); stroke-width: 2; vector-effect: non-scaling-stroke; }
.area { fill: var(--a); }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; padding: 0; margin: .25rem 0;
  font-size: .88rem; color: var(--soft); }
.legend svg { display: inline-block; width: .8rem; height: .8rem; margin: 0 .35rem 0 0; vertical-align: -1px; }
a { color: var(--a); }
@media print { body { max-width: none; } h2 { break-after: avoid; } tr { break-inside: avoid; } }
"""


def page(document: Document) -> str:
    """Return the page of a document. Every text of others, keys above all, is shown and never obeyed."""
    title = f"Move from {document.source} to {document.target}"
    parts = [
        _head(document, title),
        _chart_of_time(document.samples),
        *([_plan(document.plan)] if document.plan else []),
        *([_report("Moved", document.move)] if document.move else []),
        *([_verified(document.verification, document.move)] if document.verification else []),
        _options(document),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{visible(title, markup=False)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def visible(text: str, *, markup: bool = True) -> str:
    """Return a text for HTML: nothing in it is markup, and what does not show or turns the text around is spelt out."""
    found = [_char(char, markup=markup) for char in text]
    return "".join(found)


def _char(char: str, *, markup: bool) -> str:
    if unicodedata.category(char) not in _ODD:
        return html.escape(char)
    spelt = f"\\u{{{ord(char):x}}}"
    return f'<span class="odd">{spelt}</span>' if markup else spelt


def _key(key: str) -> str:
    return f"<bdi>{visible(key)}</bdi>"


# the parts


def _head(document: Document, title: str) -> str:
    colour, meaning = _MEANING[document.outcome]
    if document.plan and not document.move and not document.verification and document.outcome == "complete":
        meaning = "Planned; everything would arrive"
    why = document.failure or next(
        (report.stopped for report in (document.move, document.verification) if report and report.stopped), ""
    )
    told = f": {visible(why)}" if why else ""
    started, finished = (moment.strftime("%Y-%m-%d %H:%M:%S") for moment in (document.started, document.finished))
    return (
        f'<header>\n<h1>{visible(title)}</h1>\n<p class="verdict {colour}">{meaning}{told}</p>\n'
        f'<p class="soft">{started} to {finished} UTC</p>\n{_facts(document)}</header>'
    )


def _facts(document: Document) -> str:
    facts = [("Duration", _duration(document.seconds))]
    if document.move:
        wrote = _sum(document.move, (Action.CREATE, Action.REPLACE))
        facts += [("Items written", f"{wrote.count:,}")]
        facts += [("Bytes written", _size(wrote.bytes))] if wrote.bytes else []
        if document.move.seconds >= 1 and wrote.bytes:
            facts.append(("On average", f"{_size(int(wrote.bytes / document.move.seconds))}/s"))
    if document.verification:
        same = sum(found.verified.count for found in document.verification.resources)
        facts.append(("Verified equal", f"{same:,}"))
    named = sum(
        sum(found.troubles.values())
        for report in (document.move, document.verification)
        if report
        for found in report.resources
    )
    facts.append(("Named troubles", f"{named:,}"))
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{rows}</dl>\n'


def _plan(plan: Plan) -> str:
    rows = [
        [_key(found.address), visible(str(action)), f"{tally.count:,}", _bytes(tally)]
        for found in plan.resources
        for action, tally in found.actions.items()
    ]
    parts = [
        _table("What would be done", ("Resource", "Action", "#Items", "#Bytes"), rows),
        _refused((found.address, found.refused) for found in plan.resources),
        _losses([loss for found in plan.resources for loss in found.losses]),
        *(_estimate(found.address, found.estimate) for found in plan.resources if found.estimate),
        _named([each for found in plan.resources for each in found.named], _troubles(plan)),
    ]
    return f"<section>\n<h2>Plan {plan.digest[:12]}</h2>\n" + "\n".join(filter(None, parts)) + "\n</section>"


def _estimate(address: str, estimate: Estimate) -> str:
    rows = [
        [
            visible(cost.what),
            "unknown" if cost.amount is None else f"{cost.amount:,.4f} {visible(cost.currency)}",
            visible(cost.why),
        ]
        for cost in estimate.costs
    ]
    told = [f"{side} by {visible(name)}" for side, name in _requests(estimate)]
    time = f"At least {_duration(estimate.seconds)}: {visible(estimate.bound)}." if estimate.seconds is not None else ""
    prices = "; ".join(
        f"{visible(found.provider)} {visible(found.region)}, {visible(found.tier)}, {found.dated}"
        for found in estimate.prices
    )
    return (
        f"<h3>Estimate for {_key(address)}</h3>\n<p>{'; '.join(told)}. {time}</p>\n"
        + _table("List prices, before free allowances, discounts and taxes", ("For", "#Cost", "Why unknown"), rows)
        + (f'<p class="soft">Prices: {prices}.</p>' if prices else "")
    )


def _requests(estimate: Estimate) -> list[tuple[str, str]]:
    sides = (("source", estimate.source.requests), ("target", estimate.target.requests))
    return [
        (
            f"{sum(requests.values()):,} requests to the {side}",
            ", ".join(f"{n:,} {k}" for k, n in requests.items() if n),
        )
        for side, requests in sides
    ]


def _report(title: str, report: Report) -> str:
    parts = [
        _chart_of_resources(report),
        _table(
            "Items and bytes by resource",
            ("Resource", "Action", "#Items", "#Bytes"),
            [
                [_key(found.address), visible(str(action)), f"{tally.count:,}", _bytes(tally)]
                for found in report.resources
                for action, tally in found.done.items()
            ],
        ),
        _refused((found.address, found.refused) for found in report.resources),
        _largest(report),
        _losses([loss for found in report.resources for loss in found.losses]),
        _named([each for found in report.resources for each in found.named], _troubles(report)),
        f'<p class="soft">Not moved, no mover yet: {visible(", ".join(report.skipped))}</p>' if report.skipped else "",
    ]
    shown = "\n".join(filter(None, parts)) or "<p>Nothing was done.</p>"
    return f"<section>\n<h2>{title}</h2>\n{shown}\n</section>"


def _verified(report: Report, moved: Report | None) -> str:
    same = sum(found.verified.count for found in report.resources)
    wrong = _troubles(report)
    expected = max(same + wrong, _sum(moved, (Action.CREATE, Action.REPLACE, Action.COMPARE)).count if moved else 0)
    share = same / expected if expected else 1.0
    shown = f"{share:.1%}" if same < expected else "100 %"
    told = f"{same:,} of {expected:,} items are equal on both sides ({shown})"
    parts = [
        f"<p>{told}.</p>" if expected else "<p>There was nothing to compare.</p>",
        _bar(told, [("c", share), ("e", 1 - share)]) if expected else "",
        *(
            f'<p class="soft">{visible(f"{found.address}: {note}")}</p>'
            for found in report.resources
            for note in found.notes
        ),
        _refused((found.address, found.refused) for found in report.resources),
        _named([each for found in report.resources for each in found.named], wrong),
    ]
    return "<section>\n<h2>Verified</h2>\n" + "\n".join(filter(None, parts)) + "\n</section>"


def _largest(report: Report) -> str:
    found = sorted(
        ((large, resource.address) for resource in report.resources for large in resource.largest),
        key=lambda each: -each[0].bytes,
    )[:20]
    rows = [[_key(address), _key(large.key), _size(large.bytes)] for large, address in found]
    if not rows:
        return ""
    bars = [(large.key, large.bytes, _size(large.bytes)) for large, _ in found[:10]]
    return (
        "<h3>Largest objects</h3>\n"
        + _bars("The largest objects that were written", bars, "a")
        + _table("Largest objects that were written", ("Resource", "Key", "#Bytes"), rows)
    )


def _losses(losses: Sequence[LossCount]) -> str:
    if not losses:
        return ""
    words = {True: "lost, accepted", False: "would be lost", None: "note"}
    rows = [
        [
            visible(loss.facet),
            visible(loss.detail),
            words[loss.accepted],
            f"{loss.count:,}",
            ", ".join(_key(key) for key in loss.examples if key),
        ]
        for loss in losses
    ]
    counted: dict[str, int] = {}
    for loss in losses:
        counted[loss.facet] = counted.get(loss.facet, 0) + loss.count
    heads = ("Facet", "What", "How", "#Items", "Examples")
    bars = [(facet, count, f"{count:,}") for facet, count in list(counted.items())[:20]]
    return (
        "<h3>What does not reach the target</h3>\n"
        + _bars("Items that lose something, by facet", bars, "f")
        + _table("What does not reach the target, by facet", heads, rows)
    )


def _named(named: Sequence[Named], total: int) -> str:
    if not total:
        return ""
    rows = [[visible(str(each.trouble)), _key(each.resource), _key(each.key), visible(each.reason)] for each in named]
    return "<h3>Troubles</h3>\n" + _table(
        "Items that did not go as planned", ("Trouble", "Resource", "Key", "Why"), rows, total=total
    )


def _refused(found: Iterable[tuple[str, tuple[str, ...]]]) -> str:
    rows = [[_key(address), visible(why)] for address, reasons in found for why in reasons]
    return _table("Refused as a whole", ("Resource", "Why"), rows) if rows else ""


def _options(document: Document) -> str:
    rows = [[visible(name), f"<code>{visible(str(value))}</code>"] for name, value in document.options.items()]
    return f"<section>\n<h2>Options</h2>\n{_table('How it was done', ('Option', 'Value'), rows)}\n</section>"


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, total: int | None = None) -> str:
    """Return a table of cells that are HTML already; a head that begins with # is of numbers."""
    if not rows:
        return ""
    shown = rows[:_ROWS]
    count = len(rows) if total is None else total
    cut = f" (the first {len(shown):,} of {count:,})" if count > len(shown) else ""
    kinds = [' class="n"' if head.startswith("#") else "" for head in heads]
    head = "".join(
        f'<th scope="col"{kind}>{name.removeprefix("#")}</th>' for name, kind in zip(heads, kinds, strict=True)
    )
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in shown
    )
    return (
        f'<div class="wide"><table>\n<caption>{caption}{cut}</caption>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


# charts


@attrs.frozen
class _Rate:
    begin: float
    end: float
    rate: float


def _chart_of_time(samples: Sequence[Sample]) -> str:
    """Draw bytes a second over time, items a second where no bytes are known."""
    rates = _rates(samples, by_bytes=True)
    text = "bytes"
    if not any(each.rate for each in rates):
        rates, text = _rates(samples, by_bytes=False), "items"
    if not any(each.rate for each in rates):
        return ""
    top, end = max(each.rate for each in rates), max(each.end for each in rates)
    most = f"{_size(int(top))}/s" if text == "bytes" else f"{top:,.0f} items/s"
    points = [point for each in rates for point in ((each.begin, each.rate), (each.end, each.rate))]
    scaled = [(x / end * _WIDTH, _HEIGHT - y / top * (_HEIGHT - 20)) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in scaled)
    area = f"{scaled[0][0]:.1f},{_HEIGHT} {line} {scaled[-1][0]:.1f},{_HEIGHT}"
    told = f"Throughput over {_duration(end)}, in {text} a second; at most {most}"
    drawn = (
        f'<line class="axis" stroke="#d0d7de" x1="0" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}"/>'
        f'<polygon class="area" fill="{_PLAIN["a"]}" fill-opacity=".18" points="{area}"/>'
        f'<polyline class="line" fill="none" stroke="{_PLAIN["a"]}" points="{line}"/>'
        f'<text x="2" y="12">{most}</text><text x="0" y="{_HEIGHT + 16}">0 s</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 16}" text-anchor="end">{_duration(end)}</text>'
    )
    return f"<section>\n<h2>Throughput</h2>\n{_svg(told, _HEIGHT + 22, drawn)}\n</section>"


def _rates(samples: Sequence[Sample], *, by_bytes: bool) -> list[_Rate]:
    found = []
    for before, after in pairwise(samples):
        if (before.phase, before.resource) != (after.phase, after.resource) or after.seconds <= before.seconds:
            continue
        done = after.bytes - before.bytes if by_bytes else after.items - before.items
        found.append(_Rate(before.seconds, after.seconds, max(0, done) / (after.seconds - before.seconds)))
    return found


def _chart_of_resources(report: Report) -> str:
    """Draw a bar for each resource, as long as its items are many, and in it what was done with them."""
    rows = [(found.address, {a: t.count for a, t in found.done.items() if t.count}) for found in report.resources]
    rows = [row for row in rows if row[1]][:20]
    if not rows:
        return ""
    most = max(sum(counts.values()) for _, counts in rows)
    drawn, top = [], 0
    for address, counts in rows:
        left = 0.0
        drawn.append(
            f'<text x="0" y="{top + 12}">{visible(_short(address), markup=False)}: {sum(counts.values()):,}</text>'
        )
        for action, count in counts.items():
            width = count / most * _WIDTH
            paint = _fill(_COLOURS.get(action, "f"))
            bar = f'<rect {paint} x="{left:.1f}" y="{top + 17}" width="{width:.1f}" height="12">'
            drawn.append(f"{bar}<title>{visible(str(action), markup=False)}: {count:,}</title></rect>")
            left += width
        top += 40
    actions = list(dict.fromkeys(action for _, counts in rows for action in counts))
    return _svg("Items of each resource, by what was done with them", top, "".join(drawn)) + _legend(actions)


def _bars(told: str, rows: Sequence[tuple[str, int, str]], colour: str) -> str:
    """Draw a bar for each name, as long as its number; the number is written beside it."""
    most = max((number for _, number, _ in rows), default=0) or 1
    drawn = []
    for place, (name, number, text) in enumerate(rows):
        top = place * 34
        drawn.append(
            f'<text x="0" y="{top + 12}">{visible(_short(name), markup=False)}: {text}</text>'
            f'<rect {_fill(colour)} x="0" y="{top + 17}" width="{number / most * _WIDTH:.1f}" height="10"/>'
        )
    return _svg(told, len(rows) * 34, "".join(drawn))


def _fill(colour: str) -> str:
    return f'class="f{colour}" fill="{_PLAIN[colour]}"'


def _legend(actions: Sequence[Action]) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 10 10" aria-hidden="true"><rect {_fill(_COLOURS.get(action, "f"))} width="10"'
        f' height="10"/></svg>{visible(str(action))}</li>'
        for action in actions
    )
    return f'<ul class="legend">{items}</ul>'


def _bar(told: str, shares: Sequence[tuple[str, float]]) -> str:
    left, drawn = 0.0, f'<rect class="track" fill="#d0d7de" width="{_WIDTH}" height="14"/>'
    for colour, share in shares:
        drawn += f'<rect {_fill(colour)} x="{left:.1f}" width="{share * _WIDTH:.1f}" height="14"/>'
        left += share * _WIDTH
    return _svg(told, 14, drawn)


def _svg(told: str, height: int, drawn: str) -> str:
    name = html.escape(told, quote=True)
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{name}"><title>{name}</title>{drawn}</svg>\n'


# words


def _sum(report: Report, actions: Iterable[Action]) -> Tally:
    found = [resource.done.get(action, Tally()) for resource in report.resources for action in actions]
    return Tally(sum(tally.count for tally in found), sum(tally.bytes for tally in found))


def _bytes(tally: Tally) -> str:
    """Say the bytes of items, where those are known: secrets tell none."""
    return _size(tally.bytes) if tally.bytes else ""


def _troubles(found: Plan | Report) -> int:
    return sum(sum(resource.troubles.values()) for resource in found.resources)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _size(size: int) -> str:
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1024
    raise AssertionError  # the last unit has no end


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
