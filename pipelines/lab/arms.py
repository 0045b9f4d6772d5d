"""The arms that run the product: what each does at midnight, and who answers the day that begins there.

An arm works in its own home. Whatever it does at midnight it does with the tables and the event log of that home, as
of that midnight; nothing else reaches it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

import numpy as np

from rolecall.features.catalogue import Floats
from rolecall.features.embedder import Embedder
from rolecall.pipelines.assemble import RELEASE_FOLDER, published_settings
from rolecall.pipelines.daily import run_daily
from rolecall.pipelines.daily_steps import DailySteps
from rolecall.pipelines.lab.home import Home
from rolecall.pipelines.lab.policies import Policy, ReleasePolicy
from rolecall.pipelines.steps import Run, Step, StepContext, StepResult
from rolecall.platform.errors import NotFoundError
from rolecall.platform.registry import Registry
from rolecall.platform.release import code_version
from rolecall.platform.settings import EmbedderSettings
from rolecall.serving import parts
from rolecall.serving.job_features import use_online_job_features
from rolecall.serving.loader import load_release


class Arm(Protocol):
    """One way to run the job board."""

    def open(self, home: Home, midnight: datetime) -> AbstractContextManager[Policy]:
        """Do the night's work as of `midnight`, then answer the day that begins there until the block ends."""
        ...


class RememberingEmbedder:
    """The embedder with every text's vector kept: a profile is encoded once and not once a release.

    A vector is a function of its text alone, so this changes what a request costs and never what it gets.
    """

    def __init__(self, settings: EmbedderSettings) -> None:
        self._embedder = Embedder(settings)
        self._known: dict[str, Floats] = {}

    @property
    def hash(self) -> str:
        return self._embedder.hash

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit vectors float32[n, d]."""
        for text in texts:
            if text not in self._known:
                self._known[text] = self._embedder.encode([text])[0]
        return np.stack([self._known[text] for text in texts])


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The served release of a home: its folder, and the midnight it was built as of."""

    folder: Path
    as_of: datetime


@dataclass(frozen=True, kw_only=True)
class Retrained:
    """The product: the daily run every night, and whatever release it leaves as champion."""

    embedder: RememberingEmbedder
    slots: int

    @contextlib.contextmanager
    def open(self, home: Home, midnight: datetime) -> Iterator[Policy]:
        run_daily(home.settings, midnight)
        with _served(home, champion(home).folder, self.embedder, self.slots) as policy:
            yield policy


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The release of the first midnight stays; features go on being computed every night."""

    embedder: RememberingEmbedder
    slots: int

    @contextlib.contextmanager
    def open(self, home: Home, midnight: datetime) -> Iterator[Policy]:
        first = champion(home)
        if first.as_of < midnight:
            registry = Registry.from_settings(home.settings)
            with contextlib.closing(DailySteps(settings=home.settings, registry=registry, mlflow_run="")) as work:
                ingest = Step(name="ingest", run=work.ingest)
                features = Step(name="features", run=work.features, inputs=("ingest",))
                _night(home, "frozen", midnight).execute([ingest, features])
        with _served(home, first.folder, self.embedder, self.slots) as policy:
            yield policy


@dataclass(frozen=True, kw_only=True)
class FrozenModels:
    """The rankers of the first midnight over each night's catalogue, index and features: this arm knows new postings
    and learns nothing."""

    embedder: RememberingEmbedder
    slots: int

    @contextlib.contextmanager
    def open(self, home: Home, midnight: datetime) -> Iterator[Policy]:
        first = champion(home)
        folder = first.folder if first.as_of == midnight else self._assemble(home, midnight, first)
        with _served(home, folder, self.embedder, self.slots) as policy:
            yield policy

    def _assemble(self, home: Home, midnight: datetime, first: Champion) -> Path:
        registry = Registry.from_settings(home.settings)
        work = KeptModels(settings=home.settings, registry=registry, mlflow_run="", release=first.folder)
        with contextlib.closing(work):
            records = _night(home, "frozen-models", midnight).execute(work.plan())
        return records["assemble"].folder / RELEASE_FOLDER


@dataclass(kw_only=True)
class KeptModels(DailySteps):
    """The daily run's steps with both rankers taken from a `release` instead of trained."""

    release: Path

    def plan(self) -> list[Step]:
        """From the tables to a sealed release folder that nobody judges."""
        history = ("ingest", "catalogue", "features", "index")
        return [
            Step(name="ingest", run=self.ingest),
            Step(name="catalogue", run=self.catalogue, inputs=("ingest",)),
            Step(name="features", run=self.features, inputs=("ingest",)),
            Step(name="embed", run=self.embed, inputs=("ingest", "catalogue")),
            Step(name="index", run=self.index, inputs=("catalogue", "embed")),
            Step(name="models", run=self.models),
            Step(name="assemble", run=self.assemble_kept, inputs=(*history, "models")),
        ]

    def models(self, step: StepContext) -> StepResult:
        """The release's rankers and its calibrator."""
        for name in (parts.COARSE, parts.FINE, parts.CALIBRATOR):
            if (self.release / name).exists():
                (step.folder / name).write_bytes((self.release / name).read_bytes())
        return StepResult()

    def assemble_kept(self, step: StepContext) -> StepResult:
        """Assemble as every day; both rankers lie in one folder."""
        kept = step.inputs["models"]
        return self.assemble(replace(step, inputs={**step.inputs, "coarse": kept, "fine": kept}))


def champion(home: Home) -> Champion:
    """A verified copy of the served release. Raises NotFoundError where none was ever promoted."""
    registry = Registry.from_settings(home.settings)
    release = registry.reconcile()
    if release is None:
        raise NotFoundError(
            f"no release was promoted in {home.settings.home}",
            "a champion from the first night",
            "a longer log before the first day, or more candidates: the gate wants targets",
        )
    return Champion(folder=registry.releases.fetch(release), as_of=registry.releases.manifest(release).as_of)


@contextlib.contextmanager
def _served(home: Home, folder: Path, embedder: RememberingEmbedder, slots: int) -> Iterator[ReleasePolicy]:
    """A release loaded as a server loads it, with the job features that are online."""
    with load_release(folder, home.settings, home.settings.scratch_dir, embedder=embedder) as release:
        use_online_job_features(release, home.features)
        yield ReleasePolicy(release.funnel, home.reader, slots=slots)


def _night(home: Home, pipeline: str, midnight: datetime) -> Run:
    determinants = {"code": code_version(), "settings": published_settings(home.settings)}
    return Run(home.settings.runs_dir, pipeline, midnight, determinants)
