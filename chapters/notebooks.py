"""The notebooks, made from the chapters: python -m chapters.notebooks build [N …], or check

`build` executes what it makes, so that a notebook reads well on a web page without running. The tools that this needs
stand in tests/requirements.txt.
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
from PIL import Image

from .__main__ import Entry, book, choose
from .chapter import ROOT

MAX_BYTES = 1_000_000
README = Path(__file__).with_name("README.md")
FIRST_CELL = """\
# Finds the repository, from wherever Jupyter was started, and the packages that the chapters need.
import importlib.util
import os
import sys
from pathlib import Path

here = [Path.cwd(), Path(os.environ.get("JPY_SESSION_NAME", ""))]
near = [folder for start in here for folder in (start, *start.resolve().parents)] + sorted(Path.cwd().glob("*/"))
root = next((folder.resolve() for folder in near if os.path.isfile(folder / "mmscratch" / "text.py")), None)
if root is None:
    raise SystemExit(f"Open this notebook where it lies, in chapters/ of the repository: {Path.cwd()} is not inside it.")
os.chdir(root)
sys.path.insert(0, str(root))
if any(importlib.util.find_spec(name) is None for name in ("torch", "torchvision", "numpy", "PIL", "matplotlib")):
    raise SystemExit(f'A package is missing. In a terminal: "{sys.executable}" -m pip install -r "{root / "requirements.txt"}"')"""


def make(entry: Entry) -> nbformat.NotebookNode:
    """The chapter as a notebook, not yet executed."""
    notebook = jupytext.read(entry.path, fmt="py:percent")
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FIRST_CELL))
    for i, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = (
            f"cell-{i}",
            {},
        )  # made from nothing random, so that versions can be compared
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def execute(notebook: nbformat.NotebookNode, where: Path, seconds: int = 1200) -> None:
    """Run all cells from inside the folder `where`, as Jupyter would; a cell that fails raises CellExecutionError."""
    resources = {"metadata": {"path": str(where)}}
    client = NotebookClient(
        notebook, timeout=seconds, kernel_name="python3", resources=resources, record_timing=False
    )
    kernel = client.create_kernel_manager()
    try:
        client.execute()
    except (
        DeadKernelError,
        AssertionError,
    ):  # what Ctrl-C looks like: the client lets go of its kernel, which goes on
        raise KeyboardInterrupt("the kernel was stopped, or died") from None
    finally:
        if kernel.has_kernel:
            asyncio.run(kernel.shutdown_kernel(now=True))


def build(entry: Entry) -> None:
    """Make, execute and keep the notebook, and the chapter's first picture for the table of chapters."""
    os.environ.pop("MMSCRATCH_FAST", None)  # whose numbers mean nothing
    notebook = make(entry)
    execute(notebook, entry.path.parent)
    for problem in problems(notebook):
        raise ValueError(f"{entry.path.name}: {problem}")
    notebook.metadata["language_info"] = {
        "name": "python"
    }  # without the version of Python that it ran on
    text = nbformat.writes(notebook) + "\n"
    if len(text.encode()) > MAX_BYTES:
        raise ValueError(
            f"{entry.path.name}: its notebook has {len(text.encode()):,} bytes, more than {MAX_BYTES:,}"
        )
    path = entry.path.with_suffix(".ipynb")
    path.write_text(text, encoding="utf-8")
    picture = Image.open(io.BytesIO(base64.b64decode(pictures(notebook)[0]))).convert("RGB")
    picture.thumbnail((360, 240))
    picture.save(path.parent / "figures" / f"ch{entry.number:02}.png", optimize=True)


def table() -> str:
    """chapters/README.md, its table made anew."""
    rows = []
    for entry in book():
        name, figure = entry.path.stem, f"figures/ch{entry.number:02}.png"
        chapter = f"**[{entry.title}]({name}.ipynb)**<br>[{name}.py]({name}.py)"
        picture = f"[![{entry.title}]({figure})]({name}.ipynb)"
        rows.append(f"| {entry.number} | {chapter} | {entry.adds} | {entry.minutes} | {picture} |")
    above, rule, below = README.read_text(encoding="utf-8").partition("|---|---|---|---|---|\n")
    return above + rule + "\n".join(rows) + "\n\n" + below.partition("\n\n")[2]


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def pictures(notebook: nbformat.NotebookNode) -> list[str]:
    """The PNG pictures that the notebook shows, in base64."""
    return [
        output.data["image/png"]
        for output in outputs(notebook)
        if "image/png" in output.get("data", {})
    ]


