"""The image's Dockerfile, as far as it can be judged without building it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch

import pytest

from rolecall.platform.release import AREAS

from .manifests import INFRA, ROOT, manifests, pods

FILE = INFRA / "image/Dockerfile"
IGNORED = INFRA / "image/Dockerfile.dockerignore"


def instructions() -> list[tuple[str, str]]:
    """The instructions in order: word and the rest, continued lines joined."""
    lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined) if word]


def copied() -> Iterator[str]:
    """What is copied from the repository."""
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            yield from rest.split()[:-1]


def test_every_file_that_is_copied_exists_and_is_sent_to_the_builder() -> None:
    allowed = [line[1:] for line in IGNORED.read_text().splitlines() if line.startswith("!")]
    assert sorted(copied()) == sorted(allowed)
    assert all((ROOT / source).exists() for source in copied())


def test_every_area_is_in_the_image() -> None:
    assert set(AREAS) <= set(copied())


def test_everything_is_installed_from_the_committed_locks() -> None:
    installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    environment = " ".join(rest for word, rest in instructions() if word == "ENV")
    assert "PIP_CONSTRAINT=/src/requirements.lock" in environment
    assert any("--no-deps -r requirements-data.lock" in rest for rest in installs)
    assert any("'.[cluster]'" in rest for rest in installs)
    assert not any("-U" in rest or "--upgrade" in rest for rest in installs)


def test_torch_is_the_version_of_the_makefile_built_for_cpus() -> None:
    (torch,) = re.findall(r"^TORCH\s*:=\s*(\S+)$", (ROOT / "Makefile").read_text(), re.M)
    assert any(f"pip install {torch} " in rest and "/cpu " in rest for word, rest in instructions())


def test_python_is_the_one_that_the_lock_was_made_for() -> None:
    (version,) = set(re.findall(r"^FROM python:(\d+\.\d+)-slim", FILE.read_text(), re.M))
    assert f"CPython {version}" in (ROOT / "requirements.lock").read_text().partition("\naiohappyeyeballs")[0]


def test_it_runs_as_the_user_that_pods_run_as() -> None:
    words = [word for word, _ in instructions()]
    last = instructions()[len(words) - 1 - words[::-1].index("USER")][1]
    assert words[::-1].index("USER") < words[::-1].index("FROM")
    assert {pod["securityContext"]["runAsUser"] for m in manifests() for pod in pods(m)} == {int(last)}
    assert int(last) != 0


@pytest.mark.parametrize("word", ["ARG", "ENV", "RUN"])
def test_no_credential_is_in_the_image(word: str) -> None:
    secret = re.compile(r"password|secret|token|api_key|access_key", re.I)
    assert [rest for found, rest in instructions() if found == word and secret.search(rest)] == []
    assert not any(fnmatch(source, pattern) for source in copied() for pattern in (".env*", "*.pem", ".git"))


def test_the_tag_of_the_example_is_this_version() -> None:
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert f"-t rolecall:{version} ." in FILE.read_text()
