"""What other libraries answer to questions drawn here: writes `expected.json`, which our own metrics are held against.

These libraries cannot live beside ours (RecTools wants numpy below 2, ranx compiles with numba, OBP is of 2021 and
imports seaborn), so they have an environment of their own, and only what they answered is kept:

    python3.11 -m venv /tmp/oracles
    /tmp/oracles/bin/pip install -r tests/oracles/requirements.lock
    /tmp/oracles/bin/python tests/oracles/answers.py

Every number of an input is a multiple of 1/64, so JSON holds it exactly.
"""

from __future__ import annotations

import json
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

USERS, ITEMS, LISTED, K = 12, 60, 30, 10
VERSIONS = ("ranx", "RecTools", "obp", "scikit-learn", "numpy", "pandas")
Json = dict[str, Any]


def ranking_inputs(random: np.random.Generator) -> Json:
    """Lists of distinct items, graded relevance, earlier interactions, and vectors of the items."""
    lists, gains, earlier = [], [], []
    for _ in range(USERS):
        lists.append(random.permutation(ITEMS)[:LISTED].tolist())
        relevant = random.choice(ITEMS, int(random.integers(1, 15)), replace=False)
        gains.append({str(item): int(random.integers(1, 4)) for item in relevant})
        before = random.choice(ITEMS - 10, 8, replace=False, p=np.arange(1, ITEMS - 9) / np.arange(1, ITEMS - 9).sum())
        earlier.append(before.tolist())
    vectors = (random.integers(-64, 65, (ITEMS, 8)) / 64).tolist()
    return {"items": ITEMS, "lists": lists, "gains": gains, "earlier": earlier, "vectors": vectors}


def distinct_counts() -> list[list[int]]:
    """Earlier interactions of 10 users in which no two of the items 0 to 9 are equally popular."""
    return [[item for item in range(10) if item >= user] for user in range(10)]


def ask_ranx(inputs: Json) -> Json:
    """Metrics of each user."""
    from ranx import Qrels, Run, evaluate

    names = ["ndcg_burges@10", "map@10", "map", "mrr", "recall@10", "hit_rate@10"]
    qrels = Qrels({f"u{u:02}": {f"i{i}": g for i, g in gains.items()} for u, gains in enumerate(inputs["gains"])})
    run = Run(
        {
            f"u{u:02}": {f"i{item}": float(LISTED - place) for place, item in enumerate(items)}
            for u, items in enumerate(inputs["lists"])
        }
    )
    found = evaluate(qrels, run, names, return_mean=False)
    return {name: np.asarray(found[name]).tolist() for name in names}


def ask_rectools(inputs: Json) -> Json:
    """Metrics of each user, coverage of all."""
    from rectools.metrics import (
        MAP,
        MRR,
        NDCG,
        AvgRecPopularity,
        CatalogCoverage,
        HitRate,
        IntraListDiversity,
        MeanInvUserFreq,
        Recall,
        Serendipity,
    )

    reco = pd.DataFrame(
        [(u, i, place + 1) for u, items in enumerate(inputs["lists"]) for place, i in enumerate(items)],
        columns=["user_id", "item_id", "rank"],
    )
    liked = _pairs([[int(item) for item in gains] for gains in inputs["gains"]])
    earlier = _pairs(inputs["earlier"])
    catalogue = list(range(inputs["items"]))
    accuracy = {
        "map@10": MAP(K),
        "mrr@10": MRR(K),
        "recall@10": Recall(K),
        "hit_rate@10": HitRate(K),
        "ndcg@10": NDCG(K),
    }
    found: Json = {name: metric.calc_per_user(reco, liked).tolist() for name, metric in accuracy.items()}
    distances = _Distances(np.array(inputs["vectors"]))
    found |= {
        "coverage@10": float(CatalogCoverage(K, normalize=True).calc(reco, catalogue)),
        "mean_inverse_user_frequency@10": MeanInvUserFreq(K).calc_per_user(reco, earlier).tolist(),
        "popularity@10": AvgRecPopularity(K).calc_per_user(reco, earlier).tolist(),
        "serendipity@10": Serendipity(K).calc_per_user(reco, liked, earlier, catalogue).tolist(),
        "serendipity_distinct@10": Serendipity(K)
        .calc_per_user(reco, liked, _pairs(inputs["distinct"]), catalogue)
        .tolist(),
        "diversity@10": IntraListDiversity(K, distance_calculator=distances).calc_per_user(reco).tolist(),
    }
    return found


