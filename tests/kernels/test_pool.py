"""The threads of the compiled operators: every chunk of every job is computed once, however late a thread wakes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rolecall.kernels.cpp import build

COUNTED = """
#include <cstdio>
#include <cstdlib>

#include "pool.h"

int main(int, char** arguments) {
    std::atomic<int> times[8];
    int wrong = 0;
    for (int job = 0; job < 300000; job++) {
        const int chunks = 2 + job % 5;
        for (auto& each : times) each = 0;
        Pool::run(std::atoi(arguments[1]), chunks, [&](int64_t chunk) { times[chunk & 7]++; });
        for (int i = 0; i < 8; i++) wrong += times[i] != (i < chunks);
    }
    std::printf("%d", wrong);
    std::fflush(stdout);
    _exit(0);
}
"""


@pytest.mark.skipif(not build.available(), reason="needs a C++ compiler")
def test_no_thread_that_wakes_between_two_small_jobs_computes_a_chunk_of_either_again(tmp_path: Path) -> None:
    (tmp_path / "counted.cpp").write_text(COUNTED)
    made = tmp_path / "counted"
    command = [build.find_compiler(), "-O2", "-std=c++17", "-pthread", f"-I{build.HERE}", "-o", str(made)]
    subprocess.run([*command, str(tmp_path / "counted.cpp")], check=True, timeout=120)
    for threads in ("2", "4"):
        assert subprocess.run([made, threads], capture_output=True, check=True, timeout=120).stdout == b"0"
