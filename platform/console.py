"""What the command line prints: Rich for people on a terminal, one JSON document for programs (`--json`)."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rolecall.platform.errors import InputError, NotFoundError, RoleCallError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2

WIDTH = shutil.get_terminal_size((140, 40)).columns
"""Of the terminal; a file or a pipe is given 140 columns, so that tables stay whole."""

console = Console(highlight=False, width=WIDTH)
errors = Console(stderr=True, highlight=False, width=WIDTH)


def emit(document: Any, as_json: bool, render: Callable[[], None]) -> None:
    """Print `document` as JSON where asked for, else call `render`."""
    if as_json:
        sys.stdout.write(json.dumps(document, default=str, indent=2) + "\n")
    else:
        render()


def table(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> Table:
    """A Rich table of rows that share their keys; floats with four digits."""
    names = list(columns or (rows[0] if rows else []))
    grid = Table(title=title, title_justify="left", title_style="bold")
    for name in names:
        numeric = bool(rows) and isinstance(rows[0].get(name), int | float)
        grid.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        grid.add_row(*(_cell(row.get(name)) for name in names))
    return grid


def fail(error: RoleCallError, as_json: bool = False) -> int:
    """Print an error and return the exit code it deserves: 2 for what the caller can mend, 1 otherwise."""
    if as_json:
        document = {"error": type(error).__name__, "got": error.got, "allowed": error.allowed, "next": error.todo}
        sys.stderr.write(json.dumps(document) + "\n")
    else:
        errors.print(f"[bold red]{type(error).__name__}[/]: {error.got}", soft_wrap=True)
        for label, text in (("Allowed", error.allowed), ("Next", error.todo)):
            if text:
                errors.print(f"  {label}: {text}", soft_wrap=True, markup=False)
    return EXIT_BAD_INPUT if isinstance(error, InputError | NotFoundError) else EXIT_FAILED


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
