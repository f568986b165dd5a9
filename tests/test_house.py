"""The house: which way the arrows point between its rooms, and that there is no circle."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    path.relative_to(ROOT): path
    for folder in ("mmscratch", "chapters")
    for path in (ROOT / folder).rglob("*.py")
}
FIRST = {"text", "images", "audio", "tables"}  # what comes in


def imports(path: Path) -> set[Path]:
    """The files of the project that a file imports at its top, and where an import names a package, the package's."""
    found = set()
    for node in ast.parse(FILES[path].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if node.level else Path()
            module = base / (node.module or "").replace(".", "/")
            names = [module, *(module / alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [Path(alias.name.replace(".", "/")) for alias in node.names]
        else:
            continue
        for name in names:
            found |= {
                file for file in (name.with_suffix(".py"), name / "__init__.py") if file in FILES
            }
    return found - {path}


def room(path: Path) -> str:
    """ "engine", "data", "tasks", "first", "pieces", or the name of another top folder."""
    if path.parts[0] != "mmscratch":
        return path.parts[0]
    if len(path.parts) > 2:
        return path.parts[1]
    return "first" if path.stem in FIRST else "pieces"


ALLOWED = {
    "engine": {"engine"},
    "first": {"engine", "first"},
    "data": {"engine", "first", "data", "pieces"},
    "pieces": {"engine", "first", "data", "pieces"},
    "tasks": {"engine", "first", "data", "pieces", "tasks"},
}


@pytest.mark.parametrize(
    "path", sorted(path for path in FILES if path.parts[0] == "mmscratch"), ids=str
)
def test_imports_point_one_way(path):
    if path.name == "__main__.py":
        return
    for other in imports(path):
        assert room(other) in ALLOWED[room(path)], f"{path} imports {other}"


def test_there_are_no_circular_imports():
    packages = {path for path in FILES if path.name == "__init__.py"}
    graph = {path: imports(path) - packages for path in FILES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(
        FILES
    )  # CycleError names the circle


def test_data_imports_no_pieces_but_metrics():
    pieces = {
        other.stem
        for path in FILES
        if room(path) == "data"
        for other in imports(path)
        if room(other) == "pieces"
    }
    assert pieces <= {"metrics"}


def test_importing_a_model_imports_no_torchvision():
    code = "import sys, mmscratch.model; print('torchvision' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "False\n", run.stderr


def test_importing_sets_no_seed():
    code = "import torch; before = torch.get_rng_state(); import mmscratch.__main__, mmscratch.training, mmscratch.tasks; "
    code += "print(torch.equal(before, torch.get_rng_state()))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "True\n", run.stderr


def test_the_command_line_is_parser_and_main():
    assert len((ROOT / "mmscratch/__main__.py").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_readme_says_how_long_the_files_to_read_are():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    said = dict(re.findall(r"\(mmscratch/(\w+)\.py\) \((\d+)", text))
    pieces = [
        path
        for path in FILES
        if len(path.parts) == 2 and path.parts[0] == "mmscratch" and path.stem[0] != "_"
    ]
    assert said.keys() == {path.stem for path in pieces}
    for path in pieces:
        lines = len(FILES[path].read_text(encoding="utf-8").splitlines())
        assert abs(int(said[path.stem]) - lines) <= lines / 10, path
