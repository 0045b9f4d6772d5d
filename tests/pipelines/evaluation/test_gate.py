"""What the gate lets through, what it refuses and why, and that its evidence gives the same verdict again."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rolecall.pipelines.evaluation.calibration import Calibration
from rolecall.pipelines.evaluation.fairness import Fairness
from rolecall.pipelines.evaluation.gate import Verdict, judge, judge_refresh, judge_release
from rolecall.pipelines.evaluation.gate.champion import Sensitivity
from rolecall.pipelines.evaluation.gate.evidence import REFRESHED, Evidence, compared
from rolecall.pipelines.evaluation.gate.power import power_rows, power_words
from rolecall.pipelines.evaluation.impressions import ImpressionQuality, impression_quality
from rolecall.pipelines.evaluation.judge import FUNNEL, MAIN_METRIC, Evaluation
from rolecall.pipelines.evaluation.parity import ExposureGap
from rolecall.pipelines.evaluation.statistics import Interval
from rolecall.pipelines.evaluation.targets import Target
from rolecall.platform.errors import GateRefusedError, InputError, IntegrityError
from rolecall.platform.gate_rules import GateRules

COUNT = 1500
RULES = GateRules.model_validate({"statistics": {"bootstrap_rounds": 100}})
TARGETS = tuple(
    Target(candidate_id=f"c{n}", at=datetime(2026, 3, 1, tzinfo=UTC), job_ids=("j",), labels=(1,)) for n in range(COUNT)
)
NEW = np.arange(COUNT) < COUNT // 5
OLD = RULES.champion.older_than_days + 1
_RANDOM = np.random.default_rng(0)
QUALITY = np.where(_RANDOM.random(COUNT) < 0.3, 0.0, _RANDOM.beta(2, 2, COUNT))
"""The champion's NDCG@10: nothing found for three targets of ten."""


def shape(**over: float) -> Calibration:
    """A good calibration, but for `over`."""
    asked: dict[str, Any] = {"slope": 1.0, "intercept": 0.0, "ece": 0.005, "constant_ece": 0.04, "bins": ()}
    return Calibration(**(asked | over))


def logged(**over: Any) -> ImpressionQuality:
    """The numbers of a good release on logged impressions, but for `over`."""
    asked: dict[str, Any] = {"auc": 0.75, "grouped_auc": 0.7, "normalized_entropy": 0.9, "base_rate": 0.05}
    return ImpressionQuality(**(asked | {"count": 6000, "calibration": shape()} | over))


def audit(changed: int = 0, **exposure: ExposureGap) -> Fairness:
    return Fairness(swaps=100, changed=changed, exposure=exposure)


def gap(mean: float, low: float, high: float, count: int = 200) -> ExposureGap:
    return ExposureGap(ratio=Interval(mean=mean, low=low, high=high, count=count), count=count)


@dataclass(frozen=True, kw_only=True)
class Finding:
    kind: str
    column: str
    evidence: str


def evaluation(values: npt.NDArray[np.float64] = QUALITY, **over: Any) -> Evaluation:
    """Slices are new and other candidates; TF-IDF finds a third of what the champion does."""
    count = len(values)
    new, known = NEW[:count], QUALITY[:count]
    asked: dict[str, Any] = {
        "targets": TARGETS[:count],
        "systems": {
            FUNNEL: {MAIN_METRIC: values},
            "tfidf": {MAIN_METRIC: known / 3},
            "random": {MAIN_METRIC: known * 0},
        },
        "stages": {},
        "slices": {"history=none": np.where(new, values, np.nan), "history=5+": np.where(new, np.nan, values)},
        "milliseconds": np.full(count, 12.0),
        "rounds": 100,
    }
    return Evaluation(**(asked | over))


def changed(mean: float, noise: float = 0.2, seed: int = 1) -> npt.NDArray[np.float64]:
    """The champion's values after a retraining: other by chance, and on average by `mean` of them."""
    moved = np.random.default_rng(seed).permutation(np.linspace(-noise, noise, COUNT))
    return QUALITY * (1 + mean) + moved - moved.mean()


def judged(challenger: Evaluation, champion: Evaluation | None = None, **over: Any) -> Verdict:
    asked: dict[str, Any] = {"rules": RULES, "size_bytes": 1 << 20} | over
    return judge_release(challenger, champion, **asked)


