"""The part of scale.py that is measured: run as a child process, it says on a pipe which step begins.

    python tests/bench/scale_path.py build JOBS HOME FD     # generate ... promote
    python tests/bench/scale_path.py serve JOBS HOME FD     # load the release, recommend: what a replica does

Each message is one JSON object a line: `{"step": name}` when a step begins, `{"facts": {...}}` for what was counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness import ROOT

if TYPE_CHECKING:
    from rolecall.pipelines.market.config import MarketConfig
    from rolecall.platform.settings import Settings

sys.path.insert(0, str(ROOT / "infra" / "import_root"))

WORDS, TOKENS = 12, 16
"""Most words of a description or resume, and most tokens the embedder reads of a text: 16 tokens are about 12 words."""

JOBS_A_CANDIDATE, JOBS_AN_EMPLOYER = 10, 25
"""How many jobs there are for each candidate and each employer, at every size."""

RECOMMENDED = 50
"""Candidates who are recommended to at the end."""


class Teller:
    """Writes to the pipe that the parent reads."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._pipe = os.fdopen(descriptor, "w", buffering=1, encoding="utf-8")

    def step(self, name: str) -> None:
        self._pipe.write(json.dumps({"step": name}) + "\n")

    def facts(self, **counted: float) -> None:
        self._pipe.write(json.dumps({"facts": counted}) + "\n")


def market_config(jobs: int) -> MarketConfig:
    """Candidates, and so events, grow with the jobs: one candidate for ten jobs, about 60 events a candidate."""
    from rolecall.pipelines.market.config import MarketConfig

    return MarketConfig(
        jobs=jobs,
        candidates=max(jobs // JOBS_A_CANDIDATE, 50),
        employers=max(jobs // JOBS_AN_EMPLOYER, 20),
        max_words=WORDS,
    )


def build(jobs: int, settings: Settings, tell: Teller) -> None:
    """From nothing to a promoted release, in a home that did not exist."""
    tell.step("start")
    from rolecall.pipelines.daily import run_daily
    from rolecall.pipelines.demo import fill_tables
    from rolecall.pipelines.steps import Silent, Step, StepRecord

    class Marks(Silent):
        def started(self, step: Step, number: int, total: int) -> None:
            tell.step(step.name)

        def finished(self, record: StepRecord) -> None:
            tell.facts(**{f"{record.name}.{name}": value for name, value in record.metrics.items()})

    from rolecall.pipelines.market.generate import generate

    config = market_config(jobs)
    tell.step("generate")
    market = generate(config)
    tell.step("tables")
    for told in fill_tables(settings, market):
        tell.facts(**{f"rows.{told['table']}": told["new"]})
    del market
    tell.step("open")
    result = run_daily(settings, config.ends_at, observers=[Marks()])
    tell.step("close")
    tell.facts(promoted=float(result.promoted), **_sizes(settings, result.release_id))


def serve(jobs: int, settings: Settings, tell: Teller) -> None:
    """What a replica does: load the promoted release and answer."""
    tell.step("start-serving")
    from rolecall.features.candidates import candidate_context
    from rolecall.pipelines.materialize import feature_store
    from rolecall.platform.registry import Registry
    from rolecall.serving.funnel import FunnelRequest
    from rolecall.serving.job_features import use_online_job_features
    from rolecall.serving.loader import load_release

    at = market_config(jobs).ends_at
    registry = Registry.from_settings(settings)
    release_id = registry.reconcile() or registry.releases.ids()[0]
    store = feature_store(settings)
    tell.step("load")
    with contextlib.closing(
        load_release(registry.releases.fetch(release_id), settings, settings.scratch_dir)
    ) as release:
        tell.step("open-features")
        store.online_candidates(["cand-000000"], at=at)
        tell.step("job-features")
        use_online_job_features(release, store)
        tell.step("recommend")
        shown = 0
        for number in range(RECOMMENDED):
            name = f"cand-{number:06d}"
            context = candidate_context(name, store.online_candidates([name], at=at)[0], at=at)
            shown += len(release.funnel.recommend(FunnelRequest(context=context, at=at, request_id=name)).items)
        tell.step("close")
        tell.facts(recommended=shown)


def _sizes(settings: Settings, release_id: str) -> Mapping[str, float]:
    """Bytes on disk: of each part of the release, and of each folder of the home."""
    from rolecall.platform.registry import Registry

    manifest = Registry.from_settings(settings).releases.manifest(release_id)
    sizes = {f"bytes.release.{part.name}": float(part.bytes) for part in manifest.parts}
    for folder in sorted(path for path in settings.home.iterdir() if path.is_dir()):
        files = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        sizes[f"bytes.home.{folder.name}"] = float(sum(file.stat().st_blocks * 512 for file in files))
    return sizes


def main() -> None:
    what, jobs, home, descriptor = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    from rolecall.platform.settings import load_settings

    settings = load_settings(
        environ={**os.environ, "ROLECALL_HOME": str(home), "ROLECALL_EMBEDDER__MAX_TOKENS": str(TOKENS)}
    )
    {"build": build, "serve": serve}[what](jobs, settings, Teller(descriptor))


if __name__ == "__main__":
    main()
