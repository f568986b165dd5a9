"""Make the chapters' notebooks: python -m chapters.notebooks build [N …], or check

`build` executes what it makes, so that a notebook can be read on a web page without running it.
tests/requirements.txt lists the tools that this needs.
"""

import argparse
import asyncio
import base64
import io
import os
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from PIL import Image

from .__main__ import Entry, book, choose
from .chapter import ROOT

MAX_BYTES = 1_000_000
README = Path(__file__).with_name("README.md")
FIRST_CELL = """\
# Find the repository, wherever Jupyter was started, and check the required packages.
import importlib.util
import os
import sys
from pathlib import Path

near = []
for start in (Path.cwd(), Path(os.environ.get("JPY_SESSION_NAME", "")).resolve()):
    near += [start, *start.parents]
near += sorted(Path.cwd().glob("*/"))
roots = [folder for folder in near if os.path.isfile(folder / "mmscratch" / "text.py")]
if not roots:
    raise SystemExit(
        "Open this notebook from chapters/ in the repository: "
        f"{Path.cwd()} is not inside it."
    )
root = roots[0].resolve()
os.chdir(root)
sys.path.insert(0, str(root))
packages = ("torch", "torchvision", "numpy", "PIL", "matplotlib")
if any(importlib.util.find_spec(name) is None for name in packages):
    command = f'"{sys.executable}" -m pip install -r "{root / "requirements.txt"}"'
    raise SystemExit(f"A package is missing. In a terminal: {command}")"""


def make(entry: Entry) -> NotebookNode:
    """The chapter as a notebook, not yet executed."""
    notebook = jupytext.read(entry.path, fmt="py:percent")
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FIRST_CELL))
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"  # not random, so that versions can be compared
        cell.metadata = {}
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def execute(notebook: NotebookNode, folder: Path, seconds: int = 1200) -> None:
    """Run all cells in `folder`, as Jupyter would.

    Raises CellExecutionError if a cell fails, and KeyboardInterrupt if the kernel stops.
    """
    client = NotebookClient(
        notebook,
        timeout=seconds,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    )
    kernel = client.create_kernel_manager()
    try:
        client.execute()
    except (DeadKernelError, AssertionError):
        # This is what Ctrl-C looks like: the client lets go of its kernel, which keeps running.
        raise KeyboardInterrupt("the kernel was stopped, or died") from None
    finally:
        if kernel.has_kernel:
            asyncio.run(kernel.shutdown_kernel(now=True))
    join_streams(notebook)


def join_streams(notebook: NotebookNode) -> None:
    """Join consecutive printed outputs of a cell: each one would be a paragraph of its own.

    A kernel sends what is printed in several messages.
    """
    for cell in notebook.cells:
        joined = []
        for output in cell.get("outputs", []):
            last = joined[-1] if joined else {}
            if output.output_type == "stream" and last.get("name") == output.name:
                last.text += output.text
            else:
                joined.append(output)
        if "outputs" in cell:
            cell.outputs = joined


def build(entry: Entry) -> None:
    """Make, execute and save the notebook, and the chapter's first picture for the README.

    Raises ValueError if the notebook has `problems` or is too large.
    """
    os.environ.pop("MMSCRATCH_FAST", None)  # the numbers of a fast run mean nothing
    notebook = make(entry)
    execute(notebook, entry.path.parent)
    for problem in problems(notebook):
        raise ValueError(f"{entry.path.name}: {problem}")
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of Python
    text = nbformat.writes(notebook) + "\n"
    size = len(text.encode())
    if size > MAX_BYTES:
        raise ValueError(
            f"{entry.path.name}: its notebook has {size:,} bytes, more than {MAX_BYTES:,}"
        )
    path = entry.path.with_suffix(".ipynb")
    path.write_text(text, encoding="utf-8")
    first = base64.b64decode(pictures(notebook)[0])
    picture = Image.open(io.BytesIO(first)).convert("RGB")
    picture.thumbnail((360, 240))
    picture.save(path.parent / "figures" / f"ch{entry.number:02}.png", optimize=True)


