"""The folders named `platform` and `kernels` never win over the modules that other packages look for."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AREAS = ("platform", "pipelines", "serving", "features", "kernels")


def tracked_source_files() -> set[str]:
    """Files that belong into a distribution, as paths below the package."""
    return {
        path.relative_to(ROOT).as_posix()
        for area in AREAS
        for path in (ROOT / area).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_no_area_folder_is_a_regular_package() -> None:
    for area in AREAS:
        assert not (ROOT / area / "__init__.py").exists()
        assert (ROOT / area / "py.typed").exists()
        assert (ROOT / "infra/import_root/rolecall" / area).is_symlink()


def test_standard_library_and_transformers_win_at_the_root() -> None:
    program = (
        "import sys, platform, uuid; assert hasattr(platform, 'python_version'), platform.__file__;"
        "import ray, transformers; print(platform.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout


def test_llama_cpp_does_not_get_in_by_default() -> None:
    done = subprocess.run([sys.executable, "-c", "import llama_cpp"], capture_output=True, check=False)
    assert done.returncode != 0


@pytest.mark.slow
def test_sdist_and_wheel_hold_exactly_the_tree(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    (sdist,) = tmp_path.glob("*.tar.gz")
    expected = tracked_source_files()
    with zipfile.ZipFile(wheel) as archive:
        inside = {name.removeprefix("rolecall/") for name in archive.namelist() if name.startswith("rolecall/")}
    assert inside == expected
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert expected <= names
