"""Releases of a marketplace as the judge measured them (`tests/bench/gate_nights.py`), put to the gate."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rolecall.pipelines.evaluation.gate import judge_release
from rolecall.pipelines.evaluation.gate.decision import judge
from rolecall.pipelines.evaluation.gate.verdict import Verdict
from rolecall.pipelines.evaluation.judge import FUNNEL, MAIN_METRIC, Evaluation
from rolecall.pipelines.evaluation.targets import Target
from rolecall.platform.gate_rules import GateRules

FILE = Path(__file__).resolve().parents[2] / "bench" / "gate_targets.parquet"
RULES = GateRules.model_validate({"statistics": {"bootstrap_rounds": 100}})


@pytest.fixture(scope="module")
def measured() -> pl.DataFrame:
    return pl.read_parquet(FILE)


def evaluation(rows: pl.DataFrame, release: str) -> Evaluation:
    whole = rows.filter(pl.col("slice") == "").sort("target")
    slices = {}
    for (name,), part in rows.filter(pl.col("slice") != "").partition_by("slice", as_dict=True).items():
        slices[str(name)] = np.full(whole.height, np.nan)
        slices[str(name)][part["target"].to_numpy()] = part[release].to_numpy()
    at = datetime(2026, 9, 1, tzinfo=UTC)
    return Evaluation(
        targets=tuple(Target(candidate_id=f"c{n}", at=at, job_ids=("j",), labels=(1,)) for n in range(whole.height)),
        systems={FUNNEL: {MAIN_METRIC: whole[release].to_numpy()}},
        stages={},
        slices=slices,
        milliseconds=np.full(whole.height, 20.0),
    )


def test_a_release_that_learned_half_its_labels_shuffled_is_refused(measured: pl.DataFrame) -> None:
    verdict = judge_release(
        evaluation(measured, "worse"), evaluation(measured, "champion"), rules=RULES, size_bytes=1, champion_age_days=99
    )
    assert verdict.outcome == "refused"
    assert verdict.reasons[0].startswith("against champion: ndcg@10 -0.")
    better = judge_release(evaluation(measured, "champion"), evaluation(measured, "worse"), rules=RULES, size_bytes=1)
    assert better.outcome == "better"


def test_a_release_that_may_have_lost_more_than_the_margin_passes_as_newer_only_while_it_does_not_surely_lose(
    measured: pl.DataFrame,
) -> None:
    """Retrained on one day more: too few targets to call it equal. Where a quarter of its answers are of the worse
    release it loses too surely to pass as newer."""
    every_fourth = measured.with_columns(
        spoilt=pl.when(pl.col("target") % 4 == 0).then(pl.col("worse")).otherwise(pl.col("retrained"))
    )
    champion = evaluation(measured, "champion")

    def verdict(release: str) -> Verdict:
        return judge_release(
            evaluation(every_fourth, release), champion, rules=RULES, size_bytes=1, champion_age_days=99
        )

    assert verdict("retrained").outcome == "newer"
    lost = verdict("spoilt")
    assert lost.outcome == "refused"
    assert "surely losing (p" in lost.reasons[0]
    for judged in (verdict("retrained"), lost):
        waited = judge(judged.evidence, RULES.changed(champion={"undecided_days": 0.0}))
        assert waited.outcome == "refused"
        assert "not surely better" in waited.reasons[0]
