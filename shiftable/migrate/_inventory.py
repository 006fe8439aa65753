"""A listing file in place of a bucket's own listing, as a value: nothing is read before it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from shiftable.blob import Bucket, ObjectSummary
    from shiftable.migrate._listing import Entry

__all__ = ["Inventory"]


@attrs.frozen
class Inventory:
    """A listing file, told by its name.

    - ``manifest.json`` of S3 Inventory: its data files, CSV or Parquet, are looked for beside it, in ``data`` beside
      it and in ``data`` beside its folder, and are compared with the MD5 that it tells;
    - ``*.csv``, ``*.csv.gz``: with a line of column names (key or name, size, etag, modified or LastModifiedDate,
      bucket, IsLatest, IsDeleteMarker, StorageClass; the others do not matter), keys as they are; without one the
      columns are bucket, key, size, etag, as many of them as there are, and keys are URL-encoded, as S3 Inventory does;
    - ``*.parquet``: the same columns; needs pyarrow;
    - anything else: keys in UTF-8, one a line or each ended by NUL; ``*.gz`` is unpacked.

    Older versions and delete markers are left out. The order does not matter, and a key that comes again counts once.
    """

    path: str

    def entries(self, bucket: str) -> Iterator[Entry]:
        """Yield the objects in the order of their keys' UTF-8 bytes, at a memory that does not grow.

        Raises:
            MigrationError: it cannot be read, is damaged, or is another bucket's.
        """
        from shiftable.migrate._listing import entries

        return entries(Path(self.path), bucket)

    def summaries(self, source: Bucket) -> Iterator[ObjectSummary]:
        """Yield what a listing of the source would tell, in its order.

        Where the file tells size, ETag and time of modification, and a look at the first objects shows that these are
        what the provider's own listing tells, nobody is asked. Else each object is described once. An object that is
        gone is told with a version that no object has: who reads it finds out.
        """
        from shiftable.migrate._summaries import summaries

        return summaries(source, self.entries(source.name))
