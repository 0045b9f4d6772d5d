"""The feature pages: what every feature means, its unit, window, source and owner, written from the definitions.

    rolecall features pages              # rewrites features/FEATURES.md; a test fails where it is out of date

Columns of a (candidate, job) pair are documented by what they say in `pair_columns.py` and `people_columns.py`; their
units and windows follow from how they are named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rolecall.features.feature import EVER, Feature
from rolecall.features.pair_columns import CANDIDATE_PREFIX, COARSE_COLUMNS, JOB_PREFIX, NOT_RANKED, PAIR_COLUMNS
from rolecall.features.people_columns import PEOPLE_COARSE_COLUMNS, PEOPLE_COLUMNS
from rolecall.features.view_features import SEEN_DAYS
from rolecall.features.views import SERVICES, VIEWS, ViewShape

PAGES_FILE = Path(__file__).with_name("FEATURES.md")
PAIR, PEOPLE = "pair", "people"
AT_REQUEST = "at the request"
_HISTORY = "the history kept of the candidate"
_UNITS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("_km",), "km"),
    (("days", "_days", "since_profile", "since_active"), "days"),
    (("years", "_years"), "years"),
    (("_share", "skill_history", "skill_cover"), "share"),
    (("gap",), "ranks"),
    (("salary", "pay"), "logarithm of pay a year"),
    (("salary_to_history", "salary_to_usual"), "logarithm of a ratio"),
    (("lean_category", "lean_remote", "lean_skills", "lean_skills_within"), "logarithm of a ratio"),
    (("skill_overlap", "skill_count", "category_skills"), "skills"),
    (("positions",), "positions"),
    (("history_length",), "jobs"),
    (("title_words",), "terms"),
)
"""How a name ends, or what it is, and the unit that goes with it; the first that fits."""
_EVENTS = ("viewed_", "engage", "applie", "dismiss", "impression", "seen_", "clicked_")
_YES = ("same_", "remote", "saved_", "_last", "applied_before")
_COSINES = (
    "dense_",
    "full_",
    "title_",
    "place_",
    "words_",
    "category_desired",
    "category_resume",
    "category_profile",
    "lean_meaning",
    "history_mean",
    "history_max",
    "history_last",
    "history_title",
)
_OF_HISTORY = (
    "history",
    "_mean",
    "_max",
    "_last",
    "_recent",
    "_near_km",
    "_centroid_km",
    "_share",
    "salary_to_history",
)


@dataclass(frozen=True, kw_only=True)
class Documented:
    """A feature with what is said of its group. `group`: a view's name, `pair` or `people`; `expires`: a view's
    row; `rankers`: which read a column of a pair; `services`: feature services with it."""

    feature: Feature
    group: str
    entity: str
    source: str
    owner: str
    expires: str = ""
    rankers: tuple[str, ...] = ()
    services: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        return {
            "name": self.feature.name,
            "group": self.group,
            "kind": self.feature.kind,
            "meaning": self.feature.meaning,
            "unit": self.feature.unit,
            "window": self.feature.window,
            "entity": self.entity,
            "source": self.source,
            "owner": self.owner,
            "expires": self.expires,
            "rankers": list(self.rankers),
            "services": list(self.services),
        }


def documented() -> tuple[Documented, ...]:
    """Every feature: of the views in their order, then of pairs in both directions."""
    views = [one for shape in VIEWS for one in _of_view(shape)]
    pairs = [_of_pair(PAIR, one, "candidate and job", tuple(SERVICES)) for one in pair_features()]
    people = [_of_pair(PEOPLE, one, "job and person", ()) for one in people_features(tuple(PEOPLE_COLUMNS))]
    return (*views, *pairs, *people)


def lacking() -> list[str]:
    """Features that do not say what they mean, or a number without a unit."""
    found = []
    for one in documented():
        told = one.feature
        parts = {"meaning": told.meaning, "window": told.window, "source": one.source, "owner": one.owner}
        parts |= {"unit": told.unit} if told.kind == "number" else {}
        found += [f"{one.group}.{told.name}: {name}" for name, text in parts.items() if not text]
    return found


def pair_features() -> tuple[Feature, ...]:
    """The columns of a (candidate, job) pair."""
    return tuple(_pair_feature(name, meaning) for name, meaning in PAIR_COLUMNS.items())


def people_features(columns: Sequence[str]) -> tuple[Feature, ...]:
    """The columns of a (job, person) pair."""
    return tuple(_pair_feature(name, PEOPLE_COLUMNS.get(name, name)) for name in columns)


def ranked_features(columns: Iterable[str]) -> tuple[Feature, ...]:
    """What a ranker's columns mean: pair columns, and features of views under their prefixed names."""
    told: Mapping[str, Feature] = {one.name: one for shape in VIEWS for one in shape.features}
    told = {**told, **{one.name: one for shape in VIEWS for one in shape.derived}}
    return tuple(_ranked(column, told) for column in columns)


