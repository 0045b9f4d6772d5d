"""Object stores behind one set of options: the names `deltalake` takes (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...).

    place = prefix("s3://bucket/artifacts", options)
    with place.below("runs", "r1").write("index.tar") as stream: ...

The same options reach the tables (Delta Lake), releases and checkpoints (pyarrow) and MLflow's artifacts (boto3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

_SCHEME = "s3://"
_BOTO3 = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "DEFAULT_REGION")


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """A place in an object store. `path` is bucket/key without a scheme. Safe to pickle."""

    filesystem: fs.FileSystem
    path: str

    def below(self, *names: str) -> Prefix:
        """A place inside this one."""
        return Prefix(filesystem=self.filesystem, path="/".join((self.path, *names)))

    def key(self, name: str) -> str:
        """What the filesystem calls an object of this place."""
        return f"{self.path}/{name}"

    def read(self, name: str) -> bytes | None:
        """A small object's bytes, or None where there is none."""
        try:
            with self.filesystem.open_input_stream(self.key(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a small object; it appears whole or not at all."""
        with self.filesystem.open_output_stream(self.key(name)) as stream:
            stream.write(content)

    def remove(self) -> None:
        """Delete everything in this place. Harmless where there is nothing."""
        selector = fs.FileSelector(self.path, recursive=True, allow_not_found=True)
        for info in self.filesystem.get_file_info(selector):
            if info.type == fs.FileType.File:
                self.filesystem.delete_file(info.path)


def is_object_store(uri: str) -> bool:
    """True where a URI names an object store rather than a folder."""
    return uri.startswith(_SCHEME)


def prefix(uri: str, options: Mapping[str, str]) -> Prefix:
    """The place that an `s3://` URI names."""
    return Prefix(filesystem=s3_filesystem(options), path=uri.removeprefix(_SCHEME).rstrip("/"))


def located(uri: str, options: Mapping[str, str]) -> tuple[fs.FileSystem, str]:
    """Which filesystem a path or URI is of, and its name there. `options` are for `s3://`; other stores (`gs://`,
    `hdfs://`, ...) find theirs as their own tools do. Raises pyarrow.ArrowInvalid for an unknown scheme."""
    if is_object_store(uri):
        return s3_filesystem(options), uri.removeprefix(_SCHEME)
    if "://" in uri:
        found, path = fs.FileSystem.from_uri(uri)
        return found, str(path)
    return fs.LocalFileSystem(), str(Path(uri).absolute())


def s3_filesystem(options: Mapping[str, str]) -> fs.S3FileSystem:
    """pyarrow's file system. Options that are absent are looked for as AWS tools do: environment, profile, role."""
    option = _bare(options)
    endpoint = option.get("ENDPOINT_URL") or option.get("ENDPOINT") or ""
    scheme, _, host = endpoint.rpartition("://")
    return fs.S3FileSystem(
        access_key=option.get("ACCESS_KEY_ID"),
        secret_key=option.get("SECRET_ACCESS_KEY"),
        session_token=option.get("SESSION_TOKEN"),
        region=option.get("REGION") or option.get("DEFAULT_REGION"),
        endpoint_override=host.rstrip("/") or None,
        scheme=scheme or "https",
        allow_bucket_creation=False,
    )


def mlflow_environment(options: Mapping[str, str]) -> dict[str, str]:
    """The variables through which MLflow and boto3 reach the same store."""
    option = _bare(options)
    option.setdefault("DEFAULT_REGION", option.get("REGION", ""))
    named = {f"AWS_{name}": option.get(name, "") for name in _BOTO3}
    named["MLFLOW_S3_ENDPOINT_URL"] = option.get("ENDPOINT_URL") or option.get("ENDPOINT") or ""
    return {name: value for name, value in named.items() if value}


def _bare(options: Mapping[str, str]) -> dict[str, str]:
    return {name.upper().removeprefix("AWS_"): value for name, value in options.items()}
