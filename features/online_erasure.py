"""One candidate's rows in the online feature store: finding and removing them, which Feast itself cannot.

The store names an entity by its serialised key: in SQLite a column of every view's table, in Redis the key itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rolecall.features.feast_repository import PROJECT
from rolecall.platform.database_erasure import compact_sqlite, sqlite_file
from rolecall.platform.settings import FeatureSettings

ONLINE_FILE = "online.db"
_KEY_VERSION = 3


class OnlineRows:
    """The rows of candidates in the store of `features`, whose files are below `home`."""

    def __init__(self, home: Path, features: FeatureSettings) -> None:
        self._file = home / ONLINE_FILE
        self._features = features

    def count(self, candidate_id: str) -> int:
        """Rows (Redis: keys) of one candidate."""
        key = entity_key(candidate_id)
        if self._features.online_store == "redis":
            with _redis(self._features.redis_url) as client:
                return int(client.exists(key + PROJECT.encode()))
        if not self._file.exists():
            return 0
        with sqlite_file(self._file) as database:
            return sum(
                database.execute(f'SELECT count(*) FROM "{table}" WHERE entity_key = ?', (key,)).fetchone()[0]
                for table in _tables(database)
            )

    def erase(self, candidate_id: str) -> int:
        """Remove them and rewrite the file. Returns how many went."""
        key = entity_key(candidate_id)
        if self._features.online_store == "redis":
            with _redis(self._features.redis_url) as client:
                return int(client.delete(key + PROJECT.encode()))
        if not self._file.exists():
            return 0
        with sqlite_file(self._file) as database:
            gone = sum(
                database.execute(f'DELETE FROM "{table}" WHERE entity_key = ?', (key,)).rowcount
                for table in _tables(database)
            )
        compact_sqlite(self._file)
        return gone


def entity_key(candidate_id: str) -> bytes:
    """A candidate's key as Feast writes it."""
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    key: Any = EntityKey(join_keys=["candidate_id"], entity_values=[Value(string_val=candidate_id)])
    return bytes(serialize_entity_key(key, entity_key_serialization_version=_KEY_VERSION))


def _tables(database: Any) -> list[str]:
    """The views' tables: those with a column `entity_key`."""
    names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [
        name
        for name in names
        if any(row[1] == "entity_key" for row in database.execute(f'PRAGMA table_info("{name}")'))
    ]


def _redis(url: str) -> Any:
    import redis

    return redis.Redis.from_url(url)
