"""The answers' file: written line by line as they come, so that a run that ended can be gone on with.

On an object store a file appears whole or not at all: there it grows in a local folder, and is sent at the end.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import orjson
import pyarrow as pa

from rolecall.platform.errors import InputError, UnavailableError
from rolecall.platform.object_store import located
from rolecall.serving.llm.batch_file.line import BEGINNING


@dataclass(kw_only=True)
class AnswerFile:
    """`with` opens and closes it. `local`: where it grows; `answered`: what earlier runs had answered, by custom_id,
    or by line where there is none."""

    uri: str
    local: Path
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    answered: set[str | int] = field(default_factory=set[str | int])
    _file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._file = self.local.open("ab")
        except OSError as error:
            raise InputError(f"{self.local} cannot be written: {error.strerror}", "a file that can be") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | BaseException | None) -> None:
        if self._file is not None:
            self._file.close()
        if not self.local.stat().st_size:
            self.local.unlink()  # a run that answered nothing leaves nothing in the way of the next
        elif kind is None and self.uri != str(self.local):
            self._send()
            self.local.unlink()

    def _send(self) -> None:
        try:
            system, path = located(self.uri, self.options)
            with self.local.open("rb") as whole, system.open_output_stream(path) as sent:
                shutil.copyfileobj(whole, sent)
        except OSError as error:
            raise UnavailableError(
                f"{self.uri} cannot be written: {error}; the answers are in {self.local}", todo="go on with --resume"
            ) from error

    def append(self, lines: list[bytes]) -> None:
        """Add lines; they are with the system when it returns."""
        if self._file is None:
            raise RuntimeError("the answers' file is not open")
        self._file.writelines(lines)
        self._file.flush()


def answer_file(uri: str, options: Mapping[str, str], *, unfinished: Path, resume: bool) -> AnswerFile:
    """The file at `uri`; one on an object store grows in the folder `unfinished`.

    Raises InputError where there is one already and `resume` is false, or where it holds no answers.
    """
    local = Path(uri.removeprefix("file://")).absolute()
    remote = "://" in uri and not uri.startswith("file://")
    if remote:
        unfinished.mkdir(parents=True, exist_ok=True)
        local = unfinished / f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}.jsonl"
        try:
            system, path = located(uri, options)
            before = not local.exists() and system.get_file_info(path).is_file
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{uri} cannot be reached: {error}", "a file, or an object of a store") from error
        if before:
            if not resume:
                raise _exists(uri)
            with system.open_input_stream(path) as stream, local.open("wb") as kept:
                shutil.copyfileobj(stream, kept)
    if local.exists() and not local.is_file():
        raise InputError(f"{local} is no file", "a file")
    if local.exists() and not resume:
        raise _exists(uri if not remote else f"{local}, an unfinished {uri},")
    if not local.parent.is_dir():
        raise InputError(f"{local.parent} is no folder", "a file in a folder that exists", "create the folder")
    answered = _answered(local) if local.exists() else set[str | int]()
    return AnswerFile(uri=uri if remote else str(local), local=local, options=options, answered=answered)


def _answered(path: Path) -> set[str | int]:
    """What the lines of a file answer. A last line that is not whole, left by a run that was killed, is cut off."""
    answered: set[str | int] = set()
    whole = 0
    with path.open("rb+") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                if line[: len(BEGINNING)] != BEGINNING[: len(line)]:
                    raise _no_answer(path, number)
                break
            whole += len(line)
            answered.add(_key(path, number, line))
        file.truncate(whole)
    return answered


def _key(path: Path, number: int, line: bytes) -> str | int:
    try:
        told = orjson.loads(line)
        return told["custom_id"] if told["custom_id"] is not None else int(told["error"]["line"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise _no_answer(path, number) from error


def _no_answer(path: Path, number: int) -> InputError:
    return InputError(f"line {number} of {path} is no answer", "a file that this command wrote", "name another OUTPUT")


def _exists(what: str) -> InputError:
    return InputError(f"{what} exists", "an OUTPUT that does not, or --resume to go on with it")