def problems(notebook: nbformat.NotebookNode) -> list[str]:
    """What others should not read in a notebook: warnings, errors, addresses, paths of this machine, no picture."""
    found = [] if pictures(notebook) else ["shows no picture"]
    for output in outputs(notebook):
        text = output.get("text", "") + "".join(
            str(v) for k, v in output.get("data", {}).items() if k.startswith("text/")
        )
        if output.output_type == "error" or output.get("name") == "stderr":
            found.append(
                f"prints an error or a warning: {text or output.get('evalue', '')}".strip()
            )
        found += [
            f"shows an address in memory: {address}"
            for address in re.findall(r"<.* at 0x[0-9a-f]+>", text)
        ]
        found += [
            f"names a path of this machine: {path}"
            for path in {ROOT, Path.home()} - {Path("/")}
            if f"{path}{os.sep}" in text
        ]
    return found


def differences(entry: Entry) -> list[str]:
    """How the notebook on disk differs from what `build` would make, its outputs aside."""
    path = entry.path.with_suffix(".ipynb")
    if not path.exists():
        return [f"{path.name} is missing"]
    kept, made = nbformat.read(path, as_version=4), make(entry)
    cells = [
        [(cell.cell_type, cell.source) for cell in notebook.cells] for notebook in (kept, made)
    ]
    if cells[0] != cells[1]:
        first = next((i for i, (a, b) in enumerate(zip(*cells)) if a != b), min(map(len, cells)))
        return [f"{path.name}: cell {first} is not that of {entry.path.name}"]
    if any(cell.cell_type == "code" and cell.execution_count is None for cell in kept.cells):
        return [f"{path.name}: not executed"]
    return [f"{path.name}: {problem}" for problem in problems(kept) + outdated(kept)]


def outdated(notebook: nbformat.NotebookNode) -> list[str]:
    """What the notebook shows from the library that does not stand there any more."""
    found = []
    for output in outputs(notebook):
        shown = re.fullmatch(
            r"\[`(.+)`\].*\n\n```python\n(.+)\n```",
            output.get("data", {}).get("text/markdown", ""),
            re.DOTALL,
        )
        if shown:
            path, source = shown.groups()
            now = (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).exists() else ""
            if _unindented(source) not in _unindented(now):
                found.append(
                    f"shows {source.splitlines()[0]} of {path} as it was: build the notebook anew"
                )
    return found


def _unindented(source: str) -> str:
    return "\n".join(line.lstrip() for line in source.splitlines())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m chapters.notebooks", description="Make the chapters' notebooks."
    )
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    sub = commands.add_parser("build", help="make them anew, which runs them: minutes each")
    sub.add_argument(
        "chapters",
        nargs="*",
        metavar="N",
        default=["all"],
        help="numbers of chapters (default: all)",
    )
    commands.add_parser("check", help="fail where a notebook differs from its chapter")
    args = parser.parse_args()
    try:
        if args.command == "check":
            wrong = [difference for entry in book() for difference in differences(entry)]
            if README.read_text(encoding="utf-8") != table():
                wrong.append("README.md: its table is not that of the chapters")
            print(
                "\n".join(wrong) or "every notebook is that of its chapter",
                file=sys.stderr if wrong else sys.stdout,
            )
            return 2 if wrong else 0
        for entry in choose(args.chapters):
            print(f"building chapter {entry.number}: {entry.title}", flush=True)
            build(entry)
        README.write_text(table(), encoding="utf-8")
    except KeyboardInterrupt as stop:
        print(stop or "stopped", file=sys.stderr)
        return 130
    except (ValueError, CellExecutionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
