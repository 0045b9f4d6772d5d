"""Which implementation runs, and what is said when the one asked for cannot."""

from __future__ import annotations

import runpy
import subprocess
import sys

import pytest
import torch

from rolecall.kernels import dispatch
from rolecall.kernels.dispatch import HAS_TRITON, INTERPRETED, choose, possible, register

X = torch.zeros(2, 3)


def yes() -> bool:
    return True


def no() -> bool:
    return False


@pytest.mark.parametrize("backend", [None, "auto"])
def test_on_the_cpu_compiled_code_is_preferred_to_torch_and_the_interpreter_is_never_chosen(
    backend: str | None,
) -> None:
    assert choose("op", X, backend) == "torch"
    assert choose("op", X, backend, cpp=yes) == "cpp"
    assert choose("op", X, backend, cpp=no) == "torch"


def test_a_backend_is_forced_by_its_name() -> None:
    assert choose("op", X, "torch", cpp=yes) == "torch"
    assert choose("op", X, "cpp", cpp=yes) == "cpp"
    if INTERPRETED:
        assert choose("op", X, "triton") == "triton"


@pytest.mark.parametrize("backend", ["cuda", "", "Triton"])
def test_an_unknown_backend_is_refused_with_those_that_are_possible(backend: str) -> None:
    with pytest.raises(ValueError, match=r"possible here .*torch"):
        choose("op", X, backend)


def test_a_backend_that_cannot_run_is_refused() -> None:
    with pytest.raises(ValueError, match="possible here"):
        choose("op", X, "cpp")
    with pytest.raises(ValueError, match="possible here"):
        choose("op", X, "cpp", cpp=no)
    with pytest.raises(ValueError, match="possible here"):
        choose("op", X, "triton", triton_takes=False)


def test_what_needs_a_gradient_is_left_to_torch() -> None:
    x, weight = X.clone().requires_grad_(), torch.zeros(3, requires_grad=True)
    assert choose("op", x, cpp=yes) == "torch"
    assert choose("op", X, cpp=yes, weights=(None, weight)) == "torch"
    with pytest.raises(ValueError, match="need a gradient"):
        choose("op", x, "cpp", cpp=yes)
    with torch.no_grad():
        assert choose("op", x, cpp=yes) == "cpp"


def test_torch_is_always_possible_and_named_last() -> None:
    assert possible(X)[-1] == "torch"
    assert possible(X, cpp=yes, triton_takes=False) == ["cpp", "torch"]


def test_a_registered_operator_is_called_in_a_full_graph() -> None:
    def double(x: torch.Tensor, out: torch.Tensor) -> None:
        torch.mul(x, 2, out=out)

    operator = register("test_double", double)

    def model(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        operator(x, out)
        return out + 1

    x = torch.arange(4.0)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert compiled(x).tolist() == [1.0, 3.0, 5.0, 7.0]
    torch.library.opcheck(operator, (x, torch.empty(4)))


def test_without_triton_every_kernel_module_still_imports() -> None:
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'triton' else find(name, *a)\n"
        "from pathlib import Path\n"
        "import rolecall.kernels.dispatch as d, importlib\n"
        "names = sorted(file.stem for file in Path(d.__file__).parent.glob('*.py'))\n"
        "for name in names: importlib.import_module('rolecall.kernels.' + name)\n"
        "import torch; assert d.possible(torch.zeros(1)) == ['torch'] and not d.HAS_TRITON\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")
@pytest.mark.parametrize(("said", "used"), [("1", True), ("0", False)])
def test_the_interpreter_is_used_when_the_environment_asks_for_it(
    said: str, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", said)
    assert runpy.run_path(dispatch.__file__)["INTERPRETED"] is used