class _Distances:
    """Cosine distances of pairs of items, as RecTools asks for them."""

    def __init__(self, vectors: np.ndarray) -> None:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        self._table = 1 - unit @ unit.T

    def __getitem__(self, pair: tuple[Any, Any]) -> np.ndarray:
        return self._table[np.asarray(pair[0], int), np.asarray(pair[1], int)]


def _pairs(items: list[list[int]]) -> pd.DataFrame:
    return pd.DataFrame([(u, i) for u, some in enumerate(items) for i in some], columns=["user_id", "item_id"])


def ope_problem(name: str, *, seed: int, rounds: int, actions: int, sharpness: float, binary: bool) -> Json:
    """Logged rounds of a bandit and a policy to be judged on them.

    `logging`, `target` [rounds][actions]: distributions; `actions`: what was done; `rewards`; `model`
    [rounds][actions]: rewards as some regression expects them. Multiples of 1/64 all.
    """
    random = np.random.default_rng(seed)
    logging, target = (_distributions(random, rounds, actions, sharpness) for _ in range(2))
    taken = np.array([random.choice(actions, p=row) for row in logging])
    truth = random.random((rounds, actions))
    rewards = truth[np.arange(rounds), taken]
    rewards = (random.random(rounds) < rewards).astype(float) if binary else np.round(rewards * 64) / 64
    model = np.round(np.clip(truth + random.normal(0, 0.2, truth.shape), 0, 1) * 64) / 64
    return {
        "name": name,
        "logging": logging.tolist(),
        "target": target.tolist(),
        "actions": taken.tolist(),
        "rewards": rewards.tolist(),
        "model": model.tolist(),
    }


def _distributions(random: np.random.Generator, rounds: int, actions: int, sharpness: float) -> np.ndarray:
    """Rows of 64ths, none 0, that sum to 1."""
    wanted = random.dirichlet(np.full(actions, 1 / sharpness), rounds)
    counts = 1 + np.floor(wanted * (64 - actions)).astype(int)
    counts[np.arange(rounds), wanted.argmax(axis=1)] += 64 - counts.sum(axis=1)
    return counts / 64


def ask_obp(problem: Json) -> Json:
    """The value of the target policy by each estimator; `switch_dr@t` uses the model where the weight is above t."""
    from obp import ope

    taken = np.array(problem["actions"])
    given = {
        "reward": np.array(problem["rewards"]),
        "action": taken,
        "position": np.zeros(len(taken), int),
        "action_dist": np.array(problem["target"])[:, :, None],
    }
    pscore = np.array(problem["logging"])[np.arange(len(taken)), taken]
    model = np.array(problem["model"])[:, :, None]
    weighted = {
        "ips": ope.InverseProbabilityWeighting(),
        "snips": ope.SelfNormalizedInverseProbabilityWeighting(),
    }
    modelled = {
        "dr": ope.DoublyRobust(),
        "sndr": ope.SelfNormalizedDoublyRobust(),
        "switch_dr@1": ope.SwitchDoublyRobust(tau=1.0),
        "switch_dr@3": ope.SwitchDoublyRobust(tau=3.0),
        "dr_shrinkage@2": ope.DoublyRobustWithShrinkage(lambda_=2.0),
    }
    found = {name: float(one.estimate_policy_value(pscore=pscore, **given)) for name, one in weighted.items()}
    found |= {
        name: float(one.estimate_policy_value(pscore=pscore, estimated_rewards_by_reg_model=model, **given))
        for name, one in modelled.items()
    }
    direct = ope.DirectMethod().estimate_policy_value(
        action_dist=given["action_dist"], estimated_rewards_by_reg_model=model, position=given["position"]
    )
    return found | {"dm": float(direct)}


def main() -> None:
    """Draw, ask, write."""
    warnings.simplefilter("ignore")
    ranking = ranking_inputs(np.random.default_rng(11)) | {"distinct": distinct_counts()}
    problems = [
        ope_problem("mild", seed=1, rounds=120, actions=5, sharpness=1.0, binary=True),
        ope_problem("sharp", seed=2, rounds=120, actions=8, sharpness=4.0, binary=True),
        ope_problem("graded", seed=3, rounds=120, actions=4, sharpness=2.0, binary=False),
    ]
    answers = {
        "versions": {name: version(name) for name in VERSIONS},
        "ranking": {"inputs": ranking, "ranx": ask_ranx(ranking), "rectools": ask_rectools(ranking)},
        "ope": [{"inputs": problem, "obp": ask_obp(problem)} for problem in problems],
    }
    Path(__file__).with_name("expected.json").write_text(json.dumps(answers, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
