"""Personal data beside the tables: the ledger, online features, finished steps, cached vectors, logs, scratch."""

from __future__ import annotations

import fcntl
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
from sqlalchemy import Engine

from rolecall.features.activity import candidate_profile
from rolecall.features.candidates import candidate_context
from rolecall.features.catalogue import EMPLOYER_NAME
from rolecall.features.online_erasure import OnlineRows
from rolecall.features.schema import CANDIDATES, EMPLOYERS, JOBS
from rolecall.features.text import candidate_text, job_text, text_hash
from rolecall.features.vector_cache import VectorCache
from rolecall.pipelines.lifecycle.person import CANDIDATE, Person
from rolecall.pipelines.lifecycle.releases import parquet_names
from rolecall.pipelines.lifecycle.table_stores import personal_tables, rows_naming
from rolecall.platform.database_erasure import count_candidate, erase_candidate
from rolecall.platform.errors import ConflictError
from rolecall.platform.file_tree import FileTree
from rolecall.platform.ledger import claimed
from rolecall.platform.release import MANIFEST_FILE, is_release_id
from rolecall.platform.table_erasure import column_names, oldest_version, scan_rows
from rolecall.platform.tables import TableStore
from rolecall.serving.scratch import leftovers

LOGS = (".log", ".out", ".err", ".txt", ".jsonl")
_BATCH = 20_000


class Ledger:
    """Posted events, and every other row of the ledger that names the person."""

    name = "ledger"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def holds(self, person: Person) -> int:
        return count_candidate(self._engine, person.candidate_id)

    def erase(self, person: Person) -> int:
        return erase_candidate(self._engine, person.candidate_id)


class OnlineFeatures:
    """Rows of the online feature store."""

    name = "online features"

    def __init__(self, rows: OnlineRows) -> None:
        self._rows = rows

    def holds(self, person: Person) -> int:
        return self._rows.count(person.candidate_id)

    def erase(self, person: Person) -> int:
        return self._rows.erase(person.candidate_id)


class Runs:
    """Finished steps of runs: the views' Parquet files and training sets. They can be built again.

    A run that has not come to a release and is pinned to table versions that are gone cannot go on: it goes too.
    `locks`: the folder whose runs this machine's processes lock; None for steps kept in an object store (as tars).
    """

    def __init__(self, tree: FileTree, store: TableStore, *, locks: Path | None, name: str = "runs") -> None:
        self.name = name
        self._tree = tree
        self._store = store
        self._locks = locks

    def holds(self, person: Person) -> int:
        return sum(self._names(run, person) for run in self._tree.folders())

    def refuse_running(self, person: Person, engine: Engine) -> None:
        """Raises ConflictError while a run that holds the person is executed, by this machine or another.

        It may have read all the tables it will ever read, so nothing else would keep it from publishing them.
        """
        for run in self._tree.folders():
            if not self._names(run, person, unread=True):
                continue
            if self._locks is not None:
                refuse_running(self._locks / run / "lock")
            with claimed(engine, run):
                pass

    def erase(self, person: Person) -> int:
        gone = 0
        for run in self._tree.folders():
            if self._names(run, person, unread=True) or self._stuck(run):
                if self._locks is not None:
                    refuse_running(self._locks / run / "lock")
                self._tree.delete_folder(run)
                gone += 1
        return gone

    def _names(self, run: str, person: Person, *, unread: bool = False) -> bool:
        """Whether a file of a run names the person. `unread`: what to say of a file that a kill cut short."""
        return any(self._file_names(file, person, unread) for file in self._tree.files(run))

    def _file_names(self, file: str, person: Person, unread: bool) -> bool:
        try:
            return any(
                parquet_names(content, person.candidate_id)
                for name, content in _step_files(self._tree, file)
                if name.endswith(".parquet")
            )
        except (pa.ArrowInvalid, tarfile.ReadError):
            return unread

    def _stuck(self, run: str) -> bool:
        steps = {folder.rpartition("/")[2] for folder in self._tree.folders(run)}
        if "release" in steps or "ingest" not in steps:
            return False
        pinned = (
            json.loads(content)["values"].get("versions", {})
            for file in self._tree.files(f"{run}/ingest")
            for name, content in _step_files(self._tree, file)
            if name.endswith("step.json")
        )
        return any(
            version < (oldest_version(self._store, name) or 0)
            for versions in pinned
            for name, version in versions.items()
        )


class UnfinishedReleases:
    """What a publication or a download that was killed left of a release: no list has it, so nobody would
    purge it. `tree`: a folder of releases."""

    def __init__(self, tree: FileTree, *, name: str = "unfinished releases") -> None:
        self.name = name
        self._tree = tree

    def holds(self, person: Person) -> int:
        return len(self._naming(person))

    def erase(self, person: Person) -> int:
        naming = self._naming(person)
        for folder in naming:
            self._tree.delete_folder(folder)
        return len(naming)

    def _naming(self, person: Person) -> list[str]:
        return [
            folder
            for folder in self._tree.folders()
            if self._unfinished(folder, files := self._tree.files(folder))
            and any(self._file_names(file, person) for file in files if file.endswith(".parquet"))
        ]

    def _unfinished(self, folder: str, files: Sequence[str]) -> bool:
        """A finished one has its id for a name, and a manifest."""
        return not is_release_id(folder) or f"{folder}/{MANIFEST_FILE}" not in files

    def _file_names(self, file: str, person: Person) -> bool:
        try:
            return parquet_names(self._tree.read(file), person.candidate_id)
        except pa.ArrowInvalid:  # cut short: no row of it can be read
            return False


