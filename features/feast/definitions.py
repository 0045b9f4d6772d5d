"""RoleCall's Feast objects: three entities, the feature views, the request-time views, the feature services.

They are built by a function from code, because reading them back from a registry means running the pickled
blobs it may hold. `feast apply` in this folder finds them as names of this module (see `feature_store.yaml`); nothing
is built before somebody asks for one.

A view's rows lie in a Parquet file of the run, computed from the table versions that the run is pinned to, and not in
those tables through a `DeltaSource`: of all views only `employer_rating` is a table's columns as they are, and its
file is read 2.5 times as fast (58 against 146 ms, a join of 50,000 rows with 200,000 of 90 commits). A pinned version
is also gone once somebody is forgotten, while a run's own rows, cleaned of them, can go on being learned from.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, OnDemandFeatureView, RequestSource, ValueType
from feast.types import Array, Float64, Int64, String

from rolecall.features.feature import Feature, names
from rolecall.features.pair_rows import PAIR_FIT, PAIR_SEEN, pair_fit, pair_seen
from rolecall.features.views import ALL_VIEWS, SERVICES, ViewShape


@dataclass(frozen=True, kw_only=True)
class Definitions:
    """Feast's objects by name. `on_demand`: views computed at a request."""

    entities: dict[str, Any]
    views: dict[str, Any]
    services: dict[str, Any]
    on_demand: dict[str, Any]

    def all(self) -> list[Any]:
        """What RoleCall's own retrieval registers. The on-demand views are not among it: Feast reads those back as code
        it runs, and `PairFeatures` computes the same values."""
        return [*self.entities.values(), *self.views.values(), *self.services.values()]

    def exported(self) -> dict[str, Any]:
        """What `feast apply` registers, by name of this module."""
        groups = {"entity": self.entities, "view": self.views, "service": self.services, "on_demand": self.on_demand}
        return {f"{kind}_{name}": one for kind, group in groups.items() for name, one in group.items()}


def source_path(sources: Path, view: str) -> Path:
    """Where the source rows of a view lie."""
    return sources / f"{view}.parquet"


def build_definitions(sources: Path) -> Definitions:
    """The Feast objects over the Parquet files in `sources`, an absolute folder."""
    entities = {
        name: Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.STRING)
        for name in ("candidate", "job", "employer")
    }
    views = {shape.name: _view(shape, entities[shape.entity], sources) for shape in ALL_VIEWS}
    services = {
        name: FeatureService(name=name, features=[views[view] for view in chosen]) for name, chosen in SERVICES.items()
    }
    return Definitions(entities=entities, views=views, services=services, on_demand=_on_demand(views))


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


def _on_demand(views: dict[str, Any]) -> dict[str, Any]:
    """What can only be computed when somebody asks, in Feast's python mode."""
    pay = RequestSource(name="usual_pay", schema=[Field(name="usual_salary", dtype=Float64)])
    asked = [Field(name="asked_job_id", dtype=String), Field(name="asked_at_us", dtype=Int64)]
    question = RequestSource(name="question", schema=asked)
    return {
        "pair_fit": _computed("pair_fit", pair_fit, PAIR_FIT, [views["candidate_profile"], views["job_profile"], pay]),
        "pair_seen": _computed("pair_seen", pair_seen, PAIR_SEEN, [views["candidate_activity"], question]),
    }


def _computed(name: str, function: Any, features: tuple[Feature, ...], sources: list[Any]) -> Any:
    return OnDemandFeatureView(
        name=name,
        sources=sources,
        schema=[Field(name=feature, dtype=Float64) for feature in names(features)],
        mode="python",
        udf=function,
        udf_string=f"{function.__module__}.{function.__name__}",
    )


@cache
def _exported() -> dict[str, Any]:
    from rolecall.platform.settings import load_settings

    return build_definitions(load_settings().home.absolute() / "feast" / "sources").exported()


def __dir__() -> list[str]:
    return [*globals(), *_exported()]


def __getattr__(name: str) -> Any:
    if name.startswith(("entity_", "view_", "service_", "on_demand_")) and name in _exported():
        return _exported()[name]
    raise AttributeError(f"module {__name__} has no attribute {name}")
