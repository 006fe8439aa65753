"""How long a log line takes to be searched for 1,000 secrets, beside the ways that people use.

Run it with ``python benchmarks/redaction.py``. Each round measures all ways, one right after the other; times are
medians. The others search for the values as they are; shiftable also for their encodings. ``ahocorasick`` is
pyahocorasick, in C; where it is not installed its line is missing.
"""

from __future__ import annotations

import logging
import random
import re
import statistics
import string
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from shiftable.secrets import RedactingFilter, Redactor

SECRETS = 1_000
LINES = 400
ROUNDS = 15


def values(chance: random.Random) -> list[str]:
    """Make secrets of 20 to 40 characters, a third of which begin alike, as keys of one service do."""
    letters = string.ascii_letters + string.digits + "-_/+"
    made = ["".join(chance.choices(letters, k=chance.randint(20, 40))) for _ in range(SECRETS)]
    return [f"sk_live_{value}" if number % 3 == 0 else value for number, value in enumerate(made)]


def lines(chance: random.Random, secrets: list[str]) -> list[str]:
    """Make log lines of about 150 characters; one in a hundred shows a secret."""
    words = (
        "order",
        "customer",
        "paid",
        "card",
        "ending",
        "took",
        "request",
        "shop",
        "north",
        "cart",
        "error",
        "retry",
    )
    made = []
    for number in range(LINES):
        text = f"2026-11-21 08:00:{number % 60:02},{number:03} INFO shop.orders:"
        while len(text) < 145:
            text += f" {chance.choice(words)} {chance.randint(0, 99999)}"
        made.append(f"{text} {chance.choice(secrets)}" if number % 100 == 0 else text)
    return made


def ways(secrets: list[str]) -> dict[str, Callable[[str], object]]:
    """Return what masks a line, by name."""
    redactor = Redactor()
    for secret in secrets:
        redactor.add(secret)
    pattern = re.compile("|".join(map(re.escape, secrets)))
    replaced = [(secret, "***") for secret in secrets]

    def one_by_one(line: str) -> str:
        for secret, stars in replaced:
            if secret in line:
                line = line.replace(secret, stars)
        return line

    logs = RedactingFilter(redactor)
    record = logging.makeLogRecord({"msg": ""})

    def filtered(line: str) -> str:
        record.msg = line
        logs.filter(record)
        return str(record.msg)

    found: dict[str, Callable[[str], object]] = {
        "shiftable: Redactor.mask": redactor.mask,
        "shiftable: a record through RedactingFilter": filtered,
        "re: one alternation": lambda line: pattern.sub("***", line),
        "str: each value in turn": one_by_one,
    }
    if find_spec("ahocorasick") is not None:
        automaton = import_module("ahocorasick").Automaton()
        for secret in secrets:
            automaton.add_word(secret, secret)
        automaton.make_automaton()
        found["ahocorasick: search only"] = lambda line: list(automaton.iter(line))
    return found


def main() -> None:
    """Print one line for each way."""
    chance = random.Random(7)  # noqa: S311  the same work each time
    secrets = values(chance)
    began = time.process_time()
    all_ways = ways(secrets)
    ready = time.process_time() - began
    print(f"{SECRETS:,} secrets, {LINES} lines of about 150 characters; {ready:.2f} s to make all ways ready; CPU time")
    work = lines(chance, secrets)
    expected = [all_ways["re: one alternation"](line) for line in work]
    for name, way in all_ways.items():
        if not name.startswith("ahocorasick") and [way(line) for line in work] != expected:
            raise SystemExit(f"{name} masks something else")
    times: dict[str, list[float]] = {name: [] for name in all_ways}
    for _ in range(ROUNDS):
        for name, way in all_ways.items():
            start = time.process_time()
            for line in work:
                way(line)
            times[name].append((time.process_time() - start) / len(work) * 1e6)
    base = statistics.median(times["shiftable: Redactor.mask"])
    for name, found in times.items():
        print(f"{name:45} {statistics.median(found):8.1f} µs a line {statistics.median(found) / base:8.1f} x")


if __name__ == "__main__":
    main()