def page() -> str:
    """All of it as Markdown."""
    return "\n".join(_lines()) + "\n"


def _ranked(column: str, told: Mapping[str, Feature]) -> Feature:
    if column in PAIR_COLUMNS:
        return _pair_feature(column, PAIR_COLUMNS[column])
    name = column.removeprefix(JOB_PREFIX).removeprefix(CANDIDATE_PREFIX)
    one = told.get(name, Feature(name=name, meaning=name.replace("_", " ")))
    return Feature(name=column, meaning=one.meaning, unit=one.unit, window=one.window)


def _of_view(shape: ViewShape) -> Iterator[Documented]:
    services = tuple(name for name, views in SERVICES.items() if shape.name in views)
    source = f"{shape.source.table}: {', '.join(shape.source.columns)}"
    expires = f"{shape.ttl.days} days" if shape.ttl else "never"
    for one in shape.features:
        yield Documented(
            feature=one,
            group=shape.name,
            entity=shape.entity,
            source=source,
            owner=shape.owner,
            expires=expires,
            services=services,
        )


def _of_pair(group: str, feature: Feature, entity: str, services: tuple[str, ...]) -> Documented:
    coarse = feature.name in (COARSE_COLUMNS if group == PAIR else PEOPLE_COARSE_COLUMNS)
    return Documented(
        feature=feature,
        group=group,
        entity=entity,
        source="the release's jobs, vectors and lexicon, and the candidate's views"
        if group == PAIR
        else "the release's jobs and people, their vectors and lexicon",
        owner="ranking",
        rankers=("coarse", "fine") if coarse else () if feature.name in NOT_RANKED else ("fine",),
        services=services,
    )


def _pair_feature(name: str, meaning: str) -> Feature:
    return Feature(name=name, meaning=meaning, unit=_unit(name), window=_window(name))


def _unit(name: str) -> str:
    for ends, unit in _UNITS:
        if any(name == end or name.endswith(end) for end in ends):
            return unit
    if any(part in name for part in _EVENTS):
        return "events"
    if name.startswith(_COSINES) or name.endswith("_agreement"):
        return "cosine"
    return "yes or no" if any(part in name for part in _YES) else ""


def _window(name: str) -> str:
    if name.endswith(("_7d", "_30d", "_1d")):
        days = name.rsplit("_", 1)[1].removesuffix("d")
        return f"{days} days"
    if name.startswith(("seen_", "lean_")):
        return f"{SEEN_DAYS} days"
    if any(part in name for part in _OF_HISTORY) and name != "skill_share":
        return _HISTORY
    return EVER if any(part in name for part in _EVENTS) or name.startswith("saved_") else AT_REQUEST


def _lines() -> Iterator[str]:
    yield "# Features"
    yield ""
    yield "Written by `rolecall features pages` from the definitions; change those and write it again."
    yield ""
    everything = documented()
    yield f"{len(everything)} features. Services: " + "; ".join(
        f"`{name}` ({', '.join(views)})" for name, views in SERVICES.items()
    )
    for group in dict.fromkeys(one.group for one in everything):
        members = [one for one in everything if one.group == group]
        yield ""
        yield from _group(group, members)


def _group(group: str, members: Sequence[Documented]) -> Iterator[str]:
    first, paired = members[0], members[0].group in (PAIR, PEOPLE)
    yield f"## {group}"
    yield ""
    yield f"Of a {first.entity}, from {first.source}. Owner: {first.owner}." + (
        "" if paired else f" Rows expire: {first.expires}."
    )
    yield ""
    yield f"| feature | kind | meaning | unit | window |{' read by |' if paired else ''}"
    yield f"|---|---|---|---|---|{'---|' if paired else ''}"
    for one in members:
        told = one.feature
        row = [f"`{told.name}`", told.kind, told.meaning.replace("|", "\\|"), told.unit, told.window]
        yield "| " + " | ".join([*row, " and ".join(one.rankers)] if paired else row) + " |"
