"""The interface of every data source: a sequence of examples, each a dict."""

import copy
import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..tables import Schema
from ..text import tokenize

# A text with a word that begins like one of these may be false once the picture is mirrored.
SIDES = ("left", "right", "link", "recht", "gauche", "droit", "vlevo", "vpravo", "左", "右")


class LazyColumn(Sequence):
    """A column that computes its values on access: make(keys[i]), or None where the key is None.

    lengths[i]: how long value i is, in any unit, if that decides which values a batch should have
    """

    def __init__(self, make: Callable, keys: Sequence, lengths: Sequence[float] | None = None):
        self.make = make
        self.keys = keys
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int):
        key = self.keys[index]
        return None if key is None else self.make(key)


class DataSet(Sequence):
    """Examples and their reference texts. A source is a subclass that fills in:

    columns[modality][i]   example i's value, or None if it lacks the modality; for "source" a list
                           of words (the column is a list), for "image" a tensor (3, S, S) uint8
                           (the column is a `LazyColumn`), for any other modality a tensor
    texts[i]               the references of example i as written: captions, translations or answers
    references[i]          the same texts, tokenized
    names[i]               what messages call example i: a file, or a file and a line
    problems               what was skipped while reading, one line each, with file and line
    sources                the files of pictures and sounds, and rows of tables: see `digest`
    schema                 what the columns of its rows mean, if it has the modality "row"
    shard_sizes            the number of examples in each shard, if they are read as a stream (see
                           `streaming.StreamedExamples`); otherwise None
    """

    schema: Schema | None = None
    shard_sizes: Sequence[int] | None = None

    def __init__(self):
        self.columns: dict[str, Sequence] = {}
        self.texts: list[list[str]] = []
        self.references: list[list[list[str]]] = []
        self.names: list[str] = []
        self.problems: list[str] = []
        self.sources: list[Path | dict] = []

    def __len__(self) -> int:
        return len(self.references)

    def __getitem__(self, index: int) -> dict:
        """{modality: value} of an example, without the modalities that it lacks."""
        values = {modality: column[index] for modality, column in self.columns.items()}
        return {modality: value for modality, value in values.items() if value is not None}

    def name(self, index: int) -> str:
        """The name of an example in messages."""
        return self.names[index]

    def count(self, modality: str) -> int:
        """The number of examples that have this modality."""
        column = self.columns.get(modality, [])
        keys = column.keys if isinstance(column, LazyColumn) else column
        return sum(key is not None for key in keys)

    def without(self, modality: str) -> "DataSet":
        """The same examples without this modality."""
        other = copy.copy(self)
        other.columns = {name: column for name, column in self.columns.items() if name != modality}
        return other

    def digest(self) -> str:
        """A name for the contents, wherever they lie: 12 hexadecimal digits.

        It depends on all texts, on the rows of tables, and on the names and sizes of the files of
        pictures and sounds, but not on their folder.
        """
        digest = hashlib.sha256(repr((self.texts, self.shard_sizes)).encode())
        for column in self.columns.values():
            if isinstance(column, list):
                digest.update(repr(column).encode())
        for source in self.sources:
            if isinstance(source, Path):
                source = (source.name, source.stat().st_size if source.is_file() else 0)
            digest.update(f"{source!r}\n".encode())
        return digest.hexdigest()[:12]

    def may_flip(self, index: int, which: int) -> bool:
        """Whether the picture may be mirrored: no input text, nor reference `which`, mentions a side."""
        texts = [column[index] for column in self.columns.values() if isinstance(column, list)]
        texts.append(self.references[index][which])
        return not mentions_a_side(texts)


class Subset(DataSet):
    """Some examples of another data set, by their indices."""

    def __init__(self, data: DataSet, chosen: Sequence[int]):
        super().__init__()
        for modality, column in data.columns.items():
            if isinstance(column, LazyColumn):
                lengths = column.lengths and [column.lengths[i] for i in chosen]
                self.columns[modality] = LazyColumn(column.__getitem__, chosen, lengths)
            else:
                self.columns[modality] = [column[i] for i in chosen]
        self.texts = [data.texts[i] for i in chosen]
        self.references = [data.references[i] for i in chosen]
        self.names = [data.names[i] for i in chosen]


def mentions_a_side(texts: Sequence[list[str]]) -> bool:
    """Whether a word of the texts, which are lists of words, speaks of left or right."""
    return any(word.startswith(SIDES) for text in texts for word in text)


def words_of(text: str) -> list[str]:
    """The tokens of a text; interned, so a word that occurs in 10,000 texts is in memory once."""
    return [sys.intern(token) for token in tokenize(text)]
