"""What the Open Bandit Pipeline (obp 0.4.1) answers on random logs. Needs numpy and obp, and nothing of ours.

    PYTHON tests/bench/ope_oracle.py --seed 7 --visits 2000              # one JSON object: version and answers
    PYTHON tests/bench/ope_oracle.py --seed 5 --visits 16 --inputs       # with the log itself: the tests' reference

`inputs` makes the same log anywhere from a seed, by arithmetic that no numpy release changes.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

ACTIONS, SLOTS, LIMIT = 6, 3, 2.5
_PRIME, _STEP = 2**31 - 1, 48271


def uniform(seed: int, *shape: int) -> Any:
    """Numbers in (0, 1) by the minimal standard generator (Park and Miller 1988)."""
    state, out = seed * 7919 % _PRIME or 1, []
    for _ in range(int(np.prod(shape)) + 8):
        state = state * _STEP % _PRIME
        out.append(state / _PRIME)
    return np.array(out[8:]).reshape(shape)


def inputs(seed: int, visits: int) -> dict[str, Any]:
    """A log of single actions and one of slates with every kind of probability, as plain arrays."""
    logging, target = (_chances(uniform(seed + n, visits, ACTIONS)) for n in (1, 2))
    rows = np.arange(visits)
    action = np.minimum((np.cumsum(logging, axis=1) < uniform(seed + 3, visits, 1)).sum(axis=1), ACTIONS - 1)
    one = {"logging": logging[rows, action], "target": target[rows, action]}
    slate = {
        f"slate_{name}": 0.1 + 0.8 * uniform(seed + n, visits, SLOTS) for n, name in ((5, "logging"), (6, "target"))
    }
    return {
        "action": action,
        "reward": (uniform(seed + 4, visits) < 0.3).astype(float),
        "action_logging": one["logging"],
        "action_target": one["target"],
        "target": target,
        "model": uniform(seed + 7, visits, ACTIONS),
        "slate_reward": (uniform(seed + 8, visits, SLOTS) < 0.3).astype(float),
        **slate,
    }


def _chances(x: Any) -> Any:
    return (x + 0.05) / (x + 0.05).sum(axis=1, keepdims=True)


def answers(log: dict[str, Any]) -> dict[str, float]:
    """The library's estimates of that log."""
    from obp import ope

    single = {"reward": log["reward"], "action": log["action"], "pscore": log["action_logging"]}
    single |= {"action_dist": log["target"][:, :, None], "position": np.zeros(len(log["action"]), dtype=int)}
    clipped = single | {"pscore": np.maximum(log["action_logging"], log["action_target"] / LIMIT)}
    model = single | {"estimated_rewards_by_reg_model": log["model"][:, :, None]}
    return {
        "ips": ope.InverseProbabilityWeighting().estimate_policy_value(**single),
        "ips_clipped": ope.InverseProbabilityWeighting().estimate_policy_value(**clipped),
        "snips": ope.SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(**single),
        "dr": ope.DoublyRobust().estimate_policy_value(**model),
        "sndr": ope.SelfNormalizedDoublyRobust().estimate_policy_value(**model),
        "switch_dr": ope.SwitchDoublyRobust(tau=LIMIT).estimate_policy_value(**model),
        **_slates(log, ope),
    }


def _slates(log: dict[str, Any], ope: Any) -> dict[str, float]:
    visits, slots = log["slate_reward"].shape
    shared = {
        "slate_id": np.repeat(np.arange(visits), slots),
        "position": np.tile(np.arange(slots), visits),
        "reward": log["slate_reward"].ravel(),
    }
    ours, theirs = log["slate_logging"], log["slate_target"]
    whole = [np.repeat(p.prod(axis=1), slots) for p in (ours, theirs)]
    above = [np.cumprod(p, axis=1).ravel() for p in (ours, theirs)]
    return {
        "slate": ope.SlateStandardIPS(len_list=slots).estimate_policy_value(
            **shared, pscore=whole[0], evaluation_policy_pscore=whole[1]
        ),
        "slot": ope.SlateIndependentIPS(len_list=slots).estimate_policy_value(
            **shared, pscore_item_position=ours.ravel(), evaluation_policy_pscore_item_position=theirs.ravel()
        ),
        "cascade": ope.SlateRewardInteractionIPS(len_list=slots).estimate_policy_value(
            **shared, pscore_cascade=above[0], evaluation_policy_pscore_cascade=above[1]
        ),
    }


def main() -> None:
    from importlib.metadata import version

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--visits", type=int, default=2000)
    parser.add_argument("--inputs", action="store_true")
    given = parser.parse_args()
    log = inputs(given.seed, given.visits)
    told = {"obp": version("obp"), "seed": given.seed, "visits": given.visits, "limit": LIMIT}
    told |= {"answers": {name: float(value) for name, value in answers(log).items()}}
    told |= {"inputs": {name: values.tolist() for name, values in log.items()}} if given.inputs else {}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
