"""The page: whole, readable by a parser, nothing fetched, nobody named, everything from data escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rolecall.pipelines.evaluation.judge import Evaluation
from rolecall.pipelines.evaluation.report import wording
from rolecall.pipelines.evaluation.report.figures import Estimate, Report
from rolecall.pipelines.evaluation.report.page import render
from rolecall.pipelines.evaluation.report.write import write_report

if TYPE_CHECKING:
    from conftest import Judged

VOID = {"meta", "br", "link", "img", "input", "hr"}
DRAWN_VOID = {"path", "line", "circle", "rect"}
HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(2)'>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; & <!-- -->",
    "\u202eright to left override",
    "\u05de\u05e4\u05ea\u05d7 \u0645\u0647\u0646\u062f\u0633",
    "Nurse \U0001f469\U0001f3fd\u200d\u2695\ufe0f",
    "x" * 5000,
    "\x00\x07\ud800",
    "</style></title></body>",
)


@dataclass
class Element:
    """One element: its name, attributes and what is in it."""

    name: str
    attributes: Mapping[str, str]
    children: list[Element | str] = field(default_factory=list)

    def walk(self) -> Iterator[Element]:
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text() for child in self.children)

    def all(self, name: str) -> list[Element]:
        return [one for one in self.walk() if one.name == name]


class Strict(HTMLParser):
    """Reads a page into a tree; refuses tags that are not closed in the order they were opened."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("root", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"<{tag}> has an attribute twice"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in DRAWN_VOID | VOID, f"<{tag}/> closes itself and is no drawing"
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parsed(page: str) -> Element:
    reader = Strict()
    reader.feed(page)
    reader.close()
    assert len(reader.open) == 1, f"<{reader.open[-1].name}> is never closed"
    return reader.root


def values(element: Element) -> set[float]:
    """Whole values of every number that is shown."""
    return {float(one.attributes["value"]) for one in element.all("data")}


def section(page: Element, name: str) -> Element:
    return next(one for one in page.walk() if one.attributes.get("id") == name)


def estimates(report: Report) -> Iterator[Estimate]:
    for told in filter(None, (report.jobs, report.people)):
        for system in told.systems:
            yield from system.metrics.values()
        yield from (one.difference for one in told.comparisons)
        for stage in told.stages:
            yield from filter(None, (stage.release, stage.champion))
        for one in told.slices:
            yield from filter(None, (one.release, one.champion, one.difference))
    if report.fairness is not None:
        yield from report.fairness.exposure.values()


def test_every_figure_of_the_evaluation_stands_on_the_page(judged: Judged) -> None:
    report = judged.report()
    shown = values(parsed(render(report)))
    assert report.probability is not None
    assert report.latency is not None
    for one in estimates(report):
        assert {one.mean, one.low, one.high} <= shown
    assert set(report.probability.figures.values()) <= shown
    assert {figure for bin in report.probability.bins for figure in (bin.predicted, bin.observed)} <= shown
    assert {*report.latency.percentiles.values(), *report.latency.champion.values()} <= shown
    assert {value for table in report.jobs.catalogue.values() for value in table.values()} <= shown


def test_verdict_rules_and_evidence_stand_on_the_page(refused: Judged) -> None:
    page = parsed(render(refused.report()))
    assert "Refused" in page.all("h1")[0].text()
    told = section(page, "rules").text()
    for check in refused.verdict.checks:
        assert check.name in told
        assert check.detail in told
        numbers = {value for value in check.evidence.values() if isinstance(value, float)}
        assert numbers <= values(section(page, "rules"))
    for check in refused.verdict.checks:
        assert (check.name in page.all("h1")[0].text()) == (not check.ok)
    for rule in ("better.level", "0.0125", "equal.older_than_days", "28", "place, job"):
        assert rule in told


def test_release_facts_stand_on_the_page(judged: Judged) -> None:
    told = section(parsed(render(judged.report())), "facts").text()
    manifest = judged.manifest
    for fact in (manifest.id, manifest.code_version, manifest.as_of.isoformat(), "jobs at version 12"):
        assert fact in told
    for part in manifest.parts:
        assert part.file in told
        assert wording.size(part.bytes) in told


@pytest.mark.parametrize("canary", ["person-canary", "job-canary", "resume-canary"])
def test_nobody_is_named(judged: Judged, canary: str) -> None:
    assert any(canary in str(part) for part in (judged.evaluation, judged.titles)) or canary == "resume-canary"
    assert canary not in render(judged.report())


def test_nothing_is_fetched_and_nothing_runs(judged: Judged) -> None:
    page = render(judged.report())
    tree = parsed(page)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|data:|javascript:", page)
    assert not {one.name for one in tree.walk()} & {"script", "link", "img", "iframe", "object", "embed", "base"}
    for one in tree.walk():
        assert not [name for name in one.attributes if name.startswith("on") or name in ("src", "srcset", "style")]
        assert one.attributes.get("href", "#").startswith("#")
    assert "default-src 'none'" in page


def test_the_page_is_small(judged: Judged) -> None:
    assert len(render(judged.report()).encode()) < 400_000


