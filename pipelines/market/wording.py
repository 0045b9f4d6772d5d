"""Words for postings. They speak the employer's language: ESCO descriptions, O*NET tasks, half of the titles.

Who writes differs too: some name the company first, some list tasks, some list skills, some are terse.
"""

from __future__ import annotations

from collections.abc import Sequence

from rolecall.pipelines.market.taxonomy import Occupation

_TITLE_PREFIX = ("Trainee", "Junior", "", "Senior", "Lead", "Head")
_OPENERS = ("{} is hiring.", "Join {}.", "{} looks for support.", "Our team at {} is growing.")
_LURES = (
    "Earn more from day one, no experience needed, work when you like.",
    "Weekly pay, start today, unlimited earnings from home.",
    "Double your income now, everybody is accepted.",
)
_EDITS = ("Apply today.", "Start at once.", "New opening.", "We look forward to your application.")
JOB_DRAWS = 14
"""How many uniform numbers the words of one posting take."""


def job_title(occupation: Occupation, level: int, u: Sequence[float]) -> str:
    """Usually one of the employer's half of the titles; every second one says its seniority."""
    pool = occupation.titles[::2] if u[0] < 0.8 else occupation.titles
    title = pool[int(u[1] * len(pool))]
    prefix = _TITLE_PREFIX[level] if u[2] < 0.5 else ""
    whole = f"{prefix} {title}".strip()
    return whole.title() if title.islower() else whole


def job_description(
    occupation: Occupation, employer: str, skills: Sequence[str], limit: int, u: Sequence[float], *, spam: bool
) -> str:
    """Who hires, sometimes what the work is, tasks or what is asked for; at most `limit` words."""
    tasks = several(occupation.tasks, 3, u[3])
    about = [occupation.description.split(". ")[0].rstrip(".") + "."]
    opener = [_OPENERS[int(u[4] * len(_OPENERS))].format(employer)] if limit >= 40 else []
    asked = [f"You bring: {', '.join(skills)}."] if skills else []
    style = u[5]
    if spam:
        return limited([*opener, _LURES[int(u[6] * len(_LURES))], *several(occupation.tasks, 1, u[3]), *asked], limit)
    if style < 0.4:
        return limited([*opener, *tasks], limit)
    if style < 0.8:
        return limited([*opener, *about, *tasks], limit)
    if style < 0.9:
        return limited([*about, *asked], limit)
    return limited([*tasks[:2], *asked, *opener], limit)


def edited(description: str, u: float) -> str:
    """The same text with a small change, or none."""
    if u < 0.5:
        return description
    return f"{description} {_EDITS[int((u - 0.5) * 2 * len(_EDITS))]}"


def several(pool: Sequence[str], count: int, u: float) -> list[str]:
    """`count` different entries in the order of a walk that `u` decides."""
    size = len(pool)
    if size <= count:
        return list(pool)
    walks = size * (size - 1)
    code = int(u * walks)
    at, step = code % size, 1 + code // size
    chosen: list[int] = []
    while len(chosen) < count:
        while at % size in chosen:
            at += 1
        chosen.append(at % size)
        at += step
    return [pool[number] for number in chosen]


def limited(sentences: Sequence[str], limit: int) -> str:
    """Whole sentences, up to `limit` words; a sentence is cut only where less than half of that would be left."""
    kept: list[str] = []
    used = 0
    for sentence in sentences:
        words = sentence.count(" ") + 1
        if used + words <= limit:
            kept.append(sentence)
            used += words
        elif used < limit / 2:
            kept.append(" ".join(sentence.split(" ")[: limit - used]).rstrip(",;.") + ".")
            break
    return " ".join(kept)
