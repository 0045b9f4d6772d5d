"""`rolecall bench`: what the kernels reach on this machine beside what it can do, and what it can afford."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rolecall.platform.console import Json, console, emit, errors, table
from rolecall.platform.errors import InputError

if TYPE_CHECKING:
    import torch

    from rolecall.kernels.measured import Measured
    from rolecall.kernels.planner import Proposal
    from rolecall.kernels.roofline import Roofline

app = typer.Typer(no_args_is_help=True, help="Measure this machine.")

Device = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Of the CPU; as many as torch uses by default.")]
DECIMALS = 1


@app.command()
def kernels(
    device: Device = "cpu",
    op: Annotated[list[str] | None, typer.Option("--op", help="An operator; may be repeated. Default: all.")] = None,
    turns: Annotated[int, typer.Option("--turns", min=1, help="Timed walks; the median counts.")] = 5,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Each operator's achieved bandwidth or arithmetic, the limit measured on this device, and the percentage."""
    from rolecall.kernels import measured, roofline
    from rolecall.kernels.cases import OPERATORS

    where = found_device(device, threads)
    unknown = sorted(set(op or ()) - set(OPERATORS))
    if unknown:
        raise InputError(f"operator {', '.join(unknown)}", ", ".join(OPERATORS), "name one of them with --op")
    roof = roofline.measure(where)
    found: list[Measured] = []
    for one in _told(measured.measure(where, roof, operators=tuple(op or OPERATORS), turns=turns), quiet=json):
        found.append(one)
    document = {
        "device": roof.device,
        "roofline": _rates(roof),
        "operators": [{**asdict(m), "percent": m.percent} for m in found],
    }
    emit(document, json, lambda: _print(roof, found))


@app.command()
def plan(
    items: Annotated[int, typer.Option("--items", min=1, help="Items that each query scores.")] = 10_000,
    memory: Annotated[float, typer.Option("--memory-mb", min=0.001, help="Budget, in MB of 10^6 bytes.")] = 1000.0,
    latency: Annotated[float, typer.Option("--latency-ms", min=0.001, help="Budget of a batch.")] = 50.0,
    count: Annotated[int, typer.Option("--count", min=1, help="Proposals.")] = 5,
    check: Annotated[bool, typer.Option("--check", help="Run the first proposal and say what it took.")] = False,
    device: Device = "cpu",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Sizes of a Mixture-of-Logits that fit a budget on this machine, and what they are predicted to cost."""
    from rolecall.kernels import planner, roofline
    from rolecall.kernels.case import working_dtype

    where = found_device(device, threads)
    costs = planner.calibrate(where, roofline.measure(where), working_dtype(where))
    budget = planner.Budget(items=items, memory=int(memory * 1e6), seconds=latency / 1e3)
    found = planner.propose(budget, costs, count=count)
    if not found:
        raise InputError(
            f"{items:,} items in {memory:g} MB and {latency:g} ms",
            "a budget that the smallest mixture fits",
            "allow more memory or time, or score fewer items",
        )
    rows = [_proposed(one) for one in found]
    if check:
        rows[0]["measured ms"] = 1e3 * planner.run_seconds(found[0].sizes, items, costs.dtype, where)
    title = f"Mixture-of-Logits over {items:,} items on {costs.roofline.device}"
    emit({"device": costs.roofline.device, "items": items, "proposals": rows}, json, lambda: _print_plan(title, rows))


def _proposed(one: Proposal) -> dict[str, Any]:
    sizes = one.sizes
    return {
        "dimension": sizes.dimension,
        "components": f"{sizes.query_components} x {sizes.item_components}",
        "width": sizes.width,
        "batch": sizes.batch,
        "predicted ms": 1e3 * one.seconds,
        "predicted bytes": one.bytes,
        "queries/s": one.queries_per_second,
    }


def _print_plan(title: str, rows: list[dict[str, Any]]) -> None:
    console.print(table(title, rows))


def found_device(name: str, threads: int | None) -> torch.device:
    """The device of that name, with so many threads. Raises InputError for one that is not there."""
    import torch

    from rolecall.kernels.roofline import check_device

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        device = torch.device(name)
        check_device(device)
    except (ValueError, RuntimeError) as error:
        got, _, allowed = str(error).partition("; allowed here: ")
        raise InputError(
            got.removeprefix("got "),
            allowed or "cpu, cuda, cuda:N",
            "run it where that device is, or with --device cpu",
        ) from error
    return device


def _told(found: Iterator[Measured], *, quiet: bool) -> Iterator[Measured]:
    for one in found:
        if not quiet:
            errors.print(f"{one.op} {one.shape}: {one.percent:.0f}% of its limit")
        yield one


def _rates(roof: Roofline) -> dict[str, dict[str, float]]:
    return {
        "bytes_per_s": {str(kind): rate for kind, rate in roof.bandwidth.items()},
        "operations_per_s": {str(kind): rate for kind, rate in roof.peak.items()},
    }


def _print(roof: Roofline, found: list[Measured]) -> None:
    rates = [{"rate": f"{kind} bandwidth", "": f"{rate / 1e9:,.1f} GB/s"} for kind, rate in roof.bandwidth.items()]
    rates += [{"rate": f"{kind} products", "": f"{rate / 1e9:,.0f} Gop/s"} for kind, rate in roof.peak.items()]
    console.print(table(f"Measured on {roof.device}", rates))
    console.print(table("Operators, inputs from memory", [_row(one) for one in found]))


def _row(one: Measured) -> dict[str, Any]:
    return {
        "operator": one.op,
        "shape": one.shape,
        "ms": f"{one.seconds * 1e3:,.3f}",
        "achieved": f"{one.achieved:,.{DECIMALS}f} {one.unit}",
        "limit": f"{one.possible:,.{DECIMALS}f} {one.unit} ({one.bound})",
        "% of limit": f"{one.percent:.{DECIMALS}f}",
    }
