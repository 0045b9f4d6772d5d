"""Yesterday's rankers over today's catalogue: what is served on a day whose new rankers the gate refuses.

A release that learned nothing better must not cost the board its new postings. So each run assembles a second release:
today's catalogue, index, people and features with the champion's rankers. It is what new rankers are compared with,
since the two differ in their rankers alone, and it takes their place where they are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rolecall.pipelines import assemble
from rolecall.pipelines.people_steps import PeopleSteps
from rolecall.pipelines.steps import StepContext, StepResult
from rolecall.platform.errors import IntegrityError
from rolecall.platform.registry import Registry
from rolecall.platform.release import MANIFEST_FILE, Manifest, ReleaseBuilder, read_manifest
from rolecall.platform.settings import Settings
from rolecall.serving.parts import EmbedderPart, FeaturesPart, PeoplePart
from rolecall.serving.people_loader import trained_part

RANKERS = ("coarse", "fine", "calibrator")
PEOPLE_RANKERS = ("people_rankers", "people_coarse", "people_fine", "people_calibrator")
MODELS_FROM, MODELS_AS_OF, MODELS_TABLES = "models_from", "models_as_of", "models_tables"
"""Notes of a refreshed release: the release whose run trained its rankers, its instant, and the tables they learned
from."""
_COMPARED_SETTINGS = ("vectors", "features", "embedder")


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A release folder with its manifest."""

    folder: Path
    manifest: Manifest

    @classmethod
    def read(cls, folder: Path) -> Sealed:
        return cls(folder=folder, manifest=read_manifest((folder / MANIFEST_FILE).read_bytes()))

    @property
    def parts(self) -> set[str]:
        return {part.name for part in self.manifest.parts}


class RefreshSteps(PeopleSteps):
    """The steps up to two sealed folders: today's rankers, and the champion's, over one catalogue."""

    def refresh(self, step: StepContext) -> StepResult:
        """Assemble the refreshed release; `release` is empty where there is nothing to keep, and `why` says why."""
        today = Sealed.read(step.file("assemble", assemble.RELEASE_FOLDER))
        champion = self.registry.reconcile()
        values = {"champion": champion, "release": ""}
        if champion is None:
            return StepResult(values=values | {"why": "nothing is served"})
        served = Sealed.read(self.registry.releases.fetch(champion))
        why = misfit(served, today, self.registry)
        if why:
            return StepResult(values=values | {"why": why})
        manifest = carry_models(served, today, step.folder / assemble.RELEASE_FOLDER, self.settings)
        return StepResult(values=values | {"release": manifest.id, "why": ""})


def misfit(served: Sealed, today: Sealed, registry: Registry) -> str:
    """Why the served release's rankers can't go on over today's catalogue; empty where they can."""
    if registry.taints.find(served.manifest.id) is not None:
        return f"release {served.manifest.id} is tainted: its rankers must go"
    for part in (EmbedderPart, FeaturesPart):
        try:
            same = part.read(served.folder) == part.read(today.folder)
        except IntegrityError as error:  # other code wrote it
            return f"release {served.manifest.id} cannot be read: {error}"
        if not same:
            return f"{part.name()} of release {served.manifest.id} differs: its rankers read other columns"
    before, after = served.manifest.settings, today.manifest.settings
    changed = [name for name in _COMPARED_SETTINGS if before.get(name) != after.get(name)]
    return f"settings {', '.join(changed)} changed: its rankers read other values" if changed else ""


def carry_models(served: Sealed, today: Sealed, folder: Path, settings: Settings) -> Manifest:
    """Today's release with the served one's rankers, sealed below `folder`. People rankers that learned from no outcome
    are not kept where today's did."""
    kept = {*RANKERS, *(PEOPLE_RANKERS if _keeps_people(served, today) else ())}
    builder = ReleaseBuilder(folder)
    for source, wanted in ((today, today.parts - kept), (served, served.parts & kept)):
        for part in source.manifest.parts:
            if part.name in wanted:
                builder.add(part.name, part.file, source=source.folder / part.file, content=part.content)
    return assemble.seal(
        builder, settings, as_of=today.manifest.as_of, tables=today.manifest.tables, notes=_origin(served.manifest)
    )


def models_tables(manifest: Manifest) -> Mapping[str, int]:
    """The table versions a release's rankers learned from: its own, or those of the run that trained them."""
    told = manifest.notes.get(MODELS_TABLES)
    return json.loads(told) if told else manifest.tables


def models_as_of(manifest: Manifest) -> str:
    """The instant a release's rankers were trained as of, ISO 8601."""
    return manifest.notes.get(MODELS_AS_OF) or manifest.as_of.isoformat()


def _origin(manifest: Manifest) -> dict[str, str]:
    return {
        MODELS_FROM: manifest.notes.get(MODELS_FROM) or manifest.id,
        MODELS_AS_OF: models_as_of(manifest),
        MODELS_TABLES: json.dumps(models_tables(manifest), sort_keys=True),
    }


def _keeps_people(served: Sealed, today: Sealed) -> bool:
    if not {"people_rankers"} <= served.parts & today.parts:
        return False
    return PeoplePart.read(served.folder) == trained_part()
