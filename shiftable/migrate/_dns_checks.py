"""Compares what name servers answer with what a zone holds: every record set, and what nobody has written."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from shiftable.dns import RecordKey, RecordSet
from shiftable.dns._wire import canonical_rdatas
from shiftable.migrate._dns_ask import NameServer, ask, replies
from shiftable.migrate._dns_message import NXDOMAIN, Answer, Question, Record, Reply, record_type, wire_name, written

__all__ = ["Heard", "ServerCheck", "Told", "told"]

_TXT = 16
_PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Seconds between rounds: of a change that was accepted a server may know a moment later."""
_WILDCARDS = 100


Told = Mapping[Question, Reply | None]
"""What a server said, not judged yet."""


def told(server: NameServer, records: Iterable[RecordSet]) -> Told:
    """Ask one server for record sets; for those whose type has no number nobody can ask.

    Raises:
        Unreachable: it answers nothing.
    """
    questions = list[Question]()
    for record in records:
        with contextlib.suppress(ValueError):
            questions.append(_question(record))
    return dict(replies(server, questions))


@attrs.frozen(kw_only=True)
class Heard:
    """What one server said.

    Args:
        differences: by key of the record set.
        probes: what is wrong with the answers to questions for what nobody has written, by what was probed.
        asked: record sets that were asked for.
        by_tcp: answers that were too long for UDP.
    """

    differences: Mapping[RecordKey, str]
    probes: Mapping[str, str]
    asked: int
    by_tcp: int


@attrs.frozen
class _Expected:
    """What is to be answered to one question, and by what it is judged.

    Args:
        cut: the delegation at or above the name, or the DNAME above it, which is answered instead.
    """

    key: RecordKey
    record: RecordSet
    cut: RecordSet | None = None

    def difference(self, question: Question, reply: Reply | None) -> str | None:
        """Say how a reply differs from what was expected; ``None`` if it does not.

        Nearly all have just the bytes that were expected, and need not be read.
        """
        record = self.record
        if self.cut is None and reply and reply.has_just(written(question.type, record.ttl, record.rdatas)):
            return None
        return _difference(self, question, None if reply is None else reply.read())


class ServerCheck:
    """Asks for the record sets of one zone.

    Args:
        zone: everything that the zone has to hold; what stands below delegations is found by it.
    """

    def __init__(self, origin: str, zone: Iterable[RecordSet], *, pause: Callable[[float], object]) -> None:
        self._origin = origin
        self._pause = pause
        self._names: dict[str, set[str]] = {}
        self._cuts: dict[str, RecordSet] = {}
        self._wildcards: list[RecordSet] = []
        for record in zone:
            self._names.setdefault(record.name, set()).add(record.type)
            if (record.type == "NS" and record.name != origin) or record.type == "DNAME":
                self._cuts[record.name] = record
            if record.name.startswith("*.") and not record.policy:
                self._wildcards.append(record)

    def hear(self, server: NameServer, records: Sequence[RecordSet], ahead: Told | None = None) -> Heard:
        """Ask one server for record sets, again for those that differ, and for what does not exist.

        Args:
            ahead: what it has said to at least these questions already.

        Raises:
            Unreachable: it answers nothing.
        """
        expected = {_question(record): self._expected(record) for record in records}
        tcp, differences = 0, dict[Question, str]()
        left: list[Question] = list(expected)
        for pause in (*_PAUSES, None):
            differences = {}
            said = replies(server, left) if ahead is None else [(question, ahead[question]) for question in left]
            ahead = None
            for question, reply in said:
                tcp += reply is not None and reply.by_tcp
                why = expected[question].difference(question, reply)
                if why is not None:
                    differences[question] = why
            left = list(differences)
            if not left or pause is None:
                break
            self._pause(pause)
        found = {expected[question].key: f"{server} {why}" for question, why in differences.items()}
        return Heard(differences=found, probes=self._probed(server), asked=len(expected), by_tcp=tcp)

    def _expected(self, record: RecordSet) -> _Expected:
        return _Expected(record.key, record, self._cut(record))

    def _cut(self, record: RecordSet) -> RecordSet | None:
        """Return what is answered instead of a record set."""
        if not self._cuts:
            return None
        found, name = None, record.name
        while name not in {self._origin, "."}:
            cut = self._cuts.get(name)
            if cut is not None and not (name == record.name and (cut.type == "DNAME" or record.type == "DS")):
                found = cut  # the one nearest to the apex decides
            name = _parent(name)
        apex = self._cuts.get(self._origin)  # a DNAME: it stands for all names below, not for its own
        return apex if apex is not None and record.name != self._origin else found

    # what nobody has written

    def _probed(self, server: NameServer) -> dict[str, str]:
        """Ask for names that no one has: they do not exist, or a wildcard answers for them."""
        found, questions = dict[str, str](), dict[Question, tuple[str, RecordSet | None]]()
        absent = f"shiftable-{secrets.token_hex(8)}"
        if self._origin not in self._cuts:
            covered = f"*.{self._origin}" in self._names
            if not covered:
                name = f"{absent}.{self._origin}"
                questions[Question(wire_name(name), _TXT)] = name, None
            for record in self._wildcards[:_WILDCARDS]:
                name = f"{absent}{record.name.removeprefix('*')}"
                if self._cut(attrs.evolve(record, name=name)) is None:
                    questions[Question(wire_name(name), record_type(record.type))] = name, record
        for question, answer in ask(server, questions):
            name, wildcard = questions[question]
            if wildcard is None:
                why = None if answer is not None and answer.rcode == NXDOMAIN else _told(answer)
                if why is not None:
                    found["a name that does not exist"] = f"{server} {why} to a question for {name}, not NXDOMAIN"
            else:
                why = _difference(_Expected(wildcard.key, wildcard), question, answer)
                if why is not None:
                    found[f"a name below {wildcard.name}"] = f"{server} {why} (asked for {name} {wildcard.type})"
        return found


