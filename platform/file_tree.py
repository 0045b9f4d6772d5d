"""The files below a folder or an `s3://` prefix, to look through and to delete.

tree = FileTree("s3://bucket/artifacts", options)
for name in tree.files("releases"):
    tree.read(name)
tree.delete_folder("releases/79ea1f92883d39f3")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pyarrow import fs

from rolecall.platform.object_store import s3_filesystem


class FileTree:
    """Names are relative to the root, with `/`. `options`: object-store options as `deltalake` takes them."""

    def __init__(self, uri: str, options: Mapping[str, str] | None = None) -> None:
        self.uri = uri.rstrip("/")
        if self.uri.startswith("s3://"):
            self.root = self.uri.removeprefix("s3://")
            self.filesystem: fs.FileSystem = s3_filesystem(options or {})
        else:
            self.root = str(Path(self.uri.removeprefix("file://")).absolute())
            self.filesystem = fs.LocalFileSystem()

    def files(self, folder: str = "") -> list[str]:
        """Names of all files below `folder`, sorted; none where it does not exist."""
        found = self.filesystem.get_file_info(self._selector(folder, recursive=True))
        return sorted(self._name(info) for info in found if info.type == fs.FileType.File)

    def folders(self, folder: str = "") -> list[str]:
        """Names of the folders directly below `folder`, sorted."""
        found = self.filesystem.get_file_info(self._selector(folder, recursive=False))
        return sorted(self._name(info) for info in found if info.type == fs.FileType.Directory)

    def path(self, name: str) -> str:
        """The name as `filesystem` takes it."""
        return f"{self.root}/{name}" if name else self.root

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises FileNotFoundError."""
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            return bytes(stream.read())

    def write(self, name: str, content: bytes) -> None:
        """Write a file, its folders being made where they are missing."""
        self.filesystem.create_dir(self.path(name).rpartition("/")[0], recursive=True)
        with self.filesystem.open_output_stream(self.path(name)) as stream:
            stream.write(content)

    def delete(self, name: str) -> None:
        """Delete a file; one that is gone already is no error."""
        if self.filesystem.get_file_info(self.path(name)).type == fs.FileType.File:
            self.filesystem.delete_file(self.path(name))

    def delete_folder(self, folder: str) -> int:
        """Delete a folder with all below it. Returns how many files went; 0 where it does not exist."""
        gone = len(self.files(folder))
        if self.filesystem.get_file_info(self.path(folder)).type == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path(folder))
        return gone

    def _selector(self, folder: str, *, recursive: bool) -> fs.FileSelector:
        return fs.FileSelector(self.path(folder), recursive=recursive, allow_not_found=True)

    def _name(self, info: fs.FileInfo) -> str:
        return str(info.path)[len(self.root) + 1 :]
