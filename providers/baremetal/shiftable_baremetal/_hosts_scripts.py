"""What is done on a host, in the shell that every one has; it goes through ssh's standard input, not its arguments.

In the folder ``~/.shiftable`` of the user who logs in:

    claim.7         who has the host, one line of JSON; the highest number counts
    released.7      there once that claim has ended
    labels.7.3      its labels since they were changed, one line of JSON; the highest of the last numbers counts
    run.7/          user-data, log, boot (when it began), done (its status), pid, rebooting (of which boot)

A claim is made by a hard link, which one of many succeeds to make, and never removed while it is the newest: so two
claimers never get one host, and a claim that was released is never released again in place of the next. So are labels:
whoever has read the third ones can make the fourth, unless somebody else was faster. All of a script
is read before any of it is done, so that a connection that breaks off does nothing by halves.
"""

from __future__ import annotations

import base64
import json
import secrets
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

__all__ = ["DENIED", "FACTS", "LOST", "TAKEN", "Seen", "claim", "look", "reboot", "relabel", "release"]

TAKEN, LOST, DENIED = 3, 4, 5
"""Exit codes: somebody has the host; the claim is not this one any more; only root may."""

FACTS = frozenset(
    ("mark", "fleet", "name", "token", "image", "size", "cpus", "memory", "disk_gib", "labels", "created")
)
"""What a claimer writes."""

_HERE = "shiftable:"

_BASE = """
umask 077
newest() {
    n=0
    for each in claim.*; do
        case ${each#claim.} in *[!0-9]*) ;; *) [ ${each#claim.} -gt $n ] && n=${each#claim.} ;; esac
    done
}
labels() {
    v=0
    for each in labels.$1.*; do
        case ${each##*.} in *[!0-9]*) ;; *) [ ${each##*.} -gt $v ] && v=${each##*.} ;; esac
    done
}
boot() { cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo unknown; }
root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
"""

_LOOK = """
echo {here}
cd ~/.shiftable 2>/dev/null || exit 0
newest
[ $n -gt 0 ] && [ ! -e released.$n ] || exit 0
echo $n
cat claim.$n
boot
cat run.$n/boot 2>/dev/null || echo
cat run.$n/done 2>/dev/null || echo
cat run.$n/rebooting 2>/dev/null || echo
labels $n
echo $v
cat labels.$n.$v 2>/dev/null || echo
"""

_CLAIM = """
mkdir -p ~/.shiftable && cd ~/.shiftable || exit 1
newest
if [ $n -gt 0 ] && [ ! -e released.$n ]; then exit {taken}; fi
i=$n
m=$((n + 1))
mkdir new.{mark} || exit 1
trap 'rm -rf new.{mark}' EXIT
mkdir new.{mark}/run
printf '%s\\n' {line} > new.{mark}/claim && boot > new.{mark}/run/boot || exit 1
{begin}
ln new.{mark}/claim claim.$m 2>/dev/null || exit {taken}
newest
if [ $n != $m ]; then rm -f claim.$m; exit {taken}; fi
rm -rf run.$m labels.$m.*
mv new.{mark}/run run.$m || exit 1
while [ $i -gt 0 ] && [ -e claim.$i ]; do rm -rf claim.$i released.$i run.$i labels.$i.*; i=$((i - 1)); done
{keys}
if [ -e run.$m/user-data ]; then
    runner='echo $$ > pid
        if [ "$(id -u)" = 0 ]; then ./user-data; else sudo -n ./user-data; fi > log 2>&1 < /dev/null
        echo $? > done.new
        mv done.new done'
    (cd run.$m && exec setsid sh -c "$runner" > /dev/null 2>&1 < /dev/null) &
else
    echo 0 > run.$m/done
fi
"""

_WHOLE_LINES = """mkdir -p ~/.ssh
if [ -n "$(tail -c 1 ~/.ssh/authorized_keys 2>/dev/null)" ]; then echo >> ~/.ssh/authorized_keys; fi
"""

_OURS = """
cd ~/.shiftable 2>/dev/null && grep -q {mark} claim.{number} 2>/dev/null && [ ! -e released.{number} ] || exit {lost}
"""

