"""Every stage of dvc.yaml depends on the code that makes its outputs, so that an edit there reruns it."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PLUMBING = {
    f"geoloc_core{name}"
    for name in (
        "", ".cli", ".errors", ".files", ".params", ".pins", ".plots", ".plugins", ".progress", ".project", ".threads",
        ".training.tracking", ".yamls",
    )
}  # fmt: skip
"""What every stage runs through and no output depends on."""

NOT_FOLLOWED = {
    # what draws the contact sheet or finds land to crawl: no reason to fetch, and pay, again; the world is the `path`
    # of the corpora it renders
    "fetch": (
        "corpora.sources",
        "corpora.decode",
        "pictures",
        "corpora.on_disk",
        "corpora.photo",
        "corpora.world",
        "geo",
    ),
    "encode": ("encoders.alone",),  # is of pairs outside the stages
    "label": ("geo.sources",),  # make the boundaries, which label only reads
}
"""Rooms that a subcommand's imports lead to and its outputs do not depend on."""


def file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file()), None)


def imported(tree: ast.AST) -> set[str]:
    """The project's modules that code imports or, as the plug-in rooms are, names in a string."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("geoloc_core."):
            room = ROOT.joinpath(*node.value.split("."))
            found |= {f"{node.value}.{path.stem}" for path in room.glob("*.py")} if room.is_dir() else set()
    return {module for module in found if module.startswith("geoloc_core") and file_of(module)}


def code_of(command: str) -> set[Path]:
    """Every file that a subcommand's function leads to, but for the plumbing."""
    functions = {
        node.name: node
        for node in ast.parse((ROOT / "geoloc_core/cli.py").read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    todo, seen = imported(functions[command.replace("-", "_")]), set[str]()
    closed = tuple(f"geoloc_core.{room}" for room in NOT_FOLLOWED.get(command, ()))
    while todo:
        module = todo.pop()
        if module not in seen | PLUMBING and not module.startswith(closed):
            seen.add(module)
            todo |= imported(ast.parse(file_of(module).read_text()))
    # a room's own __init__.py is empty, or says what the room is for, unless it is code
    files = {file_of(module) for module in seen}
    return {path.relative_to(ROOT) for path in files if len(ast.parse(path.read_text()).body) > 1}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_its_code(stage):
    block = STAGES[stage].get("do", STAGES[stage])
    code = code_of(block["cmd"].split()[1])
    deps = [Path(dep) for dep in block["deps"] if dep.startswith("geoloc_core")]
    assert code
    assert not {str(path) for path in code if not any(path.is_relative_to(dep) for dep in deps)}, "missing from deps"
    assert not {str(dep) for dep in deps if not any(path.is_relative_to(dep) for path in code)}, "nothing leads to it"
