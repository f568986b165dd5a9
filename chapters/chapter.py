"""What every chapter uses: an output folder, a way to show figures, and the source of a piece."""

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
from PIL import Image

MAX_SOUND = 60_000  # bytes of a WAV file in a notebook
ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = "ipykernel" in sys.modules


class Chapter:
    """A run of one chapter. `fast` says whether it is a trial; its files go to `folder`.

    A script takes --fast, a notebook looks for MMSCRATCH_FAST=1 in the environment. A fast run only
    shows that the chapter works: it has a folder of its own, and its numbers mean nothing.
    """

    def __init__(self, number: int):
        if NOTEBOOK:
            self.fast = os.environ.get("MMSCRATCH_FAST") == "1"
        else:
            self.fast = _parse_fast(number)
            sys.excepthook = _report_error
        self.number = number
        self.folder = folder(number, self.fast)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start = time.monotonic()

    def choose(self, full, fast):
        """`full` in a normal run, `fast` in a fast one."""
        return fast if self.fast else full

    def draw(self, figure: Figure, name: str) -> None:
        """Show a figure in a notebook; in a script, save it and print the path. `name` describes it."""
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png")
        file = io.BytesIO()
        Image.open(drawn).convert("RGB").save(file, "png", optimize=True)  # nothing is transparent
        if NOTEBOOK:
            from IPython import display

            display.display(display.Image(file.getvalue(), alt=name))
        else:
            path = self.folder / f"{name.replace(' ', '-')}.png"
            path.write_bytes(file.getvalue())
            print(f"see {path}", flush=True)

    def play(self, waveform, sample_rate: int, name: str) -> None:
        """Offer a waveform (S,) in a notebook; in a script, print the path of a WAV file.

        `name` describes it. Raises ValueError if the file has more than `MAX_SOUND` bytes: 1.8 s at
        16 kHz, and 3.7 s at 8 kHz.
        """
        from mmscratch.audio import write_wav  # graders import this file, without mmscratch

        path = self.folder / f"{name.replace(' ', '-')}.wav"
        size = 44 + 2 * len(waveform)  # its header, and 16 bits a sample
        if size > MAX_SOUND:
            advice = "shorten it, or resample it to 8000 Hz"
            raise ValueError(
                f"the sound {name!r} has {size:,} bytes, more than {MAX_SOUND:,}: {advice}"
            )
        write_wav(path, waveform, sample_rate)
        if NOTEBOOK:
            from IPython import display

            print(f"{name}:")
            display.display(display.Audio(path.read_bytes()))
        else:
            print(f"hear {path}", flush=True)

    def finish(self) -> None:
        """End the chapter: record how long it took, and print it."""
        seconds = round(time.monotonic() - self.start)
        (self.folder / "finished.json").write_text(json.dumps({"seconds": seconds}))
        print(f"Chapter {self.number} took {seconds // 60} min {seconds % 60:02} s.")


def _parse_fast(number: int) -> bool:
    """Whether the command line has --fast."""
    parser = argparse.ArgumentParser(
        description=f"Chapter {number}, with its figures in runs/ch{number:02}."
    )
    help = "try it out in seconds; the numbers mean nothing"
    parser.add_argument("--fast", action="store_true", help=help)
    return parser.parse_args().fast


def _report_error(kind, error, trace) -> None:
    """Print one line after Ctrl-C, and a traceback after anything else."""
    if issubclass(kind, KeyboardInterrupt):
        print("\nstopped", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def folder(number: int, fast: bool = False) -> Path:
    """The folder for a chapter's files."""
    return Path("runs", f"ch{number:02}{'-fast' if fast else ''}")


def show(piece) -> None:
    """Print the source of a class or function and its file; in a notebook, highlighted."""
    piece = inspect.unwrap(piece)  # the function under @torch.no_grad()
    lines, first = inspect.getsourcelines(piece)
    path = Path(inspect.getsourcefile(piece)).resolve().relative_to(ROOT).as_posix()
    source = textwrap.dedent("".join(lines)).strip()
    if NOTEBOOK:
        from IPython.display import Markdown, display

        # no line number: it would soon be wrong
        display(Markdown(f"[`{path}`](../{path})\n\n```python\n{source}\n```"))
    else:
        print(f"\n# {path}, line {first}\n{source}\n")
