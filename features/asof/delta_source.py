"""Feature rows in a Delta table, at a version of one's choice: a Feast `DataSource`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from feast import RepoConfig, ValueType
from feast.credentials import ConnectionRef
from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.type_map import pa_to_feast_value_type

from rolecall.features.asof.place import Place, SourceError, place_of


class DeltaSource(DataSource):
    """A Delta table, local or on an object store, as rows of a feature view.

        source = DeltaSource(path="tables/driver_stats", version=17, timestamp_field="event_timestamp")

    `path`: relative to the Feast repository, absolute, or a URI. `version`: the table's version that is read,
    whatever was committed since; None: the newest at each retrieval. A pinned source is never written to.
    The other arguments are those of `FileSource`.
    """

    def __init__(
        self,
        *,
        path: str,
        version: int | None = None,
        name: str | None = "",
        timestamp_field: str | None = "",
        created_timestamp_column: str | None = "",
        field_mapping: dict[str, str] | None = None,
        s3_endpoint_override: str | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
        connection_ref: ConnectionRef | None = None,
    ) -> None:
        if version is not None and version < 0:
            raise SourceError(f"version {version} of {path}: a version is 0 or more, or None for the newest")
        self.path = path
        self.version = version
        self.s3_endpoint_override = s3_endpoint_override or ""
        super().__init__(
            name=name or path,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
            connection_ref=connection_ref,
        )

    def __hash__(self) -> int:
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, DeltaSource)
            and super().__eq__(other)
            and (self.path, self.version, self.s3_endpoint_override)
            == (other.path, other.version, other.s3_endpoint_override)
        )

    def source_type(self) -> DataSourceProto.SourceType.ValueType:
        return DataSourceProto.CUSTOM_SOURCE

    def place(self, repo: Path | str | None) -> Place:
        return place_of(self.path, repo, endpoint=self.s3_endpoint_override, credentials=self.resolve_credentials())

    def at(self, version: int | None) -> DeltaSource:
        """The same source, pinned to another version (None: to none)."""
        proto = self.to_proto()
        copy = DeltaSource.from_proto(proto)
        copy.version = version
        return copy

    def pinned(self, repo: Path | str | None = None) -> DeltaSource:
        """The same source, pinned to the newest version of now."""
        return self.at(open_delta(self.place(repo)).version())

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> DeltaSource:
        options = json.loads(data_source.custom_options.configuration)
        tags = dict(data_source.tags)
        return DeltaSource(
            path=options["path"],
            version=options["version"],
            s3_endpoint_override=options["s3_endpoint_override"],
            name=data_source.name,
            timestamp_field=data_source.timestamp_field,
            created_timestamp_column=data_source.created_timestamp_column,
            field_mapping=dict(data_source.field_mapping),
            description=data_source.description,
            tags=tags,
            owner=data_source.owner,
            connection_ref=ConnectionRef.from_tags(tags),
        )

    def _to_proto_impl(self) -> DataSourceProto:
        options = {"path": self.path, "version": self.version, "s3_endpoint_override": self.s3_endpoint_override}
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=f"{DeltaSource.__module__}.{DeltaSource.__qualname__}",
            timestamp_field=self.timestamp_field,
            created_timestamp_column=self.created_timestamp_column,
            field_mapping=self.field_mapping,
            custom_options=DataSourceProto.CustomSourceOptions(configuration=json.dumps(options).encode()),
            description=self.description,
            tags=self.tags,
            owner=self.owner,
        )

    def validate(self, config: RepoConfig) -> None:
        """Raises SourceError where the table, the version or a named timestamp column is not there."""
        names = [name for name, _ in self.get_table_column_names_and_types(config)]
        mapped = {self.field_mapping.get(name, name) for name in names} | set(names)
        for wanted in filter(None, (self.timestamp_field, self.created_timestamp_column)):
            if wanted not in mapped:
                raise SourceError(f"{self.path} has no column {wanted}; it has {', '.join(names)}")

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        return pa_to_feast_value_type

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        schema = delta_schema(open_delta(self.place(config.repo_path), self.version))
        return [(column.name, str(column.type)) for column in schema]

    def get_table_query_string(self) -> str:
        raise SourceError(
            f"{self.path} is a Delta table, which SQL cannot name: read it with the offline store "
            "rolecall.features.asof.AsofOfflineStore, or give a store that speaks SQL a source of its own"
        )


def open_delta(place: Place, version: int | None = None) -> DeltaTable:
    """The table at a version. Raises SourceError where there is no such table or version."""
    try:
        table = DeltaTable(place.uri, storage_options=dict(place.options) or None)
    except TableNotFoundError as error:
        raise SourceError(f"no Delta table at {place.uri}; write it first, or correct the path") from error
    newest = table.version()
    if version is None or version == newest:
        return table
    if version > newest:
        raise SourceError(f"{place.uri} has no version {version}: there are 0 to {newest}")
    try:
        table.load_as_version(version)
    except DeltaError as error:
        raise SourceError(
            f"version {version} of {place.uri} cannot be loaded ({error}); its log was cleaned up: "
            "pin a later version, and keep the log as long as what was trained on it"
        ) from error
    return table


def delta_schema(table: DeltaTable) -> pa.Schema:
    given: Any = table.schema().to_arrow()
    return pa.schema(given)
