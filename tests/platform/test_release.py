"""The release: its id is its content, and nothing of it is opened before every byte was checked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.platform.errors import InputError, IntegrityError, NotFoundError
from rolecall.platform.release import (
    AREAS,
    MANIFEST_FILE,
    Manifest,
    ReleaseBuilder,
    code_version,
    read_manifest,
    release_id,
    verify,
)

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
FILES = {"coarse": "coarse.txt", "lexicon": "text/lexicon.json", "evaluation": "evaluation.json"}


def sealed(folder: Path, *, order: tuple[str, ...] = tuple(FILES), index: bytes = b"index", **over: Any) -> Manifest:
    """A small release; `over` replaces what `seal` is given."""
    builder = ReleaseBuilder(folder)
    for name in order:
        builder.path(FILES[name]).write_text(f"content of {name}")
        builder.add(name, FILES[name], identity=name != "evaluation")
    builder.path("index.tar").write_bytes(index)
    builder.add("index", "index.tar", content="digest of the vectors")
    facts: dict[str, Any] = {"as_of": AS_OF, "code_version": "1+a", "tables": {"jobs": 3}, "settings": {"seed": 7}}
    return builder.seal(**{**facts, **over})


def test_the_same_content_has_the_same_id_whatever_surrounds_it(tmp_path: Path) -> None:
    first = sealed(tmp_path / "a", metrics={"ndcg": 0.3}, notes={"run": "1"})
    later = datetime(2026, 5, 1, tzinfo=UTC)
    other = sealed(tmp_path / "b", order=tuple(FILES)[::-1], index=b"built again", as_of=later, metrics={}, notes={})
    assert first.id == other.id
    assert first.sha256 != other.sha256


@pytest.mark.parametrize("over", [{"settings": {"seed": 8}}, {"tables": {"jobs": 4}}, {"code_version": "1+b"}])
def test_settings_tables_and_code_change_the_id(tmp_path: Path, over: dict[str, Any]) -> None:
    assert sealed(tmp_path / "a").id != sealed(tmp_path / "b", **over).id


def test_a_parts_content_changes_the_id_and_a_reports_does_not(tmp_path: Path) -> None:
    def built(folder: str, **text: str) -> str:
        builder = ReleaseBuilder(tmp_path / folder)
        for name, identity in (("model", True), ("report", False)):
            builder.path(name).write_text(text.get(name, "same"))
            builder.add(name, name, identity=identity)
        return builder.seal(as_of=AS_OF, code_version="1", tables={}, settings={}).id

    assert built("a") == built("b", report="other timings")
    assert built("a2") != built("c", model="other trees")


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.none() | st.text(max_size=5), min_size=1))
def test_the_order_of_settings_does_not_matter(settings: dict[str, Any]) -> None:
    def identify(chosen: dict[str, Any]) -> str:
        return release_id(settings=chosen, code_version="1", tables={}, parts=())

    try:
        forward = identify(settings)
    except TypeError:  # an integer beyond 64 bits or half a surrogate pair: JSON cannot hold it
        return
    assert forward == identify(dict(reversed(settings.items())))


def test_a_manifest_survives_the_disk(tmp_path: Path) -> None:
    manifest = sealed(tmp_path / "a", metrics={"ndcg": 0.25, "empty slice": float("nan")})
    assert verify(tmp_path / "a") == manifest == read_manifest(manifest.to_json())
    assert manifest.metrics == {"ndcg": 0.25}
    assert verify(tmp_path / "a", seal=manifest.sha256) == manifest
    assert manifest.part("coarse").file == "coarse.txt"
    with pytest.raises(NotFoundError, match="coarse"):
        manifest.part("llm")


@pytest.mark.parametrize("file", [*FILES.values(), "index.tar"])
@pytest.mark.parametrize("offset", [0, -1])
def test_one_changed_byte_in_any_part_is_found(tmp_path: Path, file: str, offset: int) -> None:
    sealed(tmp_path / "a")
    path = tmp_path / "a" / file
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=Path(file).name):
        verify(tmp_path / "a")


def _truncate(folder: Path) -> None:
    (folder / "coarse.txt").write_bytes((folder / "coarse.txt").read_bytes()[:-1])


def _add_file(folder: Path) -> None:
    (folder / "text" / "extra.bin").write_text("x")


def _link_part(folder: Path) -> None:
    (folder / "coarse.txt").rename(folder.parent / "elsewhere.txt")
    (folder / "coarse.txt").symlink_to(folder.parent / "elsewhere.txt")


def _link_folder(folder: Path) -> None:
    (folder / "text").rename(folder.parent / "text")
    (folder / "text").symlink_to(folder.parent / "text")


DAMAGE: list[Callable[[Path], Any]] = [
    _truncate,
    _add_file,
    _link_part,
    _link_folder,
    lambda folder: (folder / "index.tar").unlink(),
    lambda folder: (folder / MANIFEST_FILE).write_text("{"),
    lambda folder: (folder / MANIFEST_FILE).write_text("[]"),
    lambda folder: (folder / "index.tar").rename(folder / "index2.tar"),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    sealed(tmp_path / "a")
    damage(tmp_path / "a")
    with pytest.raises(IntegrityError):
        verify(tmp_path / "a")


def edited(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    file = folder / MANIFEST_FILE
    manifest = orjson.loads(file.read_bytes())
    edit(manifest)
    file.write_bytes(orjson.dumps(manifest))


FORGERIES: list[Callable[[dict[str, Any]], Any]] = [
    lambda m: m.update(id="0" * 16),
    lambda m: m["settings"].update(seed=8),
    lambda m: m["tables"].update(jobs=1),
    lambda m: m["parts"][0].update(content="0" * 64),
    lambda m: m["parts"].pop(),
    lambda m: m.update(surprise=1),
    lambda m: m.pop("as_of"),
    lambda m: m.update(as_of="2026-03-01T00:00:00"),
    lambda m: m["parts"][0].update(sha256="not a digest"),
    lambda m: m["parts"].append(m["parts"][0]),
    lambda m: m["parts"][0].update(bytes=1),
]


@pytest.mark.parametrize("edit", FORGERIES)
def test_a_forged_manifest_is_refused(tmp_path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    sealed(tmp_path / "a")
    edited(tmp_path / "a", edit)
    with pytest.raises(IntegrityError):
        verify(tmp_path / "a")


@pytest.mark.parametrize(
    "name",
    ["../outside.txt", "/etc/hostname", "text/../../outside.txt", "a\\b", "", ".", "a//b", "a\0b", MANIFEST_FILE],
)
def test_no_name_leaves_the_release(tmp_path: Path, name: str) -> None:
    sealed(tmp_path / "a")
    (tmp_path / "outside.txt").write_text("content of coarse")
    edited(tmp_path / "a", lambda m: m["parts"][0].update(file=name))
    with pytest.raises(IntegrityError):
        verify(tmp_path / "a")
    with pytest.raises(InputError):
        ReleaseBuilder(tmp_path / "b").path(name)


def test_a_consistent_swap_of_index_and_manifest_is_caught_by_the_seal(tmp_path: Path) -> None:
    seal = sealed(tmp_path / "a").sha256
    swapped = sealed(tmp_path / "b", index=b"hostile")
    assert verify(tmp_path / "b").id == swapped.id
    with pytest.raises(IntegrityError, match="registered"):
        verify(tmp_path / "b", seal=seal)


def test_a_folder_without_manifest_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        verify(tmp_path)


def test_a_builder_takes_each_name_and_file_once_and_only_what_exists(tmp_path: Path) -> None:
    builder = ReleaseBuilder(tmp_path / "a")
    with pytest.raises(NotFoundError):
        builder.add("model", "model.txt")
    (tmp_path / "elsewhere.txt").write_text("trees")
    builder.add("model", "model.txt", source=tmp_path / "elsewhere.txt")
    for name, file in (("model", "other.txt"), ("other", "model.txt")):
        with pytest.raises(InputError):
            builder.add(name, file, source=tmp_path / "elsewhere.txt")


def test_a_builder_does_not_seal_a_file_nobody_added(tmp_path: Path) -> None:
    builder = ReleaseBuilder(tmp_path / "a")
    builder.path("forgotten.txt").write_text("x")
    with pytest.raises(IntegrityError, match="forgotten"):
        builder.seal(as_of=AS_OF, code_version="1", tables={}, settings={})


def test_the_code_version_is_that_of_the_source_files_alone(tmp_path: Path) -> None:
    import rolecall.platform

    linked = Path(next(iter(rolecall.platform.__path__))).parent
    unpacked = tmp_path / "site-packages" / "rolecall"
    for area in AREAS:
        shutil.copytree(linked / area, unpacked / area, ignore=shutil.ignore_patterns("__pycache__"))
    assert code_version(linked) == code_version(unpacked) == code_version()
    (unpacked / "platform" / "__pycache__").mkdir()
    (unpacked / "platform" / "__pycache__" / "x.py").write_text("cached")
    assert code_version(unpacked) == code_version()
    with (unpacked / "platform" / "errors.py").open("a") as stream:
        stream.write("\n")
    assert code_version(unpacked) != code_version()
