"""The README's code blocks do what it says, in its order, on a small world."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from rolecall.pipelines.demo import http_server
from rolecall.platform.registry import Registry
from rolecall.platform.settings import Settings, load_settings

from .conftest import SMALL, World, small_settings

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Block:
    language: str
    text: str


def blocks(*languages: str) -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    return [Block(language=language, text=text) for language, text in found if language in languages]


@pytest.fixture(scope="module")
def home(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to type the README's commands in, whose `.rolecall` is a small served world."""
    folder = tmp_path_factory.mktemp("readme")
    settings = world.copy(folder / ".rolecall")
    registry = Registry.from_settings(settings)
    if registry.reconcile() is None:
        registry.promote(world.result.release_id, expected=None, why="test", gated=False)
    write_example(folder)
    return folder


def write_example(folder: Path) -> None:
    """The export and the mapping that the README shows."""
    (folder / "export").mkdir()
    postings, clicks = (block.text for block in blocks("csv"))
    (folder / "export" / "postings.csv").write_text(postings)
    (folder / "export" / "clicks.csv").write_text(clicks)
    (folder / "board.toml").write_text(next(block.text for block in blocks("toml") if "[[table]]" in block.text))


def run(command: list[str], folder: Path, home: Path, told: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | SMALL | {"ROLECALL_HOME": str(home)}
    return subprocess.run(
        command, cwd=folder, env=environment, input=told, capture_output=True, text=True, timeout=600, check=False
    )


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.text.splitlines()]
    return [line for line in lines if line]


def test_every_make_target_it_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert {"demo", "test", "check"} <= named
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in named)


TYPED = """
import json, os, sys
from rolecall.platform.cli import main

for line, arguments, home in json.load(sys.stdin):
    os.environ["ROLECALL_HOME"], sys.argv = home, ["rolecall", *arguments]
    print(">>>", line, flush=True)
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{line}: exit code {end.code}")
"""
"""One process types them all: starting Python a dozen times would take two minutes."""


def test_every_rolecall_command_runs(home: Path, tmp_path: Path) -> None:
    typed = [line for line in commands() if line.startswith("rolecall ")]
    assert len(typed) >= 5
    # The example's tables go to a home of their own; everything else asks the served world.
    homes = [tmp_path / "mine" if " ingest " in f"{line} " else home / ".rolecall" for line in typed]
    arguments = [[part.strip('"') for part in re.findall(r'"[^"]*"|\S+', line)[1:]] for line in typed]
    told = json.dumps(list(zip(typed, arguments, map(str, homes), strict=True)))
    done = run([sys.executable, "-c", TYPED], home, home / ".rolecall", told)
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert [f">>> {line}" for line in typed] == [line for line in done.stdout.splitlines() if line.startswith(">>>")]
    assert done.stdout.count("2 rows = 2 accepted + 0 duplicate + 0 quarantined") == 2


def test_the_python_block_ranks_from_the_registry(home: Path) -> None:
    for block in blocks("python"):
        done = run([sys.executable, "-c", block.text], home, home / ".rolecall")
        assert done.returncode == 0, done.stderr[-3000:]
        assert "job-" in done.stdout


def test_the_settings_it_shows_are_settings(tmp_path: Path) -> None:
    shown = [block.text for block in blocks("toml") if "[[table]]" not in block.text]
    assert shown
    for text in shown:
        file = tmp_path / "rolecall.toml"
        file.write_text(text)
        loaded: Settings = load_settings(file, environ={})
        section, values = next(iter(tomllib.loads(text).items()))
        assert getattr(loaded, section).model_dump() | values == getattr(loaded, section).model_dump()


@pytest.mark.slow
def test_the_http_requests_are_answered(home: Path) -> None:
    with http_server(small_settings(home / ".rolecall")) as url:
        for block in blocks("http"):
            request, body = block.text.split("\n", 1)
            method, path = request.split()
            answer = httpx.request(method, url + path, json=json.loads(body), timeout=60.0)
            assert answer.status_code in (200, 202), answer.text
