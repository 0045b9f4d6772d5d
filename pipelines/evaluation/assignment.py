"""Did an experiment get the units it should have? The sample-ratio check, to be read before any other figure.

Arms whose counts do not fit their shares mean that units were lost or moved on the way (a redirect, a crash, a bot
filter, an arm decided twice), and not at random: the comparison is void. Fabijan et al. 2019, "Diagnosing sample ratio
mismatch in online controlled experiments"; their bound of .0005 keeps false alarms rare where every test is checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scipy.stats import chi2

from rolecall.platform.errors import InputError
from rolecall.serving.assignment import Experiment, assign

ALARM = 0.0005
_FEWEST = 5.0


@dataclass(frozen=True, kw_only=True)
class SampleRatio:
    """`counts` and `expected` units by arm; `p_value` of the chi-squared test that they fit. `strangers`: units that
    were shown an arm although the assignment gives them another or none; any of them voids the test as well."""

    counts: Mapping[str, int]
    expected: Mapping[str, float]
    chi_squared: float
    p_value: float
    strangers: int
    verdict: str

    @property
    def ok(self) -> bool:
        return self.verdict.startswith("ok")


def sample_ratio(experiment: Experiment, counts: Mapping[str, int], *, strangers: int = 0) -> SampleRatio:
    """Check distinct units by arm against the experiment's shares (Pearson's chi-squared).

    Raises InputError for an arm the experiment does not have, or a negative count.
    """
    names = [arm.name for arm in experiment.arms]
    if not set(counts) <= set(names) or any(count < 0 for count in counts.values()):
        raise InputError(f"counts {dict(counts)}", f"units of {', '.join(names)}")
    seen = {name: counts.get(name, 0) for name in names}
    total = sum(seen.values())
    expected = {arm.name: arm.share * total for arm in experiment.arms}
    statistic = sum((seen[name] - expected[name]) ** 2 / expected[name] for name in names) if total else 0.0
    p_value = float(chi2.sf(statistic, len(names) - 1))
    return SampleRatio(
        counts=seen,
        expected=expected,
        chi_squared=float(statistic),
        p_value=p_value,
        strangers=strangers,
        verdict=_verdict(seen, expected, p_value, strangers),
    )


def check_exposures(experiment: Experiment, shown: Iterable[tuple[str, str]]) -> SampleRatio:
    """The same from (unit, arm shown) pairs, repeated or not: a unit counts once in each arm it was shown, and every
    pair is compared with what `assign` says."""
    pairs = set(shown)
    counts: dict[str, int] = {}
    for _, arm in pairs:
        counts[arm] = counts.get(arm, 0) + 1
    strangers = {unit for unit, arm in pairs if assign(experiment, unit) != arm}
    return sample_ratio(experiment, counts, strangers=len(strangers))


def _verdict(seen: Mapping[str, int], expected: Mapping[str, float], p_value: float, strangers: int) -> str:
    told = ", ".join(f"{name} {seen[name]} of {expected[name]:.0f} expected" for name in seen)
    if strangers:
        return f"void: {strangers} units were shown an arm that is not theirs ({told})"
    if min(expected.values()) < _FEWEST:
        return f"too early: fewer than {_FEWEST:.0f} units expected in an arm ({told})"
    if p_value < ALARM:
        return f"void: sample ratio mismatch, p = {p_value:.1e} below {ALARM:g} ({told})"
    return f"ok: p = {p_value:.3f} ({told})"
