"""Copies inside one provider: the content does not come through here."""

from __future__ import annotations

import contextlib

from shiftable.blob import Bucket, ObjectInfo
from shiftable.blob._bulk import SourceChanged, of_the_source
from shiftable.blob._task import Task
from shiftable.blob.driver import PutOptions
from shiftable.errors import Conflict, NotFound, ParentNotFound, PermissionDenied, PreconditionFailed, Unsupported
from shiftable.migrate._parts import tell_the_same

__all__ = ["Inside"]


class Inside:
    """Has the target's provider copy from the source's bucket, where one request reaches both.

    Copies are the more worth it the larger an object is; of a small one the looks at the source before and after cost
    more than its content. Where the target's credentials may not read the source's bucket, it is tried once.
    """

    def __init__(self, source: Bucket, target: Bucket) -> None:
        self._source = source
        self._target = target
        self._driver = target._driver  # noqa: SLF001  of the same library
        self._possible = self._driver.copies_from(source._driver)  # noqa: SLF001  the same

    @property
    def possible(self) -> bool:
        """Whether it is worth a try."""
        return self._possible

    def copy(self, info: ObjectInfo, options: PutOptions) -> ObjectInfo | None:
        """Copy an object in that version; ``None`` where the provider does not.

        No provider's copy takes a condition for the source on every path, so the source is looked at afterwards: its
        version is what was copied if it is the one there was before.

        Raises:
            SourceChanged: it is not in that version any more; what was copied does not stay.
            PreconditionFailed: the target's condition did not hold.
        """
        key = info.key
        task = Task(self._driver, self._target.name, key, "blob.copy")
        try:
            with task.translated:
                written = self._driver.copy(self._source.name, key, self._target.name, key, options)
        except (ParentNotFound, PermissionDenied):
            self._possible = False
            return None
        except NotFound as exc:
            self._look(info)  # raises, if it is the source that is gone
            if options.if_match is None:
                raise
            raise task.error(PreconditionFailed, "the object is not in that version: it does not exist") from exc
        except Unsupported:
            return None
        try:
            self._look(info, written)
        except Exception:
            if self._target.features.delete_if_match:
                with contextlib.suppress(PermissionDenied, Conflict):  # locked already
                    self._target.delete(key, if_match=written.token)
            raise
        return written

    def _look(self, info: ObjectInfo, written: ObjectInfo | None = None) -> None:
        with of_the_source(self._source, None):
            now = self._source.stat(info.key)
        if now.token != info.token or (written is not None and not tell_the_same(info, written)):
            raise SourceChanged("the object changed while it was copied")
