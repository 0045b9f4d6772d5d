"""One set of options reaches an object store through every library."""

from __future__ import annotations

import pickle

from rolecall.platform.object_store import is_object_store, mlflow_environment, prefix
from tests.services import S3Bucket


def test_a_place_keeps_and_removes_only_what_is_below_it(s3_bucket: S3Bucket) -> None:
    root = prefix(f"{s3_bucket.uri}/artifacts/", s3_bucket.options)
    here, there = root.below("runs", "a"), pickle.loads(pickle.dumps(root.below("runs", "ab")))
    here.write("x", b"1")
    there.write("x", b"2")
    assert here.read("x") == b"1"
    assert here.read("y") is None
    here.remove()
    assert here.read("x") is None
    assert there.read("x") == b"2"
    here.remove()


def test_mlflow_gets_the_tables_options(s3_options: dict[str, str]) -> None:
    assert mlflow_environment(s3_options) == {
        "MLFLOW_S3_ENDPOINT_URL": s3_options["AWS_ENDPOINT_URL"],
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    assert mlflow_environment({}) == {}


def test_only_a_uri_with_a_store_is_one() -> None:
    assert is_object_store("s3://bucket/prefix")
    assert not is_object_store("/srv/artifacts")
    assert not is_object_store("file:///srv/artifacts")
