"""The compiled operators: built with the compiler at hand on first use, kept for the next process, loaded with ctypes.

The sources beside this file become one shared library below the user's cache folder (`$XDG_CACHE_HOME` or
`~/.cache`, then `rolecall/kernels`), named by a hash of the sources, the compiler and the processor's flags: another
machine that shares the home folder builds its own. A build is written beside its name and moved there, so no
process sees half of one; those that come while it is built wait for it. Where nothing can be built
`library()` is None, one line is logged, and the operators run in torch.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from ctypes import c_float, c_int, c_int64, c_uint32, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-pthread", "-ffp-contract=off", "-w")
COMPILERS = ("c++", "g++", "clang++")
LIMIT_SECONDS = 300

_P, _I, _J, _F = c_void_p, c_int64, c_int, c_float

# What each function of the library returns and takes.
SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "weight_only_linear": (None, (_P, _P, _I, _P, _I, _I, _I, _I, _J, _J)),
    "weight_rows": (None, (_P, _P, _P, _I, _I, _I, _J)),
    "int8_gemm": (None, (_P, _I, _P, _P, _I, _P, _P, _I, _I, _I, _I, _J)),
    "int8_topk": (None, (_P, _I, _P, _I, _I, _P, _P, _I, _P, _I, _I, _P, _P, _J)),
    "int8_rescore": (None, (_P, _I, _P, _I, _P, _P, _I, _P, _I, _I, _P, _P, _J)),
    "rms_norm": (None, (_P, _I, _P, _I, _P, _I, _P, _P, _I, _I, _I, _F, _J)),
    "swiglu": (None, (_P, _I, _P, _I, _P, _I, _I, _I, _J)),
    "rope_and_cache": (None, (_P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _P, _I, _I, _I, _I, _I, _I, _J, _J)),
    "paged_attention": (None, (_P, _P, _P, _P, _P, _P, _P, _P, _I, _I, _I, _I, _I, _I, _I, _F, _J)),
    "greedy": (None, (_P, _I, _P, _I, _I, _J)),
    "replay": (None, (_P, _I)),
    "read_bytes": (c_uint32, (_P, _I, _J)),
    "int8_rate": (c_int64, (_I, _J)),
}

_log = logging.getLogger(__name__)


class Library:
    """The functions of the library, twice: `brief` keeps Python's lock, `lasting` gives it up while it computes.

    Giving the lock up costs more than a small product when another thread wants it: the way back can take a switch
    interval (5 ms).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.brief = _declared(ctypes.PyDLL(str(path)))
        self.lasting = _declared(ctypes.CDLL(str(path)))


def functions(*, brief: bool) -> Any:
    """The library's functions, where `available()`: those that keep Python's lock for a brief call, else the others."""
    loaded: Any = library()
    return loaded.brief if brief else loaded.lasting


@cache
def library() -> Library | None:
    """The compiled operators, built if they must be; None, after one warning, where they cannot be."""
    try:
        return load(cache_folder())
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        _log.warning("no compiled operators, so CPU products run in torch, several times slower: %s", reason)
        return None


def available() -> bool:
    """Whether the compiled operators can run here."""
    return library() is not None


def load(folder: Path) -> Library:
    """The library kept in `folder`, built there first where it is missing or does not load.

    Raises RuntimeError without a compiler or where the build fails, OSError where `folder` cannot be used.
    """
    compiler = find_compiler()
    path = folder / f"operators-{fingerprint(compiler)}.so"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            build(compiler, path)
        try:
            return Library(path)
        except (OSError, AttributeError):  # cut short by a full disk, say
            build(compiler, path)
            return Library(path)


def build(compiler: str, path: Path) -> None:
    """Compile the sources into `path`, whole or not at all. Raises RuntimeError with the compiler's words."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as folder:
        made = Path(folder) / path.name
        command = [compiler, *FLAGS, "-o", str(made), *(str(source) for source in sources() if source.suffix == ".cpp")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired as late:
            raise RuntimeError(f"{compiler} was not done after {LIMIT_SECONDS} s") from late
        if done.returncode != 0:
            raise RuntimeError(f"{compiler} failed with {done.returncode}: {done.stderr.strip()[:2000]}")
        made.replace(path)


def find_compiler() -> str:
    """Path of the C++ compiler: `$CXX`, else the first of `COMPILERS` on the path. Raises RuntimeError without one."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else list(COMPILERS)
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise RuntimeError(f"no C++ compiler: none of {', '.join(names)} is on the path; install g++ or set CXX")
    return found


def fingerprint(compiler: str) -> str:
    """Names a build: its sources, compiler, flags and processor."""
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False, timeout=60)
    parts = [compiler, said.stdout, *FLAGS, processor(), *(source.read_text() for source in sources())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def sources() -> list[Path]:
    """The C++ files, in the order of their names."""
    return sorted(path for path in HERE.iterdir() if path.suffix in (".cpp", ".h"))


def processor() -> str:
    """Architecture and instruction sets of this machine, in words."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    told = [line for line in lines if line.split(":")[0].strip() in ("flags", "Features", "model name")]
    return "\n".join([platform.machine(), *sorted(set(told))])


def cache_folder() -> Path:
    """Where builds are kept for this user; a folder of this process alone where there is no writable home."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path("~/.cache").expanduser()) / "rolecall" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError):
        return Path(tempfile.mkdtemp(prefix="rolecall-kernels-"))
    return folder if os.access(folder, os.W_OK | os.X_OK) else Path(tempfile.mkdtemp(prefix="rolecall-kernels-"))


def _declared(dll: Any) -> Any:
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(dll, name)
        function.restype, function.argtypes = result, arguments
    return dll