def test_hostile_titles_are_text(judged: Judged) -> None:
    titles = {job: HOSTILE[row % len(HOSTILE)] for row, job in enumerate(judged.titles)}
    plain = parsed(render(judged.report()))
    tree = parsed(render(replace(judged, titles=titles).report()))
    assert [one.name for one in tree.walk()] == [one.name for one in plain.walk()]
    shown = {one.text() for one in section(tree, "samples").all("bdi")}
    assert shown == {wording.title(title) for title in HOSTILE}


def test_hostile_names_of_slices_checks_and_groups_are_text(judged: Judged) -> None:
    ours = judged.evaluation
    names = {f"place={text}": ours.slices["place=ID"] for text in HOSTILE}
    checks = tuple(replace(judged.verdict.checks[0], ok=False, name=t, detail=t, evidence={t: t}) for t in HOSTILE)
    audit = judged.fairness
    assert audit is not None
    gap = next(iter(audit.exposure.values()))
    hostile = replace(
        judged,
        evaluation=replace(ours, slices=names),
        verdict=replace(judged.verdict, checks=checks, outcome="refused"),
        fairness=replace(audit, exposure=dict.fromkeys(HOSTILE, gap)),
        champion_id=HOSTILE[1],
    )
    tree = parsed(render(hostile.report()))
    assert not {one.name for one in tree.walk()} & {"script", "img"}
    assert sum(one.name == "style" for one in tree.walk()) == 1
    assert wording.plain(HOSTILE[0]) in section(tree, "slices").text()


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=300))
def test_any_title_leaves_the_page_whole(judged_small: Judged, text: str) -> None:
    page = render(replace(judged_small, titles=dict.fromkeys(judged_small.titles, text)).report())
    page.encode("utf-8")
    assert wording.title(text) in {one.text() for one in section(parsed(page), "samples").all("bdi")}


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"fairness": None}, {"fairness"}),
        ({"people": None}, {"people", "people-samples"}),
        ({"wishes": None}, {"people-samples"}),
        ({"log": None}, {"log"}),
        ({"power": None, "fairness": None}, {"power", "fairness"}),
        ({"champion": None, "champion_id": ""}, set()),
    ],
)
def test_a_section_without_figures_is_absent_and_named_as_not_measured(
    judged: Judged, change: dict[str, object], gone: set[str]
) -> None:
    whole, without = judged.report(), replace(judged, **change).report()  # type: ignore[arg-type]
    names = [
        {one.attributes["id"] for one in parsed(render(r)).walk() if "id" in one.attributes} for r in (whole, without)
    ]
    assert names[0] - names[1] == gone
    assert len(section(parsed(render(without)), "badly").all("li")) > 0
    assert "What this report cannot say" in render(without)
    assert "What this report cannot say" not in render(whole)


def test_an_evaluation_of_nothing_gives_a_page(judged: Judged, draw: Callable[..., Evaluation]) -> None:
    bare = replace(draw(0, systems=("funnel",)), lists={}, catalogue={}, impressions=None, slices={}, stages={})
    empty = replace(judged, evaluation=bare, champion=None, people=None, fairness=None)
    told = section(parsed(render(empty.report())), "badly").text()
    assert "Only 0 targets: nothing can be said" in told


def test_headings_go_down_one_level_at_a_time_and_tables_have_captions(judged: Judged) -> None:
    tree = parsed(render(judged.report()))
    levels = [int(one.name[1]) for one in tree.walk() if re.fullmatch(r"h[1-6]", one.name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(len(table.all("caption")) == 1 and table.all("th") for table in tree.all("table"))
    ids = [one.attributes["id"] for one in tree.walk() if "id" in one.attributes]
    assert len(set(ids)) == len(ids)
    assert {one.attributes["href"][1:] for one in tree.all("a")} <= set(ids)
    for svg in tree.all("svg"):
        hidden = svg.attributes.get("aria-hidden") == "true"
        assert hidden or svg.attributes.get("overflow") == "visible"  # a mark inside a hidden drawing


def test_letters_stand_out_from_what_is_behind_them_in_light_and_dark(judged: Judged) -> None:
    """WCAG 2.2, success criteria 1.4.3 (text, 4.5:1) and 1.4.11 (graphics, 3:1)."""
    page = render(judged.report())
    palettes = re.findall(r":root \{([^}]*--page[^}]*)\}", page)
    assert len(palettes) == 3  # light, dark, print
    for palette in palettes:
        colour = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", palette))
        for name in ("ink", "muted", "release", "champion", "good", "bad", "warn"):
            assert contrast(colour[name], colour["paper"]) >= 4.5, name
            assert contrast(colour[name], colour["page"]) >= 4.5, name
        assert contrast(colour["ink"], colour["mark"]) >= 4.5
        assert contrast(colour["good"], colour["mark"]) >= 4.5
        assert contrast(colour["baseline"], colour["paper"]) >= 3


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_equal_evaluations_give_equal_pages_and_the_file_holds_the_page(judged: Judged, tmp_path: Path) -> None:
    report = judged.report()
    write_report(tmp_path / "report.html", report)
    assert (tmp_path / "report.html").read_text("utf-8") == render(report) == render(judged.report())
