"""Replace secrets, and the credentials that they are, in steps that may end anywhere and go on.

A rotation creates a value, stores it as the pending version, sets it where it is used (a database, a cloud), tests it,
makes it current, and retires the one before after a while. Where it stands is in the stages of the secret, so that any
machine can go on with what another one began. What each step does is a rotator's business, see
``shiftable.secrets.rotator``; which secrets are replaced, how and when is declared in ``[secrets.x.rotate]``.

>>> import shiftable.memory
>>> from shiftable.rotation import RandomToken, Rotation
>>> from shiftable.secrets import Secrets
>>> shop = Secrets(shiftable.memory.MemoryProvider(shiftable.memory.MemorySettings()).secrets()).store("shop")
>>> rotation = Rotation(shop, "session-key", RandomToken(length=40))
>>> rotation.run(now=True).steps
('create', 'finish')
>>> first = shop.get("session-key").reveal()
>>> rotation.run(now=True).steps
('create', 'set', 'test', 'finish')
>>> shop.get("session-key", stage="previous").reveal() == first
True
"""

from shiftable.rotation._app import rotations
from shiftable.rotation._keys import AgeKey, SshKey
from shiftable.rotation._machine import Outcome, Rotation, Status, Step
from shiftable.rotation._mysql import MysqlAlternating, MysqlUser
from shiftable.rotation._postgresql import PostgresqlAlternating, PostgresqlUser
from shiftable.rotation._token import RandomToken

__all__ = [
    "AgeKey",
    "MysqlAlternating",
    "MysqlUser",
    "Outcome",
    "PostgresqlAlternating",
    "PostgresqlUser",
    "RandomToken",
    "Rotation",
    "SshKey",
    "Status",
    "Step",
    "rotations",
]
