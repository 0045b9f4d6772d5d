"""The feature store: Feast with everything pinned by explicit paths, and staleness enforced online.

    store = FeatureStore(home / "feast", settings.features, sources=run / "features")
    store.historical(entities, "ranker_full")       # point-in-time rows for training, from Parquet (AsofOfflineStore)
    store.materialize(as_of)                        # newest rows into the online store
    store.online_candidates(["c1"], at=now)         # what serving reads (SQLite or Redis)

Offline retrieval is here; `online_store` reads and writes the newest rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from rolecall.features.activity import TIMESTAMP
from rolecall.features.feast_repository import quiet
from rolecall.features.online_store import OnlineStore, Row
from rolecall.features.views import service_views

ENTITIES = ("candidate", "job", "employer")


class FeatureStore(OnlineStore):
    """Point-in-time rows offline, newest rows online. Safe to use from several threads.

    `home`: folder of the online store and the registry. `sources`: absolute folder of the views' Parquet files;
    only `historical` and `materialize` read it.
    """

    def historical(self, entities: pl.DataFrame, service: str, *, of: Sequence[str] = ENTITIES) -> pl.DataFrame:
        """The service's features for each row of `entities`, in the same order, as known at its `event_timestamp`.

        `entities`: event_timestamp and, for each entity in `of`, its id (candidate_id, job_id, employer_id; null:
        nothing is known); other columns pass through. An event is known strictly after it happened; a feature
        nothing is known of is null.
        """
        views = [view for view in service_views(service) if view.entity in of]
        with self._feast.lock, quiet():
            job = self._feast.memory.get_historical_features(
                entity_df=entities, features=[f"{view.name}:{name}" for view in views for name in view.columns]
            )
        return pl.DataFrame(job.to_arrow())

    def historical_candidates(
        self, candidate_ids: Sequence[str], instants: Sequence[datetime], service: str
    ) -> list[Row]:
        """Feature rows of candidates, each as known at its instant: what `online_candidates` gives for now."""
        asked = pl.DataFrame(
            {"candidate_id": list(candidate_ids), "event_timestamp": list(instants)},
            schema={"candidate_id": pl.String, "event_timestamp": TIMESTAMP},
        )
        rows = self.historical(asked, service, of=("candidate",)).drop(asked.columns)
        return list(rows.iter_rows(named=True))

    def historical_jobs(
        self,
        job_ids: Sequence[str],
        employer_ids: Sequence[str | None],
        instants: Sequence[datetime],
        service: str,
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Numeric columns of jobs and their employers, each as known at its instant; NaN where unknown or stale."""
        asked = pl.DataFrame(
            {"job_id": list(job_ids), "employer_id": list(employer_ids), "event_timestamp": list(instants)},
            schema={"job_id": pl.String, "employer_id": pl.String, "event_timestamp": TIMESTAMP},
        )
        rows = self.historical(asked, service, of=("job", "employer")).drop(asked.columns)
        return {name: rows[name].cast(pl.Float32).fill_null(float("nan")).to_numpy() for name in rows.columns}
