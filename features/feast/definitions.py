"""RoleCall's Feast objects: three entities, five feature views, two feature services.

They are built by a function from code, because reading them back from a registry means running the pickled
blobs it may hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float64, String

from rolecall.features.views import SERVICES, VIEWS, ViewShape


@dataclass(frozen=True, kw_only=True)
class Definitions:
    """Everything `apply` registers."""

    entities: dict[str, Any]
    views: dict[str, Any]
    services: dict[str, Any]

    def all(self) -> list[Any]:
        return [*self.entities.values(), *self.views.values(), *self.services.values()]


def source_path(sources: Path, view: str) -> Path:
    """Where the source rows of a view lie."""
    return sources / f"{view}.parquet"


def build_definitions(sources: Path) -> Definitions:
    """The Feast objects over the Parquet files in `sources`, an absolute folder."""
    entities = {
        name: Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.STRING)
        for name in ("candidate", "job", "employer")
    }
    views = {shape.name: _view(shape, entities[shape.entity], sources) for shape in VIEWS}
    services = {
        name: FeatureService(name=name, features=[views[view] for view in names]) for name, names in SERVICES.items()
    }
    return Definitions(entities=entities, views=views, services=services)


def _view(shape: ViewShape, entity: Any, sources: Path) -> Any:
    fields = [Field(name=f"{shape.entity}_id", dtype=String)]
    fields += [Field(name=name, dtype=Array(String)) for name in shape.lists]
    fields += [Field(name=name, dtype=String) for name in shape.texts]
    fields += [Field(name=name, dtype=Float64) for name in shape.numbers]
    source = FileSource(
        name=f"{shape.name}_source",
        path=str(source_path(sources, shape.name)),
        timestamp_field="event_timestamp",
    )
    return FeatureView(name=shape.name, entities=[entity], ttl=shape.ttl, schema=fields, source=source)
