"""Feast with everything pinned by explicit paths: what the offline and the online half both stand on.

A registry in memory is built from code at every start, so no pickled blob is ever read and a backfill cannot move
another run's sources. The durable registry is for Feast's own tools and for the days that were materialised.
"""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rolecall.platform.errors import SettingsError
from rolecall.platform.settings import FeatureSettings

PROJECT = "rolecall"


class FeastRepository:
    """RoleCall's definitions opened by Feast. Hold `lock` around every use of what it gives.

    `home`: folder of the online store and the registry. `sources`: absolute folder of the views' Parquet files.
    """

    def __init__(self, home: Path, settings: FeatureSettings, sources: Path | None) -> None:
        self.home = home.absolute()
        self.settings = settings
        self.lock = threading.Lock()
        self._sources = (sources or self.home / "sources").absolute()

    @cached_property
    def _definitions(self) -> Any:
        from rolecall.features.feast.definitions import build_definitions

        return build_definitions(self._sources)

    @cached_property
    def memory(self) -> Any:
        """Feast over a registry of this process alone."""
        return self._open({"registry_type": "sql", "path": "sqlite://", "cache_ttl_seconds": 0})

    def durable(self) -> Any:
        """Feast over the registry that outlives the process, holding the definitions of this code."""
        url = self.settings.registry_url or f"sqlite:///{self.home / 'registry.db'}"
        return self._open({"registry_type": "sql", "path": url, "cache_ttl_seconds": 0})

    def _open(self, registry: Mapping[str, object]) -> Any:
        from feast import FeatureStore as Feast
        from feast import RepoConfig

        self.home.mkdir(parents=True, exist_ok=True)
        config = RepoConfig(
            project=PROJECT,
            provider="local",
            registry=dict(registry),
            offline_store={"type": "duckdb"},
            online_store=self._online_config(),
            materialization={"pull_latest_features": True},
            entity_key_serialization_version=3,
            repo_path=self.home,
        )
        with quiet():
            store = Feast(repo_path=str(self.home), config=config)
            store.apply(self._definitions.all())
        return store

    @property
    def online_file(self) -> Path:
        """The file of the SQLite online store."""
        return self.home / "online.db"

    def _online_config(self) -> dict[str, str]:
        if self.settings.online_store == "redis":
            return {"type": "redis", "connection_string": redis_address(self.settings.redis_url)}
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


@contextlib.contextmanager
def own_duckdb() -> Iterator[None]:
    """Feast's DuckDB store works on ibis' process-wide connection: give it one of ours and close it after."""
    import ibis  # ships no types

    before = ibis.options.default_backend
    connection = ibis.duckdb.connect()
    ibis.set_backend(connection)
    try:
        yield
    finally:
        connection.disconnect()
        ibis.options.default_backend = before