def test_the_first_good_release_passes() -> None:
    verdict = judged(evaluation())
    assert (verdict.outcome, verdict.passed, verdict.reasons) == ("first", True, ())
    verdict.require()


def test_a_better_release_passes_as_better() -> None:
    assert judged(evaluation(changed(0.1)), evaluation()).outcome == "better"


def test_an_equal_release_is_promoted_only_for_a_reason() -> None:
    same = evaluation(changed(0.0, noise=0.02))
    refused = judged(same, evaluation(), champion_age_days=3.0, champion_size_bytes=1 << 20)
    assert refused.outcome == "refused"
    assert "neither cheaper" in refused.reasons[0]
    fast = replace(same, milliseconds=np.full(COUNT, 6.0))
    for challenger, over, why in (
        (same, {"champion_age_days": OLD}, "days old"),
        (same, {"champion_size_bytes": 2 << 20}, "50% smaller"),
        (fast, {}, "p99 50% lower"),
        (same, {"champion_must_go": True}, "must go"),
    ):
        verdict = judged(challenger, evaluation(), **over)
        assert verdict.outcome == "equal"
        assert why in next(check.detail for check in verdict.checks if check.name == "against champion")


def test_a_loss_that_is_not_excluded_is_not_equal() -> None:
    """Neither better nor surely within the margin: the champion stays, however old it is, and the reason says so."""
    decided = RULES.changed(champion={"undecided_days": 0.0})
    verdict = judged(evaluation(changed(0.0, noise=1.0)), evaluation(), champion_age_days=OLD, rules=decided)
    assert verdict.outcome == "refused"
    assert "not surely better" in verdict.reasons[0]
    assert "an equal one needs about" in verdict.reasons[0]


def test_newer_models_replace_old_ones_only_where_the_log_is_too_small_to_tell() -> None:
    unclear, worse = evaluation(changed(0.0, noise=1.0)), evaluation(changed(-0.2, noise=1.0))
    assert judged(unclear, evaluation(), champion_age_days=1.0).outcome == "newer"
    assert judged(unclear, evaluation(), champion_age_days=0.5).outcome == "refused"
    assert judged(unclear, evaluation()).outcome == "refused", "the age is not known"
    assert judged(worse, evaluation(), champion_age_days=1.0).outcome == "refused"
    large = evaluation(changed(-0.028, noise=0.02))  # an equal one would be seen with these targets, and this is none
    assert judged(large, evaluation(), champion_age_days=1.0).outcome == "refused"


def test_a_champion_that_must_go_stays_only_where_its_successor_is_surely_worse() -> None:
    unclear, worse = evaluation(changed(0.0, noise=1.0)), evaluation(changed(-0.2, noise=0.1))
    assert judged(unclear, evaluation(), champion_must_go=True).outcome == "equal"
    assert judged(worse, evaluation(), champion_must_go=True).outcome == "refused"


def test_few_targets_never_show_equality_however_alike_two_releases_are() -> None:
    """A rare loss would not have been met (the rule of three)."""
    few = evaluation(QUALITY[:100])
    verdict = judged(few, few, champion_age_days=OLD)
    assert [reason.split(":")[0] for reason in verdict.reasons] == ["against champion"]
    assert judged(evaluation(), evaluation(), champion_age_days=OLD).outcome == "equal"


def test_a_rare_total_loss_is_seldom_taken_for_equal() -> None:
    """3% of the champion's mean lost at a few targets, all the others answered alike."""
    lost = 0.03 * QUALITY.mean() / QUALITY[QUALITY > 0].mean() / (QUALITY > 0).mean()
    outcomes = []
    for night in range(100):
        random = np.random.default_rng(night)
        drawn = QUALITY[random.integers(0, COUNT, COUNT)]
        worse = np.where(random.random(COUNT) < lost, 0.0, drawn)
        challenger = evaluation(worse, systems={FUNNEL: {MAIN_METRIC: worse}}, slices={})
        champion = evaluation(drawn, slices={})
        outcomes.append(judged(challenger, champion, champion_age_days=OLD).outcome)
    assert outcomes.count("refused") >= 96
    assert "better" not in outcomes


