"""`AsofOfflineStore`: Feast's offline store interface on point-in-time joins. Everything here only translates."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureView, OnDemandFeatureView, RepoConfig
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel
from feast.utils import compute_non_entity_date_range
from pydantic import ByteSize, Field

from rolecall.features.asof.delta_source import DeltaSource
from rolecall.features.asof.historical import Bounds, EntityRows, joined, requests, spread
from rolecall.features.asof.place import Place, SourceError, place_of
from rolecall.features.asof.pull import Pull, all_rows, newest_rows
from rolecall.features.asof.retrieval import AsofRetrievalJob, Retrieval
from rolecall.features.asof.sources import is_delta, reading, scan, source_place, table_source
from rolecall.features.asof.writing import add_files, append_delta, append_parquet


class AsofOfflineStoreConfig(FeastConfigBaseModel):
    """`memory`: what the rows of a join may take ("4GB"; None: all they need) before they are spilled to `scratch`
    (None: the system's temporary folder). `staging_location`: a folder or bucket that `to_remote_storage` writes to.
    """

    type: Literal[
        "rolecall.features.asof.AsofOfflineStore", "rolecall.features.asof.offline_store.AsofOfflineStore"
    ] = "rolecall.features.asof.AsofOfflineStore"
    memory: ByteSize | None = Field(default=None, ge=1 << 20)
    scratch: Path | None = None
    staging_location: str | None = None
    staging_location_endpoint_override: str | None = None


class AsofOfflineStore(OfflineStore):
    """Point-in-time retrieval from Parquet and Delta, exactly one row an entity row, in order."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Features as known at each entity row's instant. `entity_df`: a pandas or Polars frame, an Arrow table, or
        None: then every key at every instant from `start_date` to `end_date` at which it has a row.
        """
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        asked = requests(feature_views, feature_refs, on_demand, full=full_feature_names)
        repo, bounds = config.repo_path, _bounds(config)
        if entity_df is None:
            span = compute_non_entity_date_range(feature_views, start_date=start_date, end_date=end_date)
            entities = EntityRows.between(asked, *span, repo=repo)
        else:
            entities = EntityRows.given(entity_df, asked)

        def evaluate() -> pa.Table:
            known_only = filter_by_created_timestamp
            return joined(entities, asked, known_only=known_only, repo=repo, bounds=bounds)

        def by_a_cluster(target: Path, workers: int) -> list[Path]:
            known_only = filter_by_created_timestamp
            return spread(entities, asked, target, workers=workers, known_only=known_only, repo=repo, bounds=bounds)

        retrieval = Retrieval(
            evaluate=evaluate,
            spread=by_a_cluster,
            repo=repo,
            full_feature_names=full_feature_names,
            on_demand=on_demand,
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=list(entities.keys),
                min_event_timestamp=entities.start,
                max_event_timestamp=entities.end,
            ),
            staging=_staging(config),
        )
        return AsofRetrievalJob(retrieval)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """The newest row of each key from `start_date` to `end_date`, both inclusive."""
        pull = Pull(
            source=table_source(data_source, "the view"),
            keys=join_key_columns,
            features=feature_name_columns,
            timestamp=timestamp_field,
            created=created_timestamp_column or None,
            start=start_date,
            end=end_date,
        )
        return _pulled(config, pull, newest_rows)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Every row from `start_date` to `end_date`, both inclusive; None: without a bound."""
        pull = Pull(
            source=table_source(data_source, "the view"),
            keys=join_key_columns,
            features=feature_name_columns,
            timestamp=timestamp_field,
            created=created_timestamp_column or None,
            start=start_date,
            end=end_date,
        )
        return _pulled(config, pull, all_rows)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Append rows to the view's source, all of them or none.

        Raises SourceError for other columns than the source's, and for a source pinned to a version.
        """
        source = table_source(feature_view.batch_source, f"view {feature_view.name}")
        if isinstance(source, DeltaSource) and source.version is not None:
            raise SourceError(
                f"{source.path} is pinned to version {source.version}, which a write would not change; "
                "write through a source without a version"
            )
        names = [name for name, _ in source.get_table_column_names_and_types(config)]
        if names != table.column_names:
            raise SourceError(
                f"rows to write have the columns {', '.join(table.column_names)}; "
                f"{source.path} has, and takes in this order, {', '.join(names)}"
            )
        (append_delta if is_delta(source) else append_parquet)(source_place(source, config.repo_path), table)
        if progress is not None:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """Add logged rows (a table, or a Parquet file or folder) as files to the destination's folder."""
        destination = logging_config.destination
        if not isinstance(destination, FileLoggingDestination):
            raise SourceError(
                f"logs are to go to a {type(destination).__name__}: this store writes FileLoggingDestination"
            )
        place = place_of(destination.path, config.repo_path, endpoint=destination.s3_endpoint_override)
        rows = pq.read_table(data) if isinstance(data, Path) else data
        add_files(place, rows, destination.partition_by or ())


def _settings(config: RepoConfig) -> AsofOfflineStoreConfig:
    found = config.offline_store
    if not isinstance(found, AsofOfflineStoreConfig):
        raise SourceError(f"the offline store is set up by {type(found).__name__}: set AsofOfflineStoreConfig")
    return found


def _bounds(config: RepoConfig) -> Bounds:
    settings = _settings(config)
    return Bounds(memory=None if settings.memory is None else int(settings.memory), scratch=settings.scratch)


def _staging(config: RepoConfig) -> Place | None:
    settings = _settings(config)
    if settings.staging_location is None:
        return None
    return place_of(settings.staging_location, config.repo_path, endpoint=settings.staging_location_endpoint_override)


def _pulled(config: RepoConfig, pull: Pull, rows_of: Callable[[Pull, Any], pa.Table]) -> RetrievalJob:
    repo = config.repo_path

    def evaluate() -> pa.Table:
        with reading([pull.source], repo):
            return rows_of(pull, scan(pull.source, repo))

    return AsofRetrievalJob(Retrieval(evaluate=evaluate, repo=repo, staging=_staging(config)))
