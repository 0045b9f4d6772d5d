"""Feast's own universal offline-store tests, run against `AsofOfflineStore`: the stores they are to use.

Feast does not ship these tests; they come with a checkout of the version that is installed (pytest below 8, with
`pytest-lazy-fixture pytest-ordering pytest-mock pytest-env pytest-asyncio pytest-timeout testcontainers minio
python-keycloak assertpy`, in an environment of their own that sees this one's packages):

    git clone https://github.com/feast-dev/feast && mkdir suite && cp -r feast/sdk/python/{tests,pytest.ini} suite
    cd suite && FULL_REPO_CONFIGS_MODULE=feast_universal FEAST_IS_LOCAL_TEST=True IS_TEST=True \\
      PYTHONPATH=$ROLECALL/infra/import_root:$ROLECALL/tests/features/asof \\
      python -m pytest --integration tests/integration/offline_store \\
      --ignore=tests/integration/offline_store/test_dqm_validation.py

The copy keeps the checkout's `feast` package off the path, so the installed one is tested.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FileSource
from feast.data_format import ParquetFormat

from rolecall.features.asof import AsofOfflineStoreConfig, DeltaSource
from tests.universal.feature_repos.universal.data_sources.file import (  # type: ignore[import-not-found]
    DeltaFileSourceCreator,
    FileDataSourceCreator,
)


class _Asof:
    def create_offline_store_config(self) -> AsofOfflineStoreConfig:
        return AsofOfflineStoreConfig()


class AsofParquetFile(_Asof, FileDataSourceCreator):  # type: ignore[misc]
    """One Parquet file a source."""


class AsofParquetFolder(_Asof, FileDataSourceCreator):  # type: ignore[misc]
    """A folder of two Parquet files a source (Feast's own creator of folders fails with pyarrow 25)."""

    def create_data_source(
        self,
        df: Any,
        destination_name: str,
        created_timestamp_column: str = "created_ts",
        field_mapping: dict[str, str] | None = None,
        timestamp_field: str | None = "ts",
    ) -> FileSource:
        folder = tempfile.mkdtemp(prefix=f"{self.project_name}_{destination_name}")
        self.dirs.append(folder)
        rows = pa.Table.from_pandas(df, preserve_index=False)
        for name, part in (("a", rows.slice(0, len(df) // 2)), ("b", rows.slice(len(df) // 2))):
            pq.write_table(part, f"{folder}/{name}.parquet")
        return FileSource(
            file_format=ParquetFormat(),
            path=folder,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping or {"ts_1": "ts"},
        )


class AsofFeastDelta(_Asof, DeltaFileSourceCreator):  # type: ignore[misc]
    """A Delta table a source, named by Feast's `FileSource`."""


class AsofDelta(_Asof, FileDataSourceCreator):  # type: ignore[misc]
    """A Delta table a source, named by our `DeltaSource`."""

    def create_data_source(
        self,
        df: Any,
        destination_name: str,
        created_timestamp_column: str = "created_ts",
        field_mapping: dict[str, str] | None = None,
        timestamp_field: str | None = "ts",
    ) -> DeltaSource:
        folder = tempfile.mkdtemp(prefix=f"{self.project_name}_{destination_name}")
        self.dirs.append(folder)
        deltalake.write_deltalake(folder, df)
        return DeltaSource(
            path=folder,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping or {"ts_1": "ts"},
        )

    def teardown(self) -> None:
        for folder in self.dirs:
            shutil.rmtree(folder, ignore_errors=True)


AVAILABLE_OFFLINE_STORES = [
    ("local", creator) for creator in (AsofParquetFile, AsofParquetFolder, AsofFeastDelta, AsofDelta)
]
AVAILABLE_ONLINE_STORES = {"sqlite": ({"type": "sqlite"}, None)}

# Tests marked "file store only" name it by this table of Feast's: they are to meet this store too.
_feast = sys.modules["tests.universal.feature_repos.repo_configuration"]
_feast.OFFLINE_STORE_TO_PROVIDER_CONFIG["file"] = ("local", AsofParquetFile)
