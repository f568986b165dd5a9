"""The layout of the project: which folders import from which, without circles."""

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
FIRST = {"text", "images", "audio", "tables"}  # the modules of inputs


def imports(path: Path) -> set[Path]:
    """The files of the project that a file imports at its top, including __init__.py of packages."""
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
            found |= {name.with_suffix(".py"), name / "__init__.py"} & FILES.keys()
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
    order = list(TopologicalSorter(graph).static_order())  # a CycleError names the circle
    assert len(order) == len(FILES)


def test_data_imports_no_pieces_but_metrics():
    for path in FILES:
        if room(path) == "data":
            pieces = {other.stem for other in imports(path) if room(other) == "pieces"}
            assert pieces <= {"metrics"}, path


def test_importing_a_model_imports_no_torchvision():
    code = "import sys, mmscratch.model; print('torchvision' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "False\n", run.stderr


def test_importing_sets_no_seed():
    code = (
        "import torch; before = torch.get_rng_state();"
        "import mmscratch.__main__, mmscratch.training, mmscratch.tasks;"
        "print(torch.equal(before, torch.get_rng_state()))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "True\n", run.stderr


def test_the_command_line_is_parser_and_main():
    assert len((ROOT / "mmscratch/__main__.py").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_readme_says_how_long_the_files_to_read_are():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    lengths = dict(re.findall(r"\(mmscratch/(\w+)\.py\) \((\d+)", text))
    files = sorted((ROOT / "mmscratch").glob("[!_]*.py"))
    assert lengths.keys() == {file.stem for file in files}
    for file in files:
        lines = len(file.read_text(encoding="utf-8").splitlines())
        assert abs(int(lengths[file.stem]) - lines) <= lines / 10, file
