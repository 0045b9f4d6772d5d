"""What a release would have brought had it answered the logged visits: off-policy evaluation of logged slates.

**What is logged.** An impression's `propensity` is conditional: the probability that the policy put this job into this
slot, given the visit and the jobs in the slots above it,

    p_k = Pr(a_k | x, a_1 .. a_{k-1}),

both for the serving policy (slot by slot: the best open job, or with probability `exploration` any job left) and for
the laboratory's (Plackett-Luce without replacement). It is neither the probability of showing the job somewhere nor
that of the job at this position whatever stands above; p_1 p_2 .. p_k is the probability of the first k slots.

**What is estimated.** V(target): expected rewards (applications, or clicks) of a visit, summed over the slots, were the
logged visits answered by the target policy, everything before a visit staying as it was. Which weights are valid
depends on what a slot's reward may depend on (`weights.py`), from the fewest assumptions to the most:

    slate      anything in the slate                  w = prod of all ratios target / logged
    cascade    the slots above it (McInerney 2020)    w_k = prod of the ratios up to k
    slot       its own job and position (Li 2018)     w_k = ratio of *marginal* probabilities, which no log holds
    ordered    job times examination of the position  w from conditional propensities, exact (Des Raj 1956)

The weight's variance falls in that order. `ordered` is the one that answers for a release unlike the one that logged:
it needs what RoleCall logs, the jobs the release would show, and the examination curve (`examination.py`).

On each: inverse propensity (`ips`, clipped on request), self-normalised (`snips`), doubly robust (`dr`, `sndr`) and
switch (`switch_dr`), with 95% intervals over candidates (`intervals.py`) and, where the log cannot answer, reasons
why (`support.py`). A log without exploration (every propensity 1) cannot answer at all, and that is said.

    judge = LogJudge.prepare(events, store, start=start, end=end)
    ours, theirs = judge.estimates(challenger)["snips"], judge.estimates(champion)["snips"]
    ours.mean, ours.interval, ours.warnings, ours.less(theirs)
"""

from rolecall.pipelines.evaluation.counterfactual.estimators import Estimate, dr, ips, sndr, snips, switch_dr
from rolecall.pipelines.evaluation.counterfactual.examination import examination_from, power_law
from rolecall.pipelines.evaluation.counterfactual.log_judge import LogJudge
from rolecall.pipelines.evaluation.counterfactual.release import (
    Exposure,
    Predictions,
    TargetSlates,
    agreement,
    exposure_of,
    predictions,
    release_slates,
)
from rolecall.pipelines.evaluation.counterfactual.slates import LoggedSlates, read_slates
from rolecall.pipelines.evaluation.counterfactual.support import Support, support_of
from rolecall.pipelines.evaluation.counterfactual.weights import Logged, Sample, ordered, sequential

__all__ = [
    "Estimate",
    "Exposure",
    "LogJudge",
    "Logged",
    "LoggedSlates",
    "Predictions",
    "Sample",
    "Support",
    "TargetSlates",
    "agreement",
    "dr",
    "examination_from",
    "exposure_of",
    "ips",
    "ordered",
    "power_law",
    "predictions",
    "read_slates",
    "release_slates",
    "sequential",
    "sndr",
    "snips",
    "support_of",
    "switch_dr",
]
