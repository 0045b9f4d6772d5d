"""Real back ends for the stores: an S3 server in this process, and a ledger on each database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs
from sqlalchemy import Engine, create_engine

from rolecall.platform.ledger import METADATA, open_ledger


@dataclass(frozen=True, kw_only=True)
class S3Bucket:
    """An empty bucket, and the options that reach it as `deltalake` takes them."""

    name: str
    options: dict[str, str]

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"

    @property
    def filesystem(self) -> fs.S3FileSystem:
        return _filesystem(self.options)


@pytest.fixture(scope="session")
def s3_options() -> Iterator[dict[str, str]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    server.stop()


@pytest.fixture
def s3_bucket(s3_options: dict[str, str]) -> S3Bucket:
    name = f"bucket-{uuid4().hex}"
    _filesystem(s3_options).create_dir(name)
    return S3Bucket(name=name, options=s3_options)


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty ledger on each database; PostgreSQL (emptied) where ROLECALL_TEST_POSTGRES_URL names one."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "postgresql":
        url = os.environ.get("ROLECALL_TEST_POSTGRES_URL", "")
        if not url:
            pytest.skip("ROLECALL_TEST_POSTGRES_URL names no database")
        METADATA.drop_all(create_engine(url))
    engine = open_ledger(url)
    yield engine
    if request.param == "postgresql":
        METADATA.drop_all(engine)
    engine.dispose()


def _filesystem(options: dict[str, str]) -> fs.S3FileSystem:
    return fs.S3FileSystem(
        access_key="test",
        secret_key="test",
        region="us-east-1",
        endpoint_override=options["AWS_ENDPOINT_URL"].removeprefix("http://"),
        scheme="http",
        allow_bucket_creation=True,
    )
