"""`rolecall bench`: what it prints, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from rolecall.kernels import planner, roofline
from rolecall.platform.cli import build
from rolecall.platform.errors import InputError

WORDS = ["bench", "kernels", "--op", "softmax", "--turns", "1"]


@pytest.fixture(autouse=True)
def quickly_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The roofline from buffers that take no time; everything else is as it is."""
    measure = roofline.measure
    monkeypatch.setattr(roofline, "measure", lambda device: measure(device, size=2**16, edge=32, turns=1))


def test_the_table_names_achieved_limit_and_percentage() -> None:
    done = CliRunner().invoke(build(), WORDS, catch_exceptions=False)
    assert done.exit_code == 0
    for word in ("achieved", "limit", "% of limit", "softmax", "copy bandwidth", "GB/s"):
        assert word in done.output


def test_json_holds_the_same_for_programs() -> None:
    done = CliRunner().invoke(build(), [*WORDS, "--json"], catch_exceptions=False)
    document = json.loads(done.stdout)
    assert {one["op"] for one in document["operators"]} == {"softmax"}
    assert document["operators"][0]["percent"] > 0
    assert document["roofline"]["bytes_per_s"]["copy"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("command", ["kernels", "plan"])
def test_a_gpu_that_is_not_there_is_bad_input(command: str) -> None:
    with pytest.raises(InputError) as refused:
        CliRunner().invoke(build(), ["bench", command, "--device", "cuda"], catch_exceptions=False)
    assert refused.value.got == "device cuda"
    assert "cpu" in refused.value.allowed
    assert "no CUDA device" in refused.value.allowed


def test_an_unknown_operator_or_device_is_bad_input() -> None:
    for words in (["--op", "sort"], ["--device", "abacus"]):
        with pytest.raises(InputError):
            CliRunner().invoke(build(), ["bench", "kernels", *words], catch_exceptions=False)


def test_a_plan_says_what_it_predicts_and_a_check_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = planner.calibrate
    monkeypatch.setattr(
        planner, "calibrate", lambda *given: costs(*given, items=64, turns=1, probes=planner.PROBES[:4])
    )
    words = ["bench", "plan", "--items", "200", "--memory-mb", "2", "--latency-ms", "500", "--count", "2", "--check"]
    first, second = json.loads(CliRunner().invoke(build(), [*words, "--json"], catch_exceptions=False).stdout)[
        "proposals"
    ]
    assert 0 < first["predicted ms"] <= 500
    assert 0 < first["predicted bytes"] <= 2e6
    assert first["measured ms"] > 0
    assert set(first) - set(second) == {"measured ms"}
    with pytest.raises(InputError, match=r"in 0\.001 MB"):
        CliRunner().invoke(build(), [*words, "--memory-mb", "0.001"], catch_exceptions=False)