RUINED = np.where(NEW, QUALITY * 0.5, QUALITY * 1.3)
"""Better on average; new candidates find half of what they found."""


@pytest.mark.parametrize(
    ("challenger", "champion", "over", "reason"),
    [
        (evaluation(changed(-0.04)), evaluation(), {}, "against champion"),
        (evaluation(np.random.default_rng(5).permutation(QUALITY) * 0.2), None, {}, "against tfidf"),
        (evaluation(RUINED), evaluation(), {}, "slice history=none"),
        (evaluation(milliseconds=np.full(COUNT, 900.0)), None, {}, "p99"),
        (evaluation(), None, {"size_bytes": 1 << 40}, "size"),
        (evaluation(), None, {"schema_errors": ["column x is unknown"]}, "schema: column x is unknown"),
        (evaluation(), None, {"rules": RULES.changed(targets={"least": COUNT + 1})}, f"targets: {COUNT}, at least"),
        (
            evaluation(changed(0.8)),
            evaluation(),
            {"leak_findings": [Finding(kind="future", column="hired_later", evidence="changed by what came after")]},
            "leaks: future: hired_later: changed by what came after",
        ),
        (evaluation(impressions=logged(normalized_entropy=1.4)), None, {}, "calibration"),
        (evaluation(impressions=logged(calibration=shape(ece=0.06))), None, {}, "calibration"),
        (evaluation(impressions=logged(calibration=shape(slope=0.3))), None, {}, "slope lies surely outside"),
        (evaluation(), None, {"fairness": audit(changed=3)}, "names and pronouns: 3 of 100"),
        (
            evaluation(),
            None,
            {"fairness": audit(B=gap(0.6, 0.5, 0.7))},
            "exposure of B",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_fault_is_refused_with_its_reason(
    challenger: Evaluation, champion: Evaluation | None, over: dict[str, object], reason: str
) -> None:
    verdict = judged(challenger, champion, **over)
    assert verdict.outcome == "refused"
    assert len(verdict.reasons) == 1
    assert reason in verdict.reasons[0]
    with pytest.raises(GateRefusedError) as caught:
        verdict.require()
    assert reason in str(pickle.loads(pickle.dumps(caught.value)))


def test_a_constant_probability_never_passes() -> None:
    """Whatever its rate: it has the base rate's log loss or worse, no error below a constant's, and no slope."""
    constant = logged(auc=0.5, normalized_entropy=1.0, calibration=shape(slope=float("nan"), ece=0.0, constant_ece=0.0))
    reasons = judged(evaluation(impressions=constant)).reasons
    assert all(said in reasons[0] for said in ("log loss", "error is not below", "no slope"))


def test_real_constants_and_tripled_probabilities_are_refused_and_honest_ones_pass() -> None:
    """Through the judge's own figures of impressions whose true probability is known."""
    random = np.random.default_rng(2)
    true = np.clip(random.beta(1, 12, 8000), 1e-3, 0.3)
    came, who = random.random(8000) < true, np.arange(8000) // 10
    for said, outcome in (
        (true, "first"),
        (np.full(8000, came.mean()), "refused"),
        (np.full(8000, 0.3), "refused"),
        (true * 3, "refused"),
        (true**0.3, "refused"),
    ):
        quality = impression_quality(np.asarray(said, np.float64), came, who)
        assert judged(evaluation(impressions=quality)).outcome == outcome


def test_probabilities_are_not_judged_on_few_impressions() -> None:
    wild = logged(count=100, calibration=shape(slope=9.0))
    assert judged(evaluation(impressions=wild)).passed


def test_a_difference_of_exposure_that_may_be_chance_passes() -> None:
    assert judged(evaluation(), fairness=audit(B=gap(0.7, 0.4, 1.1, count=12))).passed


def test_one_bad_slice_of_many_by_chance_is_forgiven_and_without_correction_is_not() -> None:
    """A p-value of .02 among twenty slices is what luck gives."""
    random = np.random.default_rng(4)
    slices, champion = {}, {}
    for number in range(20):
        inside = np.zeros(COUNT, bool)
        inside[number * 70 : number * 70 + 70] = True
        shift = -0.13 if number == 0 else 0.0
        moved = QUALITY * (1 + shift) + random.permutation(np.linspace(-0.1, 0.1, COUNT)) * (1 if number == 0 else 0)
        slices[f"place={number}"] = np.where(inside, moved, np.nan)
        champion[f"place={number}"] = np.where(inside, QUALITY, np.nan)
    both = evaluation(changed(0.1), slices=slices), evaluation(slices=champion)
    p_value = next(c.evidence["p_worse"] for c in judged(*both).checks if c.name == "slice place=0")
    strict = RULES.changed(slices={"correction": "none", "level": float(p_value) / 10})
    assert judged(*both).passed
    assert not judged(*both, rules=strict).passed


def test_other_targets_are_no_comparison() -> None:
    with pytest.raises(InputError, match="different targets"):
        judged(evaluation(), evaluation(targets=TARGETS[::-1]))


def test_champion_and_challenger_may_be_compared_on_targets_of_their_own() -> None:
    own, worse = evaluation(targets=TARGETS[::-1]), evaluation(changed(-0.2), targets=TARGETS[::-1])
    better = evaluation(changed(0.2), targets=TARGETS[::-1])
    assert judged(evaluation(), own, rival=better).passed
    assert "against champion" in judged(evaluation(), own, rival=worse).reasons[0]


def test_the_targets_of_one_candidate_count_as_one() -> None:
    """The same gain, met by ten candidates a hundred and fifty times over, is no proof."""
    ten = tuple(replace(target, candidate_id=f"c{n // 150}") for n, target in enumerate(TARGETS))
    lucky = QUALITY + np.where(np.arange(COUNT) // 150 < 6, 0.1, -0.05)
    assert judged(evaluation(lucky), evaluation()).outcome == "better"
    assert judged(evaluation(lucky, targets=ten), evaluation(targets=ten)).outcome == "refused"


def test_people_for_jobs_may_not_become_surely_worse() -> None:
    worse = evaluation(changed(-0.1)), evaluation()
    verdict = judged(evaluation(changed(0.1)), evaluation(), people=worse)
    assert [reason.split(":")[0] for reason in verdict.reasons] == ["people against champion"]
    assert judged(evaluation(changed(0.1)), evaluation(), people=worse[::-1]).passed


def test_the_kept_evidence_gives_the_same_verdict_and_other_rules_another(tmp_path: Path) -> None:
    fair = audit(B=gap(0.9, 0.85, 0.95))
    night = {
        "champion_age_days": OLD,
        "champion_size_bytes": 5,
        "fairness": fair,
        "people": (evaluation(), evaluation()),
    }
    verdict = judged(evaluation(changed(0.0, noise=0.02), impressions=logged()), evaluation(), **night)
    verdict.write(tmp_path, champion="abc")
    kept = Evidence.load(tmp_path / "evidence.npz")
    told = json.loads((tmp_path / "verdict.json").read_text())
    assert judge(kept, RULES).to_dict() | {"champion": "abc"} == told
    assert (told["outcome"], told["rules"]["champion"]["margin"]) == ("equal", 0.03)
    assert judge(kept, GateRules.model_validate(told["rules"])).outcome == "equal"
    assert judge(kept, RULES.changed(champion={"older_than_days": OLD + 1})).outcome == "refused"
    assert not {target.candidate_id.encode() for target in TARGETS[:50]} & {
        *(tmp_path / "evidence.npz").read_bytes().split(b'"')
    }
    (tmp_path / "evidence.npz").write_bytes(b"PK")
    with pytest.raises(IntegrityError):
        Evidence.load(tmp_path / "evidence.npz")


def test_every_check_states_its_evidence_as_json(tmp_path: Path) -> None:
    verdict = judged(evaluation(changed(0.1)), evaluation(), fairness=audit())
    assert json.loads(json.dumps(verdict.to_dict(), allow_nan=False))["outcome"] == "better"
    assert all(check.detail for check in verdict.checks)
    seen = {check.name: check.evidence for check in verdict.checks}
    assert seen["against champion"]["targets"] == COUNT
    assert seen["slice history=none"]["bound"] == 0.05


def test_power_says_what_the_targets_see_and_how_many_and_how_long_more_would_take() -> None:
    pairs = compared(evaluation(changed(0.0)), evaluation())
    sensitivity = Sensitivity.of(pairs)
    rows = power_rows(sensitivity, RULES, days=3)
    assert [row.now for row in rows] == sorted(row.now for row in rows)
    needed = [row.targets or 0 for row in rows]
    assert needed == sorted(needed, reverse=True)
    assert [row.days for row in rows] == [-(-n * 3 // COUNT) for n in needed]
    effect = sensitivity.effect(RULES)
    assert sensitivity.needed(effect, RULES) == pytest.approx(COUNT, rel=0.01)
    assert (
        f"with your 1,500 targets an effect of {effect:.1%} is seen with power 0.8"
        in power_words(sensitivity, RULES)[0]
    )
    alike = Sensitivity.of(compared(evaluation(), evaluation()))
    assert "nothing to tell apart" in power_words(alike, RULES)[0]


def test_the_champions_rankers_over_a_new_catalogue_may_not_surely_lose_to_themselves() -> None:
    asked: dict[str, Any] = {"rules": RULES, "size_bytes": 1 << 20}
    assert judge_refresh(evaluation(changed(0.0, noise=1.0)), evaluation(), **asked).outcome == "equal"
    rubbish = judge_refresh(evaluation(changed(-0.3)), evaluation(), **asked)
    assert rubbish.outcome == "refused"
    assert "surely losing more than 3%" in rubbish.reasons[0]
    assert judge_refresh(evaluation(), evaluation(), schema_errors=["column x"], **asked).outcome == "refused"


def test_rankers_that_beat_the_refreshed_champion_on_a_spoiled_catalogue_do_not_replace_the_served_one(
    tmp_path: Path,
) -> None:
    spoiled, learned = evaluation(changed(-0.5)), evaluation(changed(-0.3))
    assert judged(learned, spoiled, opponent=REFRESHED).outcome == "better"
    verdict = judged(learned, spoiled, opponent=REFRESHED, served=evaluation())
    assert verdict.outcome == "refused"
    assert [reason.split(":")[0] for reason in verdict.reasons] == ["against champion"]
    verdict.write(tmp_path)
    assert judge(Evidence.load(tmp_path / "evidence.npz"), RULES).to_dict() == verdict.to_dict()
    assert judged(evaluation(changed(0.1)), evaluation(), opponent=REFRESHED, served=evaluation()).passed


@pytest.mark.parametrize("count", [0, COUNT])
def test_a_catalogue_that_lost_most_of_its_jobs_is_refused_even_where_nobody_asked_anything(count: int) -> None:
    """A bad ingest on a quiet day: there is no target that could tell."""
    asked: dict[str, Any] = {"rules": RULES, "size_bytes": 1 << 20, "champion_live_jobs": 1000}
    some = evaluation(QUALITY[:count])
    assert judge_refresh(some, some, live_jobs=500, **asked).passed
    lost = judge_refresh(some, some, live_jobs=499, **asked)
    assert [reason.split(":")[0] for reason in lost.reasons] == ["catalogue"]
    assert "499 live jobs where the champion had 1,000" in lost.reasons[0]
    better = judged(evaluation(changed(0.1)), evaluation(), live_jobs=499, champion_live_jobs=1000)
    assert [reason.split(":")[0] for reason in better.reasons] == ["catalogue"]
    allowed = RULES.changed(catalogue={"min_live": 0.4})
    assert judge_refresh(some, some, live_jobs=499, **(asked | {"rules": allowed})).passed


def test_the_verdict_names_what_it_compared_with_and_its_evidence_gives_it_again(tmp_path: Path) -> None:
    people = (evaluation(QUALITY[:200]), evaluation(QUALITY[:200]))
    kinds = {
        "refreshed champion": judged(evaluation(changed(0.1)), evaluation(), people=people, opponent=REFRESHED),
        "champion": judge_refresh(evaluation(), evaluation(), rules=RULES, size_bytes=1, people=people, live_jobs=9),
    }
    for opponent, verdict in kinds.items():
        names = {check.name for check in verdict.checks}
        assert {f"against {opponent}", f"people against {opponent}"} <= names
        verdict.write(tmp_path)
        again = judge(Evidence.load(tmp_path / "evidence.npz"), RULES)
        assert again.to_dict() == verdict.to_dict()
