"""Feast with everything pinned by explicit paths: what the offline and the online half both stand on.

A registry in memory is built from code at every start, so a backfill cannot move another run's sources. The durable
registry is written for Feast's own tools and never read: its rows hold pickled code.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sqlite3
import threading
import uuid
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import create_engine, delete, insert, select

from rolecall.features.views import VIEWS
from rolecall.platform.errors import SettingsError
from rolecall.platform.settings import FeatureSettings

PROJECT = "rolecall"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FeastRepository:
    """RoleCall's definitions opened by Feast. Hold `lock` around every use of what it gives.

    `home`: folder of the online store and the registry. `sources`: absolute folder of the views' Parquet files.
    """

    def __init__(self, home: Path, settings: FeatureSettings, sources: Path | None) -> None:
        self.home = home.absolute()
        self.settings = settings
        self.lock = threading.Lock()
        self._views: dict[str, Any] = {}
        self._sources = (sources or self.home / "sources").absolute()

    @cached_property
    def _definitions(self) -> Any:
        from rolecall.features.feast.definitions import build_definitions

        return build_definitions(self._sources)

    @cached_property
    def memory(self) -> Any:
        """Feast over a registry of this process alone."""
        return self._open()

    def online(self, view: str) -> tuple[Any, Any]:
        """Feast's online store, and the view as it knows it."""
        if view not in self._views:
            self._views[view] = self.memory.get_feature_view(view)
        return self.memory._get_provider().online_store, self._views[view]

    def source_path(self, view: str) -> Path:
        """Where the source rows of a view lie."""
        from rolecall.features.feast.definitions import source_path

        return source_path(self._sources, view)

    def publish(self, as_of: datetime) -> None:
        """Write the definitions, and that all views are online up to `as_of`, to the registry that outlives the
        process, for Feast's own tools.

        Its rows are replaced as bytes: what somebody else put there is neither read nor run.
        """
        from feast.infra.registry.sql import metadata

        for shape in VIEWS:
            start = as_of - shape.ttl if shape.ttl else _EPOCH
            self.memory.registry.apply_materialization(self.online(shape.name)[1], PROJECT, start, as_of)
        engine = create_engine(self.settings.registry_url or f"sqlite:///{self.home / 'registry.db'}")
        metadata.create_all(engine)
        with self.memory.registry.write_engine.connect() as ours, engine.begin() as theirs:
            for table in metadata.sorted_tables:
                theirs.execute(delete(table).where(table.c.project_id == PROJECT))
                rows = [dict(row._mapping) for row in ours.execute(select(table).where(table.c.project_id == PROJECT))]
                if rows:
                    theirs.execute(insert(table), rows)
        engine.dispose()

    def _open(self) -> Any:
        from feast import FeatureStore as Feast
        from feast import RepoConfig

        self.home.mkdir(parents=True, exist_ok=True)
        config = RepoConfig(
            project=PROJECT,
            provider="local",
            registry={"registry_type": "sql", "path": self._own_registry(), "cache_ttl_seconds": 0},
            offline_store=self._offline_config(),
            online_store=self._online_config(),
            entity_key_serialization_version=3,
            repo_path=self.home,
        )
        with quiet():
            store = Feast(repo_path=str(self.home), config=config)
            store.apply(self._definitions.all())
        return store

    def _own_registry(self) -> str:
        """The address of a database in memory that all threads of this process see.

        Each thread has a connection of its own: the database lives as long as one is open, so one is held here.
        """
        name = f"file:feast-{uuid.uuid4().hex}?mode=memory&cache=shared&uri=true"
        self._held = sqlite3.connect(name, uri=True, check_same_thread=False)
        return f"sqlite:///{name}"

    @property
    def online_file(self) -> Path:
        """The file of the SQLite online store."""
        return self.home / "online.db"

    def _offline_config(self) -> dict[str, object]:
        """Spilled rows name people: they go where an erasure looks for what a killed process left."""
        scratch = self.home.parent / "scratch"
        return {
            "type": "rolecall.features.asof.AsofOfflineStore",
            "memory": self.settings.memory,
            "scratch": str(scratch),
        }

    def _online_config(self) -> dict[str, object]:
        if self.settings.online_store == "redis":
            address = redis_address(self.settings.redis_url)
            return {"type": "redis", "connection_string": address, "skip_dedup": True}  # the journal decides
        return {"type": "sqlite", "path": str(self.online_file)}


def redis_address(url: str) -> str:
    """A Redis URL as Feast writes it: `host:port,db=0,username=u,password=p,ssl=true`.

    Raises SettingsError for what is no redis:// or rediss:// URL, and for a password that Feast would cut at a comma.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise SettingsError("features.redis_url names no Redis server", "redis://HOST:PORT/DB", "correct the URL")
    words = [f"{parts.hostname}:{parts.port or 6379}", f"db={parts.path.strip('/') or 0}"]
    for name, text in (("username", parts.username), ("password", parts.password)):
        plain = unquote(text or "")
        if "," in plain:
            raise SettingsError(f"the {name} in features.redis_url holds a comma", f"a {name} without one")
        words += [f"{name}={plain}"] if plain else []
    return ",".join([*words, "ssl=true"] if parts.scheme == "rediss" else words)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Feast's prints, progress bars and deprecation warnings off the caller's terminal."""
    level = logging.getLogger("feast").level
    logging.getLogger("feast").setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("feast").setLevel(level)
