"""What every chapter needs: where its files go, how pictures are shown, and the source of a piece."""

import argparse
import inspect
import io
import json
import os
import sys
import textwrap
import time
from pathlib import Path

from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = "ipykernel" in sys.modules


class Chapter:
    """A run of a chapter: `fast`, and `folder`, where its files go.

    As a script the chapter takes --fast, as a notebook it looks for MMSCRATCH_FAST=1 in the environment. A fast run is
    for trying out: it has a folder of its own, and its numbers mean nothing.
    """

    def __init__(self, number: int):
        if NOTEBOOK:
            self.fast = os.environ.get("MMSCRATCH_FAST") == "1"
        else:
            parser = argparse.ArgumentParser(
                description=f"Chapter {number}, with its pictures in runs/ch{number:02}."
            )
            parser.add_argument(
                "--fast",
                action="store_true",
                help="try it out in seconds; the numbers mean nothing",
            )
            self.fast = parser.parse_args().fast
            sys.excepthook = _say_stopped
        self.number, self.folder = number, folder(number, self.fast)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start = time.monotonic()

    def choose(self, full, fast):
        """The first when it counts, the second when it is fast."""
        return fast if self.fast else full

    def draw(self, figure: Figure, name: str) -> None:
        """Show the figure in a notebook; from a script, save it and say where. `name` says what is to be seen."""
        file = io.BytesIO()
        figure.savefig(file, format="png", pil_kwargs={"optimize": True})
        if NOTEBOOK:
            from IPython.display import Image, display

            display(Image(file.getvalue(), alt=name))
        else:
            path = self.folder / f"{name.replace(' ', '-')}.png"
            path.write_bytes(file.getvalue())
            print(f"see {path}", flush=True)

    def finish(self) -> None:
        """The last line of a chapter."""
        seconds = round(time.monotonic() - self.start)
        (self.folder / "finished.json").write_text(json.dumps({"seconds": seconds}))
        print(f"Chapter {self.number} took {seconds // 60} min {seconds % 60:02} s.")


def _say_stopped(kind, error, trace) -> None:
    """Ctrl-C in a script ends it with one line; all else shows where it happened, for whoever changes a chapter."""
    if issubclass(kind, KeyboardInterrupt):
        print("\nstopped", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def folder(number: int, fast: bool = False) -> Path:
    """Where a chapter's files go."""
    return Path("runs", f"ch{number:02}{'-fast' if fast else ''}")


def show(piece) -> None:
    """Print a class or function of the library from its source, and where it stands; highlighted in a notebook."""
    piece = inspect.unwrap(piece)  # what stands behind @torch.no_grad()
    lines, first = inspect.getsourcelines(piece)
    path = Path(inspect.getsourcefile(piece)).resolve().relative_to(ROOT).as_posix()
    source = textwrap.dedent("".join(lines)).strip()
    if NOTEBOOK:
        from IPython.display import Markdown, display

        display(
            Markdown(f"[`{path}`](../{path})\n\n```python\n{source}\n```")
        )  # no line number, which ages
    else:
        print(f"\n# {path}, line {first}\n{source}\n")
