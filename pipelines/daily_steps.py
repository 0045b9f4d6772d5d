"""What each step of the daily run does. The order and the inputs are declared in `daily.py`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from rolecall.features.catalogue import Catalogue, Floats
from rolecall.features.embedder import Embedder
from rolecall.features.job_vectors import JobVectors
from rolecall.features.lexicon import Lexicon
from rolecall.features.pairs import COARSE_COLUMNS, PairFeatures
from rolecall.features.schema import EMPLOYERS, EVENTS, PROFILES, TABLES
from rolecall.features.text import JOB_TEXT, job_text
from rolecall.features.vector_cache import VectorCache
from rolecall.features.views import job_feature_columns, ranker_version
from rolecall.pipelines import assemble
from rolecall.pipelines.assemble import TRAINED_ON
from rolecall.pipelines.embed import CHUNK, FEW, embed_texts
from rolecall.pipelines.evaluation.targets import collect_targets
from rolecall.pipelines.examples import RECORDED, TrainingSet, recorded
from rolecall.pipelines.index import build_index
from rolecall.pipelines.knowledge import Versions, Windows, catalogue_as_of, profiles_as_of, read_as_of
from rolecall.pipelines.leaks import Finding, LeakAudit, LeakDetector, stored_requests
from rolecall.pipelines.leaks.findings import keep_findings
from rolecall.pipelines.materialize import feature_store, materialize
from rolecall.pipelines.profiles import remember_profiles
from rolecall.pipelines.steps import StepContext, StepResult
from rolecall.pipelines.train import TreeShape, fit_calibrator, shapes, train_ranker
from rolecall.pipelines.training_set import build_training_set, job_columns_at, training_columns
from rolecall.platform.event_log import EventLog, drain
from rolecall.platform.ledger import open_ledger
from rolecall.platform.object_store import Prefix, is_object_store, prefix
from rolecall.platform.ray_runtime import RayHandle, start_ray, starts_here
from rolecall.platform.registry import Registry
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableStore
from rolecall.serving import parts
from rolecall.serving.parts import FeaturesPart

VECTORS = "vectors.npy"
VIEWS = "views"
TRAINING_SET = "training_set.npz"
"""Names of files that steps leave for each other."""


@dataclass(kw_only=True)
class DailySteps:
    """The stores the steps work on. Ray is started by the first step that needs it."""

    settings: Settings
    registry: Registry
    mlflow_run: str
    _ray: RayHandle | None = field(default=None, init=False)

    @cached_property
    def tables(self) -> TableStore:
        return TableStore(self.settings.tables_uri, self.settings.storage.options)

    @cached_property
    def embedder(self) -> Embedder:
        return Embedder(self.settings.embedder)

    def close(self) -> None:
        """End the Ray this run started."""
        if self._ray is not None:
            self._ray.stop()

    def ingest(self, step: StepContext) -> StepResult:
        """Move posted events into the table, keep today's profiles for later days, then pin every table's version."""
        moved = drain(EventLog(open_ledger(self.settings.ledger_url)), self.tables, EVENTS)
        remember_profiles(self.tables)
        versions = {name: self.tables.version(name) for name in (*TABLES, PROFILES.name)}
        self.refuse_early(versions)
        return StepResult(
            values={
                "versions": {name: version for name, version in versions.items() if version is not None},
                "drained": moved.sequence,
            },
            metrics={"events.drained": moved.inserted, "events.refused": len(moved.refused)},
        )

    def refuse_early(self, versions: Versions) -> None:
        """What a later step would refuse after hours of work is refused by the first."""

    def catalogue(self, step: StepContext) -> StepResult:
        """The jobs of the release, its lexicon, and a snapshot of the jobs' features."""
        window = timedelta(days=self.settings.ranking.train_days)
        jobs = catalogue_as_of(self.tables, step.value("ingest", "versions"), step.as_of, window=window)
        pq.write_table(jobs, step.folder / parts.JOBS)
        Lexicon.fit(Catalogue.from_table(jobs)).save(step.folder)
        return StepResult(metrics={"catalogue.jobs": jobs.num_rows})

    def features(self, step: StepContext) -> StepResult:
        """Every feature view's rows, and the newest of them online."""
        done = materialize(
            self.tables,
            step.value("ingest", "versions"),
            as_of=step.as_of,
            settings=self.settings,
            folder=step.folder / VIEWS,
            drained=step.value("ingest", "drained"),
        )
        return StepResult(
            values={"online": done.online},
            metrics={f"features.{view}": float(rows) for view, rows in done.rows.items()}
            | {f"online.{view}": float(rows) for view, rows in done.told.items()}
            | {f"online.removed.{view}": float(rows) for view, rows in done.removed.items() if rows},
        )

    def embed(self, step: StepContext) -> StepResult:
        """A vector a job; what the cache knows is not computed again."""
        with pq.ParquetFile(step.file("catalogue", parts.JOBS)) as jobs:
            texts = [job_text(job) for rows in jobs.iter_batches(10_000, columns=JOB_TEXT) for job in rows.to_pylist()]
        vectors = self._embed(texts, step.report)
        np.save(step.folder / VECTORS, vectors)
        return StepResult(metrics={"embed.jobs": len(vectors), "embed.dimension": vectors.shape[1]})

    def index(self, step: StepContext) -> StepResult:
        """The vector index with its BM25 side, and the quantised vectors the rankers read."""
        jobs = pq.read_table(step.file("catalogue", parts.JOBS))
        vectors = np.load(step.file("embed", VECTORS), mmap_mode="r")
        built = build_index(jobs, vectors, self.settings.vectors, step.folder)
        return StepResult(
            values={"digest": built.content_digest}, metrics={"index.mb": built.index.stat().st_size / 1e6}
        )

    def training_set(self, step: StepContext) -> StepResult:
        """Requests of the training window joined with features as of each. What the leak audits find in them goes on
        to the gate: the release is refused with the finding, and the day's catalogue still gets served."""
        ranking, versions = self.settings.ranking, step.value("ingest", "versions")
        events = read_as_of(self.tables, EVENTS, versions, step.as_of)
        window, pairs = Windows.of(step.as_of, ranking).learning, self._pairs(step)
        examples = build_training_set(
            events,
            start=window.start,
            end=window.end,
            store=feature_store(self.settings, step.file("features", VIEWS)),
            service=self.settings.features.service,
            pairs=pairs,
            embed=partial(self._embed, report=step.report),
            settings=ranking,
            progress=lambda done, total: step.report(f"{done:,}/{total:,} requests"),
        )
        leaks = self._leaks(step, pairs, events, examples)
        examples.save(step.folder / TRAINING_SET)
        return StepResult(
            values=keep_findings(step.folder, leaks) | {RECORDED: recorded(examples, versions)},
            metrics={
                "training.requests": examples.requests,
                "training.rows": len(examples.features),
                "training.columns": len(examples.columns),
                "training.leaks": len(leaks),
            },
        )

    def _leaks(
        self, step: StepContext, pairs: PairFeatures, events: pl.DataFrame, examples: TrainingSet
    ) -> tuple[Finding, ...]:
        """Where the training set knows what it may not: by replay, and by numbers."""
        step.report("leak audit")
        versions, windows = step.value("ingest", "versions"), Windows.of(step.as_of, self.settings.ranking)
        audit = LeakAudit(
            candidates=profiles_as_of(self.tables, versions, step.as_of),
            employers=read_as_of(self.tables, EMPLOYERS, versions, step.as_of),
            pairs=pairs,
            embed=partial(self._embed, report=step.report),
            settings=self.settings,
            as_of=step.as_of,
            scratch=step.folder,
        )
        replayed = audit.findings(events, stored_requests(examples))
        judged = windows.evaluation
        targets = collect_targets(events, start=judged.start, end=judged.end, seed=self.settings.ranking.seed)
        asked = ((target.candidate_id, pairs.catalogue.row_of(job)) for target in targets for job in target.job_ids)
        pairs_judged = {(who, row) for who, row in asked if row is not None}
        return (*replayed, *LeakDetector().findings(examples, window=windows.learning, judged=pairs_judged))

    def coarse(self, step: StepContext) -> StepResult:
        """The coarse ranker: few columns, small trees."""
        examples = TrainingSet.load(step.file("training-set", TRAINING_SET)).learnable()
        shape, _ = shapes(self.settings.ranking)
        return self._train(step, examples.columns_only(COARSE_COLUMNS), shape, parts.COARSE)

    def fine(self, step: StepContext) -> StepResult:
        """The fine ranker over every column, calibrated on requests it never learned from."""
        examples = TrainingSet.load(step.file("training-set", TRAINING_SET))
        _, shape = shapes(self.settings.ranking)
        result = self._train(step, examples.learnable(), shape, parts.FINE)
        calibrator = fit_calibrator((step.folder / parts.FINE).read_text(), examples.calibration())
        if calibrator is not None:
            (step.folder / parts.CALIBRATOR).write_text(calibrator.to_json())
        return result

    def assemble(self, step: StepContext) -> StepResult:
        """The release's folder, sealed: from here on its id is known."""
        service = self.settings.features.service
        self._job_features(step).write_parquet(step.folder / parts.JOB_FEATURES)
        sources = assemble.Sources(
            catalogue=step.inputs["catalogue"].folder,
            job_features=step.folder,
            index=step.inputs["index"].folder,
            coarse=step.inputs["coarse"].folder,
            fine=step.inputs["fine"].folder,
            index_digest=step.value("index", "digest"),
            people=_people_sources(step),
            features=FeaturesPart(
                service=service,
                coarse_columns=COARSE_COLUMNS,
                fine_columns=training_columns(service),
                job_feature_columns=job_feature_columns(service),
                ranker=ranker_version(service, training_columns(service)),
            ),
        )
        manifest = assemble.assemble(
            step.folder / assemble.RELEASE_FOLDER,
            sources,
            self.settings,
            as_of=step.as_of,
            tables=step.value("ingest", "versions"),
            notes={TRAINED_ON: json.dumps(_recorded(step), sort_keys=True)},
        )
        size = sum(part.bytes for part in manifest.parts) / 1e6
        return StepResult(values={"release": manifest.id}, metrics={"release.mb": size})

    def _train(self, step: StepContext, examples: TrainingSet, shape: TreeShape, file: str) -> StepResult:
        """With artifacts in an object store the checkpoints lie there too: another machine may go on from them."""
        storage: Path | Prefix = step.folder / "checkpoints"
        if is_object_store(self.settings.artifacts_uri):
            artifacts = prefix(self.settings.artifacts_uri, self.settings.storage.options)
            storage = artifacts.below("training", step.run, step.name)
        if self.settings.ranking.workers:
            self._with_ray()
        trained = train_ranker(examples, shape, self.settings.ranking, storage)
        storage.remove() if isinstance(storage, Prefix) else shutil.rmtree(storage, ignore_errors=True)
        (step.folder / file).write_text(trained.text)
        measured = {"requests": examples.requests, "rounds": shape.rounds, "resumed_from": trained.resumed_from}
        return StepResult(metrics={f"{step.name}.{name}": value for name, value in measured.items()})

    def _job_features(self, step: StepContext) -> pl.DataFrame:
        """Feature-view columns of every job as known at `as_of`: what serving falls back on."""
        catalogue = Catalogue.from_table(pq.read_table(step.file("catalogue", parts.JOBS)))
        store = feature_store(self.settings, step.file("features", VIEWS))
        rows = np.arange(len(catalogue), dtype=np.int32)
        columns = job_columns_at(store, catalogue, rows, [step.as_of] * len(rows), self.settings.features.service)
        return pl.DataFrame({"job_id": list(catalogue.job_ids), **columns})

    def _pairs(self, step: StepContext) -> PairFeatures:
        catalogue = Catalogue.from_table(pq.read_table(step.file("catalogue", parts.JOBS)))
        lexicon = Lexicon.load(step.inputs["catalogue"].folder)
        return PairFeatures(catalogue, lexicon, JobVectors.load(step.file("index", parts.VECTORS)))

    def _embed(self, texts: Sequence[str], report: Callable[[str], None]) -> Floats:
        return embed_texts(
            texts,
            self.embedder,
            VectorCache(self.settings.cache_dir / "vectors.db"),
            distributed=self._with_ray,
            few=FEW if starts_here(self.settings.ray) else CHUNK,
            threads_per_actor=self.settings.ray.threads_per_actor,
            progress=lambda done, total: report(f"{done:,}/{total:,} texts"),
        )

    def _with_ray(self) -> None:
        if self._ray is None:
            self._ray = start_ray(self.settings.ray, self.settings.home)


def _recorded(step: StepContext) -> dict[str, Any]:
    """What each training set of the run was read from."""
    return {name: record.values[RECORDED] for name, record in step.inputs.items() if RECORDED in record.values}


def _people_sources(step: StepContext) -> assemble.PeopleSources | None:
    """The other direction's parts; None where nobody may be recommended, or a run builds jobs alone."""
    if "people" not in step.inputs or not step.value("people", "digest"):
        return None
    return assemble.PeopleSources(
        people=step.inputs["people"].folder,
        rankers=step.inputs["people-rankers"].folder,
        index_digest=step.value("people", "digest"),
    )
