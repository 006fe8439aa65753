"""Where a server's log goes on from another one's that is stored: by the names of transactions, after a failover.

A server that has taken over has the same transactions in its own files. They are known by what every server calls them,
and the last one that is stored must have begun in the same second: a log that was reset counts from the beginning.
"""

from __future__ import annotations

from itertools import islice

from shiftable_baremetal._archive import GapError
from shiftable_baremetal._binlog import MAGIC, Join, Known, Place, Reached
from shiftable_baremetal._binlog_session import BinlogSession, Stream
from shiftable_baremetal._binlog_store import BinlogStore

__all__ = ["joined"]

_HEAD = 2  # events: how the file is written, and which transactions are in those before


def joined(store: BinlogStore, server: BinlogSession, stream: Stream, gap: GapError) -> Join:
    """Find where the server's log goes on from what is stored.

    Raises:
        GapError: it does not.
    """
    archived = store.archived()
    known = Reached() if archived is None else store.reached(archived)
    if archived is None or known.latest is None:
        raise gap
    stem, files = server.files()
    first = next((file for file in reversed(files) if _begins_within(stream, stem, file, known)), None)
    if first is None:
        raise GapError(f"{gap}; it lacks the transaction {known.latest}, with which what is stored ends")
    return Join(
        before=archived.epoch,
        end=archived.mark.place,
        epoch=store.next_epoch(),
        server=server.number(),
        first=first,
        to=_after(stream, stem, first, known, gap),
        last=list(known.last.values()),
    )


def _begins_within(stream: Stream, stem: str, file: int, known: Reached) -> bool:
    """Tell whether all before a file is known, but not the latest transaction that is."""
    with stream.events(stem, file, 0) as events:
        before = [gtid for _, event in islice(events, _HEAD) for gtid in event.before]
    return known.latest not in before and all(
        gtid.domain in known.last and gtid.sequence <= known.last[gtid.domain].sequence for gtid in before
    )


def _after(stream: Stream, stem: str, first: int, known: Reached, gap: GapError) -> Place:
    """Return the place in the server's log after which nothing is known, and before which nothing else is."""
    left, seen, file, offset = Known(dict(known.last)), False, first, len(MAGIC)
    with stream.events(stem, first, 0) as events:
        for number, event in events:
            file, offset = (file, offset) if number == file else (number, len(MAGIC))
            if event.begins_transaction and seen and not left.last:
                break
            for gtid in event.before or ((event.gtid,) if event.begins_transaction else ()):
                if gtid.domain in left.last and not known.has(gtid):
                    why = "it took over before it had all, or was written before it took over"
                    raise GapError(f"{gap}; its transaction {gtid} is not stored, and later ones are: {why}")
            left.knows(event)
            seen = seen or (event.begins_transaction and (event.gtid, event.when) == (known.latest, known.when))
            offset += len(event.data)
    if left.last or not seen:
        lacking = next(iter(left.last.values()), known.latest)
        raise GapError(f"{gap}; it lacks the transaction {lacking}, which is stored")
    return file, offset