_RELABEL = """
mkdir new.{once} || exit 1
trap 'rm -rf new.{once}' EXIT
printf '%s\\n' {line} > new.{once}/labels || exit 1
ln new.{once}/labels labels.{number}.{version} 2>/dev/null || exit {taken}
labels {number}
if [ $v != {version} ]; then rm -f labels.{number}.{version}; exit {taken}; fi
i=$((v - 1))
while [ $i -gt 0 ] && [ -e labels.{number}.$i ]; do rm -f labels.{number}.$i; i=$((i - 1)); done
"""

_RELEASE = """
if [ -e run.{number}/pid ] && [ ! -e run.{number}/done ] && [ "$(boot)" = "$(cat run.{number}/boot)" ]; then
    pid=$(cat run.{number}/pid)
    kill -TERM -$pid 2>/dev/null || root kill -TERM -$pid 2>/dev/null
fi
if grep -q {mark} ~/.ssh/authorized_keys 2>/dev/null; then
    grep -v {mark} ~/.ssh/authorized_keys > authorized_keys.new
    cat authorized_keys.new > ~/.ssh/authorized_keys
    rm authorized_keys.new
fi
rm -rf run.{number} labels.{number}.*
: > released.{number}
"""

_REBOOT = """
root true 2>/dev/null || exit {denied}
boot > run.{number}/rebooting
(sleep 1; root reboot) > /dev/null 2>&1 < /dev/null &
"""


@attrs.frozen(kw_only=True)
class Seen:
    """A claim, as it was found on its host.

    Args:
        facts: what the claimer wrote.
        labels: by now.
        version: how often these were changed.
        rebooted: since the user data was begun.
        status: of the user data; ``None`` before its end.
        rebooting: it was told to, and has not yet.
    """

    number: int
    facts: Mapping[str, Any]
    labels: Mapping[str, str]
    version: int
    rebooted: bool
    status: int | None
    rebooting: bool

    @classmethod
    def read(cls, text: str) -> Seen | None:
        """Return what ``look`` printed; ``None`` if nobody has the host."""
        _, found, told = text.rpartition(f"{_HERE}\n")  # what a login prints comes before
        if not found:
            raise ValueError("no answer")
        if not told:
            return None
        number, line, now, then, status, rebooting, version, changed = told.split("\n")[:8]
        facts = json.loads(line)
        if not isinstance(facts, dict) or not facts.keys() >= FACTS:
            raise ValueError("another's facts")
        return cls(
            number=int(number),
            facts=facts,
            labels=json.loads(changed) if changed else facts["labels"],
            version=int(version),
            rebooted=now != then,
            status=int(status) if status else None,
            rebooting=rebooting == now,
        )


def look() -> str:
    """Print who has the host."""
    return _whole(_LOOK.replace("{here}", _HERE))


def claim(mark: str, facts: Mapping[str, Any], keys: Sequence[str], user_data: bytes | None) -> str:
    """Claim the host unless somebody has it, and begin the user data."""
    begin = added = ""
    if user_data is not None:
        coded = base64.b64encode(user_data).decode()
        begin = f"base64 -d > new.{mark}/run/user-data <<'end'\n{coded}\nend\nchmod 700 new.{mark}/run/user-data"
    if keys:
        lines = " ".join(shlex.quote(f"{key} {mark}") for key in keys)
        added = f"{_WHOLE_LINES}printf '%s\\n' {lines} >> ~/.ssh/authorized_keys"
    line = shlex.quote(json.dumps(dict(facts)))
    return _whole(_CLAIM.format(mark=mark, line=line, begin=begin, keys=added, taken=TAKEN))


def release(mark: str, number: int) -> str:
    """End a claim; what the user data did is the host's to keep."""
    return _whole((_OURS + _RELEASE).format(mark=mark, number=number, lost=LOST))


def relabel(mark: str, number: int, version: int, labels: Mapping[str, str]) -> str:
    """Replace labels that have this version, or say that they have another by now."""
    once, line = f"{mark}.{secrets.token_hex(4)}", shlex.quote(json.dumps(dict(labels)))
    return _whole((_OURS + _RELABEL).format(
        mark=mark, number=number, lost=LOST, taken=TAKEN, once=once, line=line, version=version + 1
    ))  # fmt: skip


def reboot(mark: str, number: int) -> str:
    """Restart the host."""
    return _whole((_OURS + _REBOOT).format(mark=mark, number=number, lost=LOST, denied=DENIED))


def _whole(script: str) -> str:
    return f"main() {{\n{_BASE}{script}}}\nmain\nexit $?\n"