def table() -> str:
    """The text of chapters/README.md, with a new table of chapters."""
    rows = []
    for entry in book():
        name = entry.path.stem
        figure = f"figures/ch{entry.number:02}.png"
        chapter = f"**[{entry.title}]({name}.ipynb)**<br>[{name}.py]({name}.py)"
        picture = f"[![{entry.title}]({figure})]({name}.ipynb)"
        rows.append(f"| {entry.number} | {chapter} | {entry.adds} | {entry.minutes} | {picture} |")
    above, rule, below = README.read_text(encoding="utf-8").partition("|---|---|---|---|---|\n")
    return above + rule + "\n".join(rows) + "\n\n" + below.partition("\n\n")[2]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    """The outputs of all cells."""
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def pictures(notebook: NotebookNode) -> list[str]:
    """The PNG pictures that the notebook shows, in base64."""
    found = []
    for output in outputs(notebook):
        if "image/png" in output.get("data", {}):
            found.append(output.data["image/png"])
    return found


def problems(notebook: NotebookNode) -> list[str]:
    """What no reader should find in a notebook.

    Warnings, errors, addresses in memory, paths of this machine; and no picture at all.
    """
    private = {ROOT, Path.home()} - {Path("/")}
    found = []
    if not pictures(notebook):
        found.append("shows no picture")
    for output in outputs(notebook):
        text = output.get("text", "")
        for kind, value in output.get("data", {}).items():
            if kind.startswith("text/"):
                text += str(value)
        if output.output_type == "error" or output.get("name") == "stderr":
            message = text or output.get("evalue", "")
            found.append(f"prints an error or a warning: {message}".strip())
        for address in re.findall(r"<.* at 0x[0-9a-f]+>", text):
            found.append(f"shows an address in memory: {address}")
        for path in private:
            if f"{path}{os.sep}" in text:
                found.append(f"names a path of this machine: {path}")
    return found


def differences(entry: Entry) -> list[str]:
    """How the notebook on disk differs from what `build` would make, apart from its outputs."""
    path = entry.path.with_suffix(".ipynb")
    if not path.exists():
        return [f"{path.name} is missing"]
    saved = nbformat.read(path, as_version=4)
    saved_cells = [(cell.cell_type, cell.source) for cell in saved.cells]
    new_cells = [(cell.cell_type, cell.source) for cell in make(entry).cells]
    for i, (saved_cell, new_cell) in enumerate(zip(saved_cells, new_cells)):
        if saved_cell != new_cell:
            return [f"{path.name}: cell {i} differs from {entry.path.name}"]
    if len(saved_cells) != len(new_cells):
        shorter = min(len(saved_cells), len(new_cells))
        return [f"{path.name}: cell {shorter} differs from {entry.path.name}"]
    if any(cell.cell_type == "code" and cell.execution_count is None for cell in saved.cells):
        return [f"{path.name}: not executed"]
    return [f"{path.name}: {problem}" for problem in problems(saved) + outdated(saved)]


def outdated(notebook: NotebookNode) -> list[str]:
    """Pieces of the library that the notebook shows, but that have changed since."""
    form = re.compile(r"\[`(.+)`\].*\n\n```python\n(.+)\n```", re.DOTALL)
    found = []
    for output in outputs(notebook):
        shown = form.fullmatch(output.get("data", {}).get("text/markdown", ""))
        if shown:
            name, source = shown.groups()
            path = ROOT / name
            now = path.read_text(encoding="utf-8") if path.exists() else ""
            if _unindented(source) not in _unindented(now):
                line = source.splitlines()[0]
                found.append(f"shows an old version of {line} in {name}: build it again")
    return found


def _unindented(source: str) -> str:
    return "\n".join(line.lstrip() for line in source.splitlines())


def check() -> int:
    """Print everything that is out of date; 2 if there is anything, else 0."""
    found = [difference for entry in book() for difference in differences(entry)]
    if README.read_text(encoding="utf-8") != table():
        found.append("README.md: its table differs from the chapters")
    if found:
        print("\n".join(found), file=sys.stderr)
        return 2
    print("every notebook matches its chapter")
    return 0


def main() -> int:
    """0 if all is well, 2 after an error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m chapters.notebooks", description="Make the chapters' notebooks."
    )
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    sub = commands.add_parser("build", help="make them again, which runs them: minutes each")
    numbers = "numbers of chapters (default: all)"
    sub.add_argument("chapters", nargs="*", metavar="N", default=["all"], help=numbers)
    commands.add_parser("check", help="fail if a notebook differs from its chapter")
    args = parser.parse_args()
    try:
        if args.command == "check":
            return check()
        for entry in choose(args.chapters):
            print(f"building chapter {entry.number}: {entry.title}", flush=True)
            build(entry)
        README.write_text(table(), encoding="utf-8")
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped", file=sys.stderr)
        return 130
    except (ValueError, CellExecutionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
