"""The areas import each other in one direction only, and no module imports itself through others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "kernels": set(),
    "platform": set(),
    "features": {"platform", "kernels"},
    "serving": {"features", "platform", "kernels"},
    "pipelines": {"serving", "features", "platform", "kernels"},
}
SERVING_SHELL = {"rolecall.serving.api", "rolecall.serving.app", "rolecall.serving.follow", "rolecall.serving.commands"}


def module_name(path: Path) -> str:
    return "rolecall." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules() -> dict[str, Path]:
    return {module_name(path): path for area in MAY_IMPORT for path in sorted((ROOT / area).rglob("*.py"))}


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module of ours that is imported, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("rolecall."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rolecall"):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top_level_imports(tree: ast.Module) -> Iterator[str]:
    """What is imported when the module itself is; names under `if TYPE_CHECKING` are not."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(ast.Module(body=[node], type_ignores=[]))


def back_edges(sources: dict[str, str]) -> list[str]:
    found = []
    for name, source in sources.items():
        area = name.split(".")[1]
        for target in imports(ast.parse(source)):
            parts = target.split(".")
            other = parts[1] if len(parts) > 1 else ""
            if other in MAY_IMPORT and other != area and other not in MAY_IMPORT[area]:
                found.append(f"{name} imports {target}")
            if area == "pipelines" and target in SERVING_SHELL:
                found.append(f"{name} imports the serving shell {target}")
    return found


def circles(sources: dict[str, str]) -> list[str]:
    graph = {
        name: {target for target in top_level_imports(ast.parse(source)) if target in sources and target != name}
        for name, source in sources.items()
    }
    done: set[str] = set()
    found: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            found.append(" -> ".join((*path[path.index(name) :], name)))
            return
        if name in done:
            return
        for target in sorted(graph[name]):
            visit(target, (*path, name))
        done.add(name)

    for name in graph:
        visit(name, ())
    return found


def test_no_area_imports_against_the_direction() -> None:
    sources = {name: path.read_text() for name, path in modules().items()}
    assert len(sources) > 10
    assert back_edges(sources) == []


def test_no_module_imports_itself_through_others() -> None:
    assert circles({name: path.read_text() for name, path in modules().items()}) == []


def test_a_back_edge_and_a_circle_would_be_found() -> None:
    planted = {
        "rolecall.platform.a": "def f():\n    from rolecall.serving import funnel",
        "rolecall.pipelines.b": "from rolecall.serving.app import run_server",
        "rolecall.features.c": "import rolecall.features.d",
        "rolecall.features.d": "from rolecall.features import c",
    }
    assert len(back_edges(planted)) >= 2
    assert circles(planted)