class CachedVectors:
    """Vectors by the hash of their text. A hash tells nobody, so what no row's text explains today goes."""

    name = "cached vectors"

    def __init__(self, cache: VectorCache, store: TableStore) -> None:
        self._cache = cache
        self._store = store

    def holds(self, person: Person) -> int:
        rows = [
            row
            for name in _profile_tables(self._store)
            for row in rows_naming(self._store, name, person.candidate_id).to_dicts()
        ]
        return self._cache.known(set(_candidate_hashes(rows)))

    def erase(self, person: Person) -> int:
        return self._cache.keep_only(self._explained(person))

    def _explained(self, person: Person) -> Iterator[bytes]:
        names = dict(
            pl.DataFrame(self._store.read(EMPLOYERS, columns=["employer_id", "observed_at", "name"]))
            .sort("observed_at")
            .select("employer_id", "name")
            .iter_rows()
        )
        for batch in self._store.scan(JOBS).collect().iter_slices(_BATCH):
            for job in batch.to_dicts():
                yield text_hash(job_text({**job, EMPLOYER_NAME: names.get(job["employer_id"])}))
        for name in _profile_tables(self._store):
            others = scan_rows(self._store, name).filter(pl.col(CANDIDATE) != person.candidate_id).collect()
            for batch in others.iter_slices(_BATCH):
                yield from _candidate_hashes(batch.to_dicts())


class Logs:
    """Log files below home, Ray's included. Mentions are starred out in place: whoever appends goes on undisturbed."""

    name = "logs"

    def __init__(self, home: Path) -> None:
        self._home = home

    def holds(self, person: Person) -> int:
        return sum(person.mask(file.read_bytes()) != file.read_bytes() for file in self._files())

    def erase(self, person: Person) -> int:
        masked = 0
        for file in self._files():
            content = file.read_bytes()
            cleaned = person.mask(content)
            if cleaned != content:
                with file.open("r+b") as stream:
                    stream.write(cleaned)
                masked += 1
        return masked

    def _files(self) -> Iterator[Path]:
        return log_files(self._home)


class Scratch:
    """Private copies of releases that dead processes left behind. A living one drops its copy with the release."""

    name = "scratch"

    def __init__(self, root: Path) -> None:
        self._root = root

    def holds(self, person: Person) -> int:
        return sum(
            any(needle in file.read_bytes() for needle in person.needles)
            for folder in leftovers(self._root)
            for file in folder.rglob("*")
            if file.is_file()
        )

    def erase(self, person: Person) -> int:
        trees = [FileTree(str(folder)) for folder in leftovers(self._root)]
        return sum(tree.delete_folder("") for tree in trees)


def log_files(home: Path) -> Iterator[Path]:
    """Logs below a home: at its top, and Ray's."""
    for folder, pattern in ((home, "*"), (home / "ray", "**/*"), (home / "logs", "**/*")):
        for file in sorted(folder.glob(pattern)):
            if file.suffix in LOGS and file.is_file() and not file.is_symlink():
                yield file


def refuse_running(lock: Path) -> None:
    """Raises ConflictError while a process executes the run."""
    if not lock.exists():
        return
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(
                f"run {lock.parent.name} is being executed and reads the person's rows",
                "no run under way",
                "wait for it to end, then run the same command again: it goes on where it stopped",
            ) from error


def _step_files(tree: FileTree, file: str) -> Iterator[tuple[str, bytes]]:
    """A file of a step, or the files of a step that is kept as a tar."""
    if not file.endswith((".parquet", ".json", ".tar")):
        return
    content = tree.read(file)
    if not file.endswith(".tar") or file.endswith("index.tar"):
        yield file, content
        return
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            held = archive.extractfile(member) if member.isfile() else None
            if held is not None:
                yield member.name, held.read()


def _profile_tables(store: TableStore) -> list[str]:
    wanted = {"resume_text", "experience", "updated_at"}
    return [name for name in personal_tables(store) if wanted <= set(column_names(store, name))]


def _candidate_hashes(rows: Iterable[dict[str, object]]) -> Iterator[bytes]:
    """What the embedder read of each profile row, as a hash."""
    frame = pl.DataFrame(list(rows), schema=_PROFILE, strict=False)
    for row in candidate_profile(frame).to_dicts():
        text = candidate_text(candidate_context(row[CANDIDATE], row, at=row["event_timestamp"]))
        yield text_hash(text)


_PROFILE = pl.DataFrame(CANDIDATES.columns.empty_table()).schema
