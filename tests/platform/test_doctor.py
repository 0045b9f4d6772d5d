"""What the doctor finds, and that a finding is never an exception."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from rolecall.platform.doctor import (
    Check,
    check_compiler,
    check_data_packages,
    check_disk,
    check_home,
    check_memory,
    check_packages,
    check_ports,
    check_python,
    check_services,
    healthy,
    resolved_settings,
    run_checks,
)
from rolecall.platform.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(environ={}, home=tmp_path / "home")


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        opened.listen()
        yield opened.getsockname()[1]


def with_(settings: Settings, **parts: dict[str, object]) -> Settings:
    return load_settings(environ={}, home=settings.home, **parts)


def test_every_failed_check_says_what_to_do(settings: Settings) -> None:
    checks = run_checks(settings)
    assert {"python", "home", "disk"} <= {check.name for check in checks}
    assert all(check.fix for check in checks if not check.ok)


def test_only_required_checks_make_a_machine_unfit() -> None:
    note = Check(name="a", ok=False, detail="", required=False)
    assert healthy([note, Check(name="b", ok=True, detail="")])
    assert not healthy([note, Check(name="c", ok=False, detail="")])


def test_an_old_python_is_refused() -> None:
    assert not check_python((3, 10)).ok
    assert check_python((3, 11)).ok
    assert check_python((3, 12)).ok


def test_versions_are_held_against_floors_and_caps() -> None:
    have = {"ray": "2.60.0", "numpy": "2.4.6", "torch": "2.13.0+cpu"}

    def installed(name: str) -> str:
        if name not in have:
            raise PackageNotFoundError(name)
        return have[name]

    needs = [Requirement(text) for text in ("ray>=2.60,<2.61", "numpy<2.4", "torch>=2.13", "feast>=0.67")]
    found = {check.name: check for check in check_packages(needs, installed)}
    assert set(found) == {"package numpy", "package feast"}
    assert not any(check.ok for check in found.values())
    (fine,) = check_packages(needs[:1], installed)
    assert fine.ok


def test_a_source_tree_that_is_not_installed_is_a_note() -> None:
    (note,) = check_packages(None)
    assert not note.ok
    assert not note.required


def test_a_home_that_can_be_written_is_left_as_it_was_found(tmp_path: Path) -> None:
    assert check_home(tmp_path / "new" / "home").ok
    assert list((tmp_path / "new" / "home").iterdir()) == []


def test_a_home_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = check_home(tmp_path / "file" / "home")
    assert not check.ok
    assert check.required


def test_a_full_disk_and_a_small_machine_are_found(tmp_path: Path) -> None:
    assert not check_disk(tmp_path / "missing", lambda _: SimpleNamespace(free=1e9)).ok
    assert check_disk(tmp_path / "missing", lambda _: SimpleNamespace(free=9e9)).ok
    assert not check_memory(lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 500_000}[name]).ok


def test_any_of_the_usual_compilers_will_do() -> None:
    assert check_compiler(lambda name: "/usr/bin/clang++" if name == "clang++" else None).ok
    missing = check_compiler(lambda name: None)
    assert not missing.ok
    assert not missing.required


def test_a_taken_port_is_noted_with_its_number(settings: Settings, listener: int) -> None:
    taken = {c.name: c for c in check_ports(with_(settings, serve={"port": listener}))}["port serve"]
    assert not taken.ok
    assert not taken.required
    assert str(listener) in taken.detail


def test_without_haproxy_its_ports_are_not_looked_at(settings: Settings) -> None:
    names = [check.name for check in check_ports(with_(settings, ray={"haproxy": False}))]
    assert names == ["port serve"]


def test_a_service_that_answers_is_told_from_one_that_does_not(settings: Settings, listener: int) -> None:
    here = with_(settings, vectors={"backend": "server", "url": f"http://127.0.0.1:{listener}"})
    found = {check.name: check for check in check_services(here)}
    assert found["qdrant"].ok
    assert "untested" in found["qdrant server"].detail
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = with_(settings, vectors={"backend": "server", "url": f"http://127.0.0.1:{free.getsockname()[1]}"})
        assert not {check.name: check for check in check_services(gone)}["qdrant"].ok


@pytest.mark.parametrize("url", ["", "nonsense", "http://host:notaport", "ftp://host"])
def test_a_url_without_a_place_to_connect_to_is_a_finding(settings: Settings, url: str) -> None:
    checks = {c.name: c for c in check_services(with_(settings, vectors={"backend": "server", "url": url}))}
    assert not checks["qdrant"].ok


def test_an_embedder_folder_that_is_missing_is_found(settings: Settings, tmp_path: Path) -> None:
    gone = with_(settings, embedder={"model": str(tmp_path / "gone")})
    assert not {c.name: c for c in check_data_packages(gone)}["embedder"].ok


def test_resolved_settings_name_every_value_and_show_no_secret(settings: Settings) -> None:
    secret = "s3cr3t"
    shown = resolved_settings(
        with_(
            settings,
            vectors={"api_key": secret},
            serve={"api_keys": [secret]},
            storage={"options": {"AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": "eu"}},
            registry={"ledger_url": f"postgresql://user:{secret}@db:5432/ledger"},
        )
    )
    assert secret not in str(shown)
    assert shown["registry.ledger_url"] == "postgresql://***@db:5432/ledger"
    assert shown["storage.options.AWS_REGION"] == "eu"
    assert shown["serve.port"] == "8000"
    assert shown["embedder.max_tokens"] == "64"