def _question(record: RecordSet) -> Question:
    return Question(wire_name(record.name), record_type(record.type))


def _parent(name: str) -> str:
    r"""Return the name without its first label, whose dots are escaped."""
    at = 0
    while at < len(name) and name[at] != ".":
        at += 2 if name[at] == "\\" else 1
    return name[at + 1 :] or "."


def _difference(expected: _Expected, question: Question, answer: Answer | None) -> str | None:
    """Say how an answer differs from what was expected; ``None`` if it does not."""
    if answer is None:
        return "does not answer"
    if answer.truncated:
        return "cuts its answer off, and gives no whole one by TCP"
    cut = expected.cut
    if cut is not None and cut.type == "DNAME":
        return _compared(cut, wire_name(cut.name), answer.answer, answer)
    if cut is not None:
        return _referral(expected, cut, question, answer)
    if not answer.authoritative and answer.rcode == 0:
        return "is not authoritative for it"
    return _compared(expected.record, question.name, answer.answer, answer)


def _referral(expected: _Expected, cut: RecordSet, question: Question, answer: Answer) -> str | None:
    """Compare a referral: the name servers of the delegation, and its glue where the answer has it."""
    section = answer.authority if not answer.authoritative else answer.answer or answer.authority
    why = _compared(cut, wire_name(cut.name), section, answer)
    if why is None and expected.record is not cut:
        glue = [each for each in answer.additional if (each.name, each.type) == (question.name, question.type)]
        if glue:
            why = _compared(expected.record, question.name, tuple(glue), answer)
    return None if why is None else f"refers to others than {cut.name} does: it {why}"


def _compared(record: RecordSet, owner: bytes, section: tuple[Record, ...], answer: Answer) -> str | None:
    kind = record_type(record.type)
    found = [each for each in section if each.type == kind and each.name == owner]
    if not found:
        return _told(answer)
    values = canonical_rdatas(record.type, tuple(each.rdata for each in found))
    if values != record.canonical:
        missing, extra = len(record.canonical - values), len(values - record.canonical)
        return f"answers other values: {missing} are missing and {extra} are others"
    ttls = {each.ttl for each in found} - {record.ttl}
    return f"answers with a TTL of {min(ttls):,} s, not {record.ttl:,} s" if ttls else None


def _told(answer: Answer | None) -> str:
    """Say what an answer is that has not what was asked for."""
    if answer is None:
        return "does not answer"
    if answer.rcode:
        return f"answers {answer.status}"
    return "answers with other records" if answer.answer else "answers that there is no such record set"
