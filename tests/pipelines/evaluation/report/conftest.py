"""A judged release as reports are made from: evaluations of made-up values, a verdict and an audit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from pydantic import BaseModel

from rolecall.pipelines.evaluation.calibration import Bin, Calibration
from rolecall.pipelines.evaluation.counterfactual.estimators import Estimate as LogEstimate
from rolecall.pipelines.evaluation.counterfactual.estimators import ips, snips
from rolecall.pipelines.evaluation.counterfactual.examination import power_law
from rolecall.pipelines.evaluation.counterfactual.log_value import LogValue
from rolecall.pipelines.evaluation.counterfactual.weights import Logged, ordered
from rolecall.pipelines.evaluation.fairness import Fairness
from rolecall.pipelines.evaluation.gate.champion import Sensitivity
from rolecall.pipelines.evaluation.gate.power import Power, power_rows, power_words
from rolecall.pipelines.evaluation.impressions import ImpressionQuality
from rolecall.pipelines.evaluation.judge import FUNNEL, Evaluation
from rolecall.pipelines.evaluation.parity import ExposureGap
from rolecall.pipelines.evaluation.people_targets import PeopleTarget
from rolecall.pipelines.evaluation.report.figures import Report
from rolecall.pipelines.evaluation.report.write import gather_report
from rolecall.pipelines.evaluation.statistics import Interval
from rolecall.pipelines.evaluation.targets import Target
from rolecall.platform.gate_rules import GateRules
from rolecall.platform.release import Manifest, Part, release_id

AT = datetime(2026, 11, 22, tzinfo=UTC)
PERSON = "person-canary-7f3a"
JOB = "job-canary-91bc"
METRICS = ("recall@10", "hr@10", "hr@50", "ndcg@10", "mrr", "recall@50", "recall@500")
JOBS = 400
CHECKS = ("targets", "against champion", "slice candidate=new", "calibration", "p99", "size", "schema", "fairness")


@dataclass(frozen=True, kw_only=True)
class Check:
    name: str
    ok: bool = True
    detail: str = "as it should be"
    evidence: Mapping[str, float | str | None] = field(default_factory=dict)


class Rules(BaseModel):
    """Stands in for the gate's rules."""

    better: dict[str, float] = {"level": 0.0125}
    equal: dict[str, float] = {"margin": 0.0375, "older_than_days": 28.0}
    cut_by: tuple[str, ...] = ("place", "job")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    checks: tuple[Check, ...]
    outcome: str
    rules: Rules = field(default_factory=Rules)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Everything `gather_report` takes, to replace parts of at will."""

    manifest: Manifest
    evaluation: Evaluation
    champion: Evaluation | None
    verdict: Verdict
    titles: Mapping[str, str]
    wishes: Mapping[str, str] | None = None
    rival: Evaluation | None = None
    people: tuple[Evaluation, Evaluation | None] | None = None
    fairness: Fairness | None = None
    log: LogValue | None = None
    power: Power | None = None
    champion_id: str = "b77008bee694668c"

    def arguments(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def report(self) -> Report:
        return gather_report(**self.arguments())  # type: ignore[arg-type]


def manifest() -> Manifest:
    files = {"coarse": 143_567, "fine": 708_467, "index": 183_296_000, "jobs": 138_068}
    parts = tuple(
        Part(name=name, file=f"{name}.bin", sha256=f"{row:064x}", bytes=size, content=f"{row:064x}")
        for row, (name, size) in enumerate(files.items())
    )
    told = {"settings": {"ranking": {"seed": 7}}, "code_version": "0.1.0+81c50dd51277f869", "tables": {"jobs": 12}}
    return Manifest(id=release_id(parts=parts, **told), as_of=AT, parts=parts, **told)  # type: ignore[arg-type]


def targets(count: int) -> tuple[Target, ...]:
    rng = np.random.default_rng(5)
    found = []
    for row in range(count):
        jobs = rng.choice(JOBS, size=1 + row % 4, replace=False)
        labels = tuple(int(label) for label in rng.integers(1, 4, len(jobs)))
        names = tuple(f"{JOB}-{job}" for job in jobs)
        at = AT - timedelta(hours=row)
        found.append(Target(candidate_id=f"{PERSON}-{row}", at=at, job_ids=names, labels=labels))
    return tuple(found)


def evaluation(
    count: int = 240, *, skill: float = 0.6, seed: int = 1, systems: Sequence[str] = (FUNNEL, "tfidf", "popularity")
) -> Evaluation:
    """Values drawn for each target; `skill` moves the release's upwards."""
    rng, asked = np.random.default_rng(seed), targets(count)
    hard = np.random.default_rng(3).random(count)
    level = {name: skill if name == FUNNEL else 0.25 + 0.1 * (letters(name) % 3) for name in systems}

    def values(mean: float) -> np.ndarray:
        return np.clip(mean + 0.7 * (hard - 0.5) + rng.normal(0, 0.12, count), 0, 1)

    new = hard < 0.2
    main = {name: {metric: values(mean) for metric in METRICS} for name, mean in level.items()}
    ours = main[FUNNEL]["ndcg@10"]
    wanted = [target.job_ids for target in asked]
    lists = {
        name: tuple(
            tuple(dict.fromkeys([*(jobs[:1] if rng.random() < mean else ()), *(f"{JOB}-{j}" for j in row)]))[:20]
            for jobs, row in zip(wanted, rng.integers(0, JOBS, (count, 20)), strict=True)
        )
        for name, mean in level.items()
    }
    return Evaluation(
        targets=asked,
        systems=main,
        stages={"recall@1000": np.clip(values(0.97), 0, 1), "coarse_recall@500": np.clip(values(0.9), 0, 1)},
        slices={
            "candidate=new": np.where(new, ours, np.nan),
            "candidate=known": np.where(new, np.nan, ours),
            "place=ID": np.where(hard > 0.5, ours, np.nan),
            "place=GB": np.where(hard > 0.95, ours, np.nan),
            "category=healthcare and social assistance": np.where(hard < 0.5, ours, np.nan),
        },
        reachable=np.clip(hard * 0.05 + 0.95, 0, 1),
        milliseconds=rng.lognormal(2.6, 0.6, count),
        rounds=100,
        lists=lists,
        catalogue={
            name: {
                "coverage@10": float(rng.random()),
                "gini_exposure@10": float(rng.random()),
                "novelty@10": float(8 + rng.random()),
                "serendipity@10": float(rng.random() / 10),
                "popularity_bias@10": float(1 + rng.random()),
                "diversity@10": float(rng.random()),
            }
            for name in systems
        },
        impressions=quality(),
    )


