"""The `rolecall` command. The areas above add their own commands through the entry points of group
`rolecall.commands`, so that this module imports none of them."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import click
import typer

from rolecall.platform import cli_releases
from rolecall.platform.console import EXIT_FAILED, Json, console, emit, errors, fail, table
from rolecall.platform.errors import RoleCallError
from rolecall.platform.settings import load_settings
from rolecall.platform.telemetry import configure_logging

COMMANDS = "rolecall.commands"


def build() -> typer.Typer:
    """The whole command line, with the commands of every installed area."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Recommend jobs to people: ingest, train, gate, release and serve.",
    )
    app.command()(doctor)
    app.add_typer(cli_releases.app, name="releases")
    for entry in sorted(entry_points(group=COMMANDS), key=lambda entry: entry.name):
        entry.load()(app)
    return app


def doctor(json: Json = False) -> None:
    """Check this machine and print the resolved settings; exit code 1 where something required is missing."""
    from rolecall.platform.doctor import healthy, resolved_settings, run_checks

    settings = load_settings()
    checks = run_checks(settings)
    rows = [{"check": c.name, "": _mark(c.ok, c.required), "detail": c.detail, "fix": c.fix} for c in checks]
    resolved = [{"setting": name, "value": value} for name, value in resolved_settings(settings).items()]

    def render() -> None:
        console.print(table("Checks", rows))
        console.print(table("Settings (rolecall.toml, ROLECALL_* variables)", resolved))

    emit({"checks": rows, "settings": resolved, "healthy": healthy(checks)}, json, render)
    if not healthy(checks):
        raise typer.Exit(EXIT_FAILED)


def _mark(ok: bool, required: bool) -> str:
    return "ok" if ok else ("MISSING" if required else "note")


def main() -> None:
    """Entry point: runs a command, answers errors of RoleCall with a message and an exit code, never a traceback."""
    configure_logging("warning")
    try:
        code = build()(standalone_mode=False) or 0
    except RoleCallError as error:
        code = fail(error, as_json="--json" in sys.argv)
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        errors.print("stopped")
        code = EXIT_FAILED
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
