"""Where a table lies: a local path or a URI, made absolute, and how to reach it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pyarrow import fs

_GLOB = frozenset("*?[")


class SourceError(ValueError):
    """A table cannot be read or written as asked; the message says what was found, what is allowed, what to do."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """`uri`: an absolute path, or a URI with a scheme. `options`: credentials and endpoint by object stores' names."""

    uri: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def local(self) -> bool:
        return "://" not in self.uri

    @property
    def path(self) -> Path:
        """Only of a local place."""
        return Path(self.uri)

    @property
    def is_glob(self) -> bool:
        """A pattern; a file or folder whose name merely looks like one is none."""
        return bool(_GLOB & set(self.uri)) and not (self.local and self.path.exists())

    def filesystem(self) -> tuple[fs.FileSystem, str]:
        """The file system and the path in it."""
        if self.local:
            return fs.LocalFileSystem(), self.uri
        if not self.uri.startswith("s3://"):
            found, path = fs.FileSystem.from_uri(self.uri)
            return found, path
        return _s3(self.options), self.uri.removeprefix("s3://")

    def exists(self) -> bool:
        """Whether anything is there, be it an empty folder."""
        return self._kind() != fs.FileType.NotFound

    def is_folder(self) -> bool:
        return self._kind() == fs.FileType.Directory

    def _kind(self) -> fs.FileType:
        found, path = self.filesystem()
        return found.get_file_info(path).type


def place_of(
    uri: str,
    repo: Path | str | None,
    *,
    endpoint: str | None = None,
    credentials: Mapping[str, str] | None = None,
    region: str | None = None,
) -> Place:
    """The place of a source; a relative path counts from the Feast repository."""
    options = dict(credentials or {})
    if endpoint:
        options |= {"AWS_ENDPOINT_URL": endpoint}
        options |= {"AWS_ALLOW_HTTP": "true"} if endpoint.startswith("http://") else {}
    if region:
        options["AWS_REGION"] = region
    if "://" not in uri:
        uri = str((Path(repo or ".") / uri).absolute())
    return Place(uri=uri.removeprefix("file://"), options=options)


def _s3(options: Mapping[str, str]) -> fs.FileSystem:
    endpoint = urlsplit(options.get("AWS_ENDPOINT_URL", ""))
    given = {
        "access_key": options.get("AWS_ACCESS_KEY_ID"),
        "secret_key": options.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": options.get("AWS_SESSION_TOKEN"),
        "region": options.get("AWS_REGION") or options.get("AWS_DEFAULT_REGION"),
        "endpoint_override": endpoint.netloc or None,
        "scheme": endpoint.scheme or None,
    }
    return fs.S3FileSystem(**{name: value for name, value in given.items() if value})
