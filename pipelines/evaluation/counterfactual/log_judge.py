"""One logged window put to any number of releases: what each would have brought, and which is better."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from rolecall.features.catalogue import Catalogue
from rolecall.features.context import CandidateContext
from rolecall.features.store import FeatureStore
from rolecall.pipelines.evaluation.counterfactual.estimators import Estimate, dr, ips, snips, switch_dr
from rolecall.pipelines.evaluation.counterfactual.examination import examination_from
from rolecall.pipelines.evaluation.counterfactual.release import (
    FeaturesAt,
    exposure_of,
    predictions,
    release_slates,
)
from rolecall.pipelines.evaluation.counterfactual.slates import LoggedSlates, read_slates
from rolecall.pipelines.evaluation.counterfactual.weights import Floats, ordered
from rolecall.pipelines.knowledge import midnight_before
from rolecall.pipelines.requests import choose
from rolecall.pipelines.training_set import job_columns_at, read_contexts
from rolecall.platform.errors import InputError
from rolecall.serving.funnel import Funnel, JobFeatures

SERVICE = "ranker_full"


@dataclass(frozen=True, kw_only=True)
class LogJudge:
    """Logged slates, their visitors as known then, and the examination curve. Ask it about releases that learned from
    nothing in the window; two of them compare by `Estimate.less`."""

    slates: LoggedSlates
    contexts: tuple[CandidateContext, ...]
    examination: Floats
    store: FeatureStore

    @classmethod
    def prepare(
        cls,
        events: pl.DataFrame,
        store: FeatureStore,
        *,
        start: datetime,
        end: datetime,
        examination: Floats | None = None,
        most: int | None = None,
        seed: int = 7,
    ) -> LogJudge:
        """`examination`: of as many positions as were logged; default: estimated from the window's clicks. `most`:
        requests that a release is asked to answer, chosen by hash.

        Raises InputError where the window has no usable slates, or explored nothing.
        """
        slates = read_slates(events, start=start, end=end)
        if not slates.explored:
            raise InputError(
                "a log that explored nothing: every propensity is 1",
                "slots drawn at random now and then",
                "set policy.exploration above 0 and wait for a window of such visits",
            )
        if examination is None:
            examination = examination_from(read_slates(events, start=start, end=end, reward="click").logged)
        if most is not None and most < len(slates):
            kept = choose(sorted(set(slates.request_ids)), limit=most, seed=seed)
            slates = read_slates(events.filter(pl.col("request_id").is_in(sorted(kept))), start=start, end=end)
        contexts = read_contexts(store, slates.asked, SERVICE)
        return cls(slates=slates, contexts=tuple(contexts), examination=examination, store=store)

    def estimates(self, funnel: Funnel, *, draws: int = 1) -> dict[str, Estimate]:
        """Applications a visit of the release under the position-based model: `ips`, `snips`, `dr` and `switch_dr`, the
        last two with its own ranker as the reward model. `draws` of its slate, for a release that explores."""
        features = self._features(funnel.catalogue)
        target = release_slates(funnel, self.slates, self.contexts, draws=draws, features=features)
        exposure = exposure_of(self.slates, target, self.examination)
        model = predictions(funnel, self.slates, target, self.contexts, self.examination, features=features)
        sample = ordered(
            self.slates.logged,
            exposure.of_logged,
            self.examination,
            due=exposure.due,
            appeal=model.appeal,
            value=model.value,
        )
        return {"ips": ips(sample), "snips": snips(sample), "dr": dr(sample), "switch_dr": switch_dr(sample)}

    def _features(self, catalogue: Catalogue) -> FeaturesAt:
        """Job features as serving had them: of the midnight before."""
        rows = np.arange(len(catalogue), dtype=np.int32)
        days = sorted({midnight_before(at) for at in self.slates.at})
        read: dict[datetime, JobFeatures] = {
            day: dict(job_columns_at(self.store, catalogue, rows, [day] * len(rows), SERVICE)) for day in days
        }
        return lambda at: read[midnight_before(at)]