def letters(name: str) -> int:
    return sum(map(ord, name))


def quality() -> ImpressionQuality:
    told = Calibration(
        slope=0.84, slope_low=0.79, slope_high=0.89, intercept=-0.12, ece=0.0113, constant_ece=0.0386, bins=bins()
    )
    return ImpressionQuality(
        auc=0.7312, grouped_auc=0.6891, normalized_entropy=0.9127, base_rate=0.0461, count=48211, calibration=told
    )


def bins() -> tuple[Bin, ...]:
    predicted = np.geomspace(0.004, 0.31, 10)
    return tuple(
        Bin(predicted=float(p), observed=float(p * (0.82 + 0.06 * row)), count=9000 // (row + 1))
        for row, p in enumerate(predicted)
    )


def verdict(outcome: str = "better", failed: Sequence[str] = ()) -> Verdict:
    checks = tuple(
        Check(
            name=name,
            ok=name not in failed,
            detail="612.4 ms, at most 500" if name == "p99" else "ndcg@10 +0.0312, at least +0.0101",
            evidence={"mean": 0.03124, "low": 0.01011, "method": "paired permutation", "p": None},
        )
        for name in CHECKS
    )
    return Verdict(checks=checks, outcome="refused" if failed else outcome)


def logged(seed: int) -> dict[str, LogEstimate]:
    """Estimates from forty made-up visits: too few, so they warn."""
    rng = np.random.default_rng(seed)
    log = Logged(
        propensity=np.full((40, 3), 0.4), reward=(rng.random((40, 3)) < 0.2).astype(np.float64), cluster=np.arange(40)
    )
    curve = power_law(3, 0.5)
    sample = ordered(log, rng.random((40, 3)), curve, due=np.full(40, curve.sum()))
    return {"ips": ips(sample), "snips": snips(sample)}


def seen() -> Power:
    """What a comparison of 240 targets in two days can tell."""
    rules = GateRules.model_validate({})
    found = Sensitivity(targets=240, champion_mean=0.4, spread=0.44, design=1.1)
    rows = tuple(power_rows(found, rules, days=2))
    return Power(targets=240, days=2, rows=rows, words=tuple(power_words(found, rules)))


def audit() -> Fairness:
    exposure = {
        "age 50 and over": ExposureGap(ratio=Interval(mean=0.712, low=0.66, high=0.77, count=90), count=90),
        "women": ExposureGap(ratio=Interval(mean=1.021, low=0.94, high=1.11, count=210), count=210),
    }
    return Fairness(swaps=640, changed=3, exposure=exposure)


@pytest.fixture
def draw() -> Callable[..., Evaluation]:
    """`evaluation`, for tests that want another."""
    return evaluation


@pytest.fixture
def judged() -> Judged:
    """A release that is better than its champion, with everything measured."""
    jobs = evaluation(80, skill=0.5, seed=8, systems=(FUNNEL, "dense"))
    asked = tuple(
        PeopleTarget(job_id=one.job_ids[0], at=AT, candidate_ids=(f"{PERSON}-{row}",), labels=(2,))
        for row, one in enumerate(jobs.targets)
    )
    named = {name: tuple((f"{PERSON}-{row}", f"{PERSON}-0") for row in range(80)) for name in jobs.lists}
    people = replace(jobs, targets=asked, lists=named)
    return Judged(
        manifest=manifest(),
        evaluation=evaluation(),
        champion=evaluation(skill=0.55, seed=2),
        verdict=verdict(),
        titles={f"{JOB}-{row}": f"Title {row}" for row in range(JOBS)},
        wishes={f"{PERSON}-{row}": f"Wish {row}" for row in range(70)},
        people=(people, None),
        fairness=audit(),
        log=LogValue(release=logged(1), champion=logged(2)),
        power=seen(),
    )


@pytest.fixture(scope="session")
def judged_small() -> Judged:
    """A release with few targets and no champion, for tests that render many pages."""
    return Judged(
        manifest=manifest(),
        evaluation=replace(evaluation(12), impressions=None, catalogue={}),
        champion=None,
        verdict=verdict("first"),
        titles={f"{JOB}-{row}": "" for row in range(JOBS)},
    )


@pytest.fixture
def refused(judged: Judged) -> Judged:
    return replace(judged, verdict=verdict(failed=("p99", "slice candidate=new")))
