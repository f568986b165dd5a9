"""An index of pictures: their vectors in one file, so that each picture is embedded only once."""

import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..contrastive import DualEncoder
from ..engine.runs import read_checkpoint
from ..finetuning import fingerprint, freeze
from ..images import open_image, to_tensor
from ..plots import caption_sheet
from ..reliability import write_atomically
from ..search import embed, search
from ..text import printable
from .inputs import pictures_in
from .task import image_size_of

LAYOUT = "mmscratch picture index, version 1"
BATCH_SIZE = 64
MOST_DRAWN = 40  # pictures on a sheet
ADVICE = "choose another --index, or delete it"

# Takes files. Returns the vectors (n, D) of those that can be read, in order; and for each of the
# others the reason, one line that names the file.
Embed = Callable[[list[Path]], tuple[Tensor, dict[Path, str]]]


class Changes(NamedTuple):
    """How many of the pictures given to `PictureIndex.update` are what; and how many are gone."""

    new: int
    changed: int
    vanished: int
    unreadable: int  # now or at an earlier update; these are neither new nor changed

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in self._asdict().items())


class PictureIndex:
    """The vectors of picture files, kept in one file.

        index = PictureIndex(path, fingerprint)
        changes = index.update(pictures, embed)
        scores, indices = search(queries, index.vectors, k)
        best = index.names[indices[0, 0]]

    path: the file; the first `update` makes it. It also keeps pictures that a later update is not
        given, as long as they exist.
    fingerprint: identifies the model, since the vectors of two models cannot be compared.

    After `update`, of the pictures that it was given:
    names: absolute paths of the readable ones.
    vectors: (N, D) float16, a row for each name.
    problems: one line for each unreadable one.

    Raises ValueError in one line, and leaves the file as it is, if it is damaged, is no index, or
    is the index of another model.
    """

    def __init__(self, path: Path, fingerprint: str):
        self.path = path
        self.fingerprint = fingerprint
        self.names: list[str] = []
        self.vectors = torch.zeros(0, 0, dtype=torch.float16)
        self.problems: list[str] = []
        self._versions: dict[str, tuple[int, int] | None] = {}  # of all files when they were read
        self._vectors: dict[str, Tensor] = {}  # of the readable ones, each (D,)
        self._reasons: dict[str, str] = {}  # why the others cannot be read
        if path.exists():
            self._load()

    def update(self, paths: Iterable[Path], embed: Embed) -> Changes:
        """Embed the new and changed files among the paths, and drop all files that are gone.

        A file has changed if its size or its time of modification has. An unreadable one is not
        tried again until it changes. After Ctrl-C, the pictures embedded so far are kept.

        Raises OSError in one line if the index cannot be written.
        """
        versions = {os.path.abspath(path): _version(path) for path in paths}
        known = set(self._versions)
        pending = []
        for name, version in versions.items():
            if name not in known or self._versions[name] != version:
                pending.append(name)
        vanished = [name for name in known - versions.keys() if not os.path.exists(name)]
        self._drop(vanished)
        try:
            for first in range(0, len(pending), BATCH_SIZE):
                batch = pending[first : first + BATCH_SIZE]
                self._add(batch, versions, embed)
                _show_progress(first + len(batch), len(pending))
        finally:
            if pending or vanished:
                self._save()
        self.names = [name for name in versions if name in self._vectors]
        self.vectors = _stack([self._vectors[name] for name in self.names])
        self.problems = [self._reasons[name] for name in versions if name in self._reasons]
        embedded = [name for name in pending if name in self._vectors]
        changed = len(known.intersection(embedded))
        return Changes(len(embedded) - changed, changed, len(vanished), len(self.problems))

    def _add(self, names: list[str], versions: dict[str, tuple | None], embed: Embed) -> None:
        vectors, problems = embed([Path(name) for name in names])
        reasons = {str(path): reason for path, reason in problems.items()}
        readable = [name for name in names if name not in reasons]
        vectors = vectors.to("cpu", torch.float16)
        self._drop(names)  # vectors of an earlier version
        self._vectors.update(zip(readable, vectors, strict=True))
        self._reasons.update(reasons)
        for name in names:
            self._versions[name] = versions[name]

    def _drop(self, names: list[str]) -> None:
        for name in names:
            self._versions.pop(name, None)
            self._vectors.pop(name, None)
            self._reasons.pop(name, None)

    def _load(self) -> None:
        try:
            state = read_checkpoint(self.path, "an index of pictures")
        except ValueError as error:
            raise ValueError(f"{error}: {ADVICE}") from None
        if not isinstance(state, dict) or state.get("layout") != LAYOUT:
            raise ValueError(f"{self.path} is not an index of pictures of this version: {ADVICE}")
        if state["fingerprint"] != self.fingerprint:
            raise ValueError(f"{self.path} is the index of another model: {ADVICE}")
        self._versions = state["versions"]
        self._reasons = state["reasons"]
        self._vectors = dict(zip(state["names"], state["vectors"]))

    def _save(self) -> None:
        state = {
            "layout": LAYOUT,
            "fingerprint": self.fingerprint,
            "versions": self._versions,
            "reasons": self._reasons,
            "names": list(self._vectors),
            "vectors": _stack(list(self._vectors.values())),
        }
        write_atomically(self.path, state)


