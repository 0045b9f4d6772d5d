"""Words and numbers of the report: what a metric, a system or a slice is called, and how a figure is written."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass

LONGEST = 160
"""Characters of a text from the data that are shown."""

NO_TITLE = "a job without a title"
NO_WISH = "a person without a desired title"
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNPRINTABLE = frozenset({"Cc", "Cs", "Co", "Cn"})


@dataclass(frozen=True, kw_only=True)
class Metric:
    """`better`: 1 where more is better, -1 where less is, 0 where neither holds by itself."""

    label: str
    meaning: str
    better: int = 1


_METRICS = {
    "ndcg": Metric(label="NDCG{k}", meaning="how near the top{first} stands what they went for; 1 is the ideal order"),
    "hr": Metric(label="Hit rate{k}", meaning="share of targets with at least one of what they went for{first}"),
    "recall": Metric(label="Recall{k}", meaning="share of what they went for that is found{first}"),
    "coarse_recall": Metric(
        label="Coarse recall{k}", meaning="share of what they went for that the coarse ranker keeps"
    ),
    "mrr": Metric(label="MRR{k}", meaning="one over the place of the first thing they went for"),
    "map": Metric(label="MAP{k}", meaning="mean precision at the places of what they went for{first}"),
    "precision": Metric(label="Precision{k}", meaning="share of the list that they went for{first}"),
    "auc": Metric(label="AUC", meaning="probability that what was chosen is scored above what was not"),
    "grouped_auc": Metric(label="Grouped AUC", meaning="the same within one person's impressions"),
    "normalized_entropy": Metric(
        label="Normalised entropy", meaning="log loss over that of the base rate; below 1 it knows something", better=-1
    ),
    "base_rate": Metric(label="Base rate", meaning="share of impressions with the outcome", better=0),
    "slope": Metric(label="Slope", meaning="1 is right; below it is overconfident", better=0),
    "intercept": Metric(label="Intercept", meaning="0 is right; above it predicts too little", better=0),
    "ece": Metric(label="Expected calibration error", meaning="mean gap of predicted and observed", better=-1),
    "constant_ece": Metric(
        label="Calibration error of a constant",
        meaning="the same for the base rate given to everybody: what the probabilities must be under",
        better=0,
    ),
    "coverage": Metric(label="Coverage{k}", meaning="share of what could be shown that anybody is shown{first}"),
    "gini_exposure": Metric(
        label="Gini of exposure{k}", meaning="0: all are shown alike; 1: one takes all places", better=-1
    ),
    "gini_applications": Metric(
        label="Gini of applications{k}", meaning="0: every job is applied to alike; 1: one job takes all", better=-1
    ),
    "novelty": Metric(label="Novelty{k}", meaning="bits of surprise: how little known the shown jobs are", better=0),
    "serendipity": Metric(label="Serendipity{k}", meaning="share both wanted and not among the most popular"),
    "popularity_bias": Metric(
        label="Popularity bias{k}", meaning="popularity of what is shown over that of the catalogue", better=-1
    ),
    "diversity": Metric(label="Diversity{k}", meaning="how unlike one another those of a list are"),
    "applications": Metric(label="Applications{k}", meaning="applications a target, to jobs{first}"),
    "slope_low": Metric(label="Slope, lower end", meaning="of its 95% interval", better=0),
    "slope_high": Metric(label="Slope, upper end", meaning="of its 95% interval", better=0),
    "applications_per_candidate": Metric(label="Applications a candidate", meaning="applications a candidate makes"),
}
_SYSTEMS = {
    "funnel": "This release",
    "champion": "Champion",
    "refreshed champion": "Refreshed champion",
    "rival": "This release, asked what the champion was",
    "tfidf": "TF-IDF",
    "dense": "Embedding",
    "popularity": "Most popular",
    "recency": "Newest first",
    "random": "Random",
}
_ESTIMATORS = {
    "ips": "Inverse propensity",
    "snips": "Self-normalised",
    "dr": "Doubly robust",
    "switch_dr": "Switch doubly robust",
}
_SLICES = {
    "history": "History",
    "candidate": "Candidate",
    "place": "Place",
    "job": "Job",
    "category": "Category",
    "seniority": "Seniority",
    "posted": "Posted",
    "employer": "Employees",
    "person": "Person",
}
_STAGES = {"reachable": "In the release and live", "recall": "Recall", "coarse_recall": "Coarse ranker"}


def metric(name: str) -> Metric:
    """The words for `base@k`; an unknown metric is called by its own name."""
    base, _, k = name.partition("@")
    words = _METRICS.get(base)
    if words is None:
        return Metric(label=plain(name), meaning="", better=0)
    k_text, first = (f"@{k}", f" among the first {k}") if k else ("", "")
    if base == "ndcg" and k:
        first = f" of the first {k}"
    return Metric(label=words.label.format(k=k_text), meaning=words.meaning.format(first=first), better=words.better)


def system(name: str) -> str:
    return _SYSTEMS.get(name, plain(name))


def estimator(name: str) -> str:
    return _ESTIMATORS.get(name, plain(name))


def slice_kind(name: str) -> str:
    return _SLICES.get(name, plain(name.replace("_", " ")).capitalize())


def stage(name: str) -> str:
    """`recall@1000` as "Recall, best 1,000"."""
    base, _, k = name.partition("@")
    label = _STAGES.get(base, plain(base.replace("_", " ")).capitalize())
    return f"{label}, best {int(k):,}" if k.isdigit() else label


def number(value: float | None, places: int = 3) -> str:
    """A level: fixed places, so that columns line up; smaller ones in two significant digits."""
    if value is None or not math.isfinite(value):
        return "\u2013"
    if abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) >= 100:
        text = f"{value:.1f}"
    elif abs(value) < 1e-9:
        text = f"{0:.{places}f}"
    elif abs(value) < 0.5 * 10**-places:
        text = f"{value:.{1 - math.floor(math.log10(abs(value)))}f}"
    else:
        text = f"{value:.{places}f}"
    return text.replace("-", "\u2212")


def signed(value: float | None, places: int = 4) -> str:
    """A difference: always with its sign."""
    text = number(value, places)
    return text if value is None or not value > 0 else f"+{text}"


def percent(share: float | None, places: int = 0) -> str:
    """A share as percent; a share above nothing is never written as 0%, nor one below all as 100%."""
    if share is None or not math.isfinite(share):
        return "\u2013"
    text = f"{share * 100:.{places}f}"
    if share > 0 and float(text) == 0:
        return f"less than {10**-places:g}%"
    if share < 1 and float(text) == 100:
        return f"more than {100 - 10**-places:g}%"
    return f"{text}%".replace("-", "\u2212")


def size(count: float) -> str:
    """Bytes, in the largest unit that leaves at least one."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def plain(text: str, longest: int = LONGEST) -> str:
    """A text from the data without control characters, clipped: what it may do to a line is to be long."""
    kept = "".join(
        " " if letter.isspace() else letter
        for letter in text[: 4 * longest]
        if letter.isspace() or (letter not in _BIDI_CONTROLS and unicodedata.category(letter) not in _UNPRINTABLE)
    )
    kept = " ".join(kept.split())
    return kept if len(kept) <= longest else kept[: longest - 1].rstrip() + "\u2026"


def title(text: str | None, otherwise: str = NO_TITLE) -> str:
    """A title as shown; words in its place where there is none."""
    return plain(text or "") or otherwise


def rule_lines(rules: object, prefix: str = "") -> dict[str, str]:
    """Nested rules as dotted names and their values."""
    if not isinstance(rules, dict):
        return {prefix: plain(_rule(rules))}
    lines: dict[str, str] = {}
    for name, value in rules.items():
        lines |= rule_lines(value, f"{prefix}.{name}" if prefix else str(name))
    return lines


def _rule(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(_rule(one) for one in value)
    return str(value)
