"""A private PostgreSQL on this machine: its binaries, and a cluster of one's own that nobody else can reach.

``find_binaries`` looks for PostgreSQL in an explicit folder, on the ``PATH``, where Debian puts it, and in the wheel
that ``shiftable[postgresql-server]`` installs. ``Cluster`` is one data directory and the server on it.
"""

from shiftable.postgresql._binaries import Binaries, all_binaries, find_binaries
from shiftable.postgresql._cluster import Cluster, ClusterError, temporary_cluster
from shiftable.postgresql._locks import locked

__all__ = ["Binaries", "Cluster", "ClusterError", "all_binaries", "find_binaries", "locked", "temporary_cluster"]