def _version(path: Path) -> tuple[int, int] | None:
    """The file's size and time of modification; None if it has none, say a broken link."""
    try:
        stat = os.stat(path)
    except OSError:  # embedding will report it
        return None
    return stat.st_size, stat.st_mtime_ns


def _stack(vectors: list[Tensor]) -> Tensor:
    """A row for each vector, (N, D); without vectors D is 0."""
    return torch.stack(vectors) if vectors else torch.zeros(0, 0, dtype=torch.float16)


def _show_progress(done: int, total: int) -> None:
    if total > BATCH_SIZE:
        end = "\n" if done == total else ""
        print(f"\rembedding pictures, once: {done} of {total}", end=end, flush=True)


def updated_index(
    path: Path, folders: list[Path], model: DualEncoder, checkpoint: dict
) -> PictureIndex:
    """The index of the pictures in the folders. Prints what has changed, and what was skipped.

    Raises ValueError in one line if there is no folder, or no picture that can be read.
    """
    if not folders:
        raise ValueError("name a sentence, or a picture after --like, and then a folder to search")
    for folder in folders:
        if not folder.exists():
            raise ValueError(f"{folder}: no such folder")
    freeze(model, "*")  # the fingerprint is that of frozen weights
    index = PictureIndex(path, fingerprint(model))
    image_size = image_size_of(checkpoint["model_config"]["encoders"])
    changes = index.update(pictures_in(folders), partial(_embed_files, model, image_size))
    print(f"{path}: {changes}")
    for problem in index.problems[:5]:
        print(f"skipped: {printable(problem)}", file=sys.stderr)
    if len(index.problems) > 5:
        print(f"skipped: {len(index.problems) - 5} more", file=sys.stderr)
    if not index.names:
        raise ValueError("none of these pictures can be read")
    return index


def _embed_files(
    model: DualEncoder, image_size: int, paths: list[Path]
) -> tuple[Tensor, dict[Path, str]]:
    """An `Embed`, with the first two arguments given."""
    examples = []
    problems = {}
    for path in paths:
        try:
            examples.append({"image": to_tensor(open_image(path), image_size)})
        except (ValueError, OSError) as error:
            problems[path] = str(error)
    return embed(model, {}, examples, "image"), problems


def show_best(index: PictureIndex, query: Tensor, count: int, sheet: Path) -> None:
    """Print the pictures whose vectors are most similar to the query's, (1, D), and draw the best."""
    scores, indices = search(query, index.vectors, count)  # each (1, count)
    names = [index.names[i] for i in indices[0].tolist()]
    labels = []
    for score, name in zip(scores[0].tolist(), names):
        print(f"{score:.3f}  {printable(os.path.relpath(name))}")
        labels.append([f"{score:.3f}", os.path.basename(name)])
    pictures = [to_tensor(open_image(name), 240) for name in names[:MOST_DRAWN]]
    caption_sheet(pictures, labels[:MOST_DRAWN]).savefig(sheet)
    print(f"Look at {sheet}")
