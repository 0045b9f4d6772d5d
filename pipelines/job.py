"""What a Ray job runs: `python -m rolecall.pipelines.job daily --as-of 2026-11-22`.

Needs no installed distribution, only `PYTHONPATH=infra/import_root`, and answers like `rolecall run daily --json`.
"""

from __future__ import annotations

import sys

import typer

from rolecall.pipelines import commands
from rolecall.platform.console import fail
from rolecall.platform.errors import RoleCallError
from rolecall.platform.telemetry import configure_logging


def main(arguments: list[str]) -> int:
    """Run one pipeline; returns the exit code."""
    configure_logging("warning")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(commands.run)
    try:
        app(arguments, standalone_mode=False)
    except RoleCallError as error:
        return fail(error, as_json="--json" in arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
