"""What a retrieval gives back: nothing is read before `to_df`, `to_arrow` or `persist` is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
from feast import OnDemandFeatureView
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.saved_dataset import SavedDatasetStorage

from rolecall.features.asof.place import Place, SourceError
from rolecall.features.asof.sources import is_delta, source_place, table_source
from rolecall.features.asof.writing import add_files, replace_delta, replace_parquet


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How the rows are got, and how they are named. `staging`: where `to_remote_storage` writes. `spread`: has a
    cluster write the rows below a folder, by so many tasks at once; None for what one machine gets."""

    evaluate: Callable[[], pa.Table]
    spread: Callable[[Path, int], list[Path]] | None = None
    repo: Path | None
    full_feature_names: bool = False
    on_demand: list[Any] = field(default_factory=list)
    metadata: RetrievalMetadata | None = None
    staging: Place | None = None


class AsofRetrievalJob(RetrievalJob):
    """A lazy retrieval; evaluating it twice reads the sources twice (a pinned one gives the same rows)."""

    def __init__(self, retrieval: Retrieval) -> None:
        self._retrieval = retrieval

    def to_arrow_batches(self, rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        """The result, on-demand features included, `rows` at a time at most."""
        yield from self.to_arrow().to_batches(max_chunksize=rows)

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result to a Parquet file, a folder of them, or a Delta table.

        A reader sees the old content or the new, never a part. Raises SavedDatasetLocationAlreadyExists where
        something is there and may not be overwritten.
        """
        source = table_source(storage.to_data_source(), "the saved dataset")
        place = source_place(source, self._retrieval.repo)
        if not allow_overwrite and place.exists():
            raise SavedDatasetLocationAlreadyExists(location=place.uri)
        write = replace_delta if is_delta(source) else replace_parquet
        write(place, self.to_arrow(timeout=timeout))

    def to_ray_dataset(self) -> Any:
        """The result as a Ray dataset. With a `staging_location` that every machine sees the cluster joins, and the
        rows stay there as files, in Ray's order; else, and with on-demand features, they pass through this process."""
        held, place = self._retrieval, self._retrieval.staging
        if held.spread is None or held.on_demand or place is None or not place.local:
            return super().to_ray_dataset()
        import ray

        workers = max(1, int(ray.cluster_resources().get("CPU", 1)) - 1)  # one is left for reading: none, and it hangs
        paths = held.spread(place.path / uuid4().hex, workers)
        return ray.data.read_parquet([str(path) for path in paths])

    def supports_remote_storage_export(self) -> bool:
        return self._retrieval.staging is not None

    def to_remote_storage(self) -> list[str]:
        """Parquet files of the result below `staging_location`; their addresses."""
        staging = self._retrieval.staging
        if staging is None:
            raise SourceError("staging_location is not set: name a folder or bucket in the offline store's settings")
        folder = Place(uri=f"{staging.uri.rstrip('/')}/{uuid4().hex}", options=staging.options)
        return add_files(folder, self.to_arrow())

    @property
    def full_feature_names(self) -> bool:
        return self._retrieval.full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._retrieval.on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._retrieval.metadata

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._retrieval.evaluate()
