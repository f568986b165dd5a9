"""Tables about pictures or sounds: .csv, .tsv, .json or .jsonl files, whatever they add to them."""

import csv
import json
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..engine.safetensors import unique_keys
from .dataset import words_of
from .photographs import PICTURE_SUFFIXES

SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "dev": "validation",
    "validation": "validation",
    "test": "test",
}
EVERY_TENTH = ("validation", *["train"] * 4, "test", *["train"] * 4)


class Record(NamedTuple):
    """A line of a table: its location, the picture's or sound's name, and its texts."""

    where: str
    name: str
    texts: list[str]
    question: str = ""
    split: str | None = None
    kind: str = ""


Reader = Callable[[Path, "RecordSchema", list[str]], Iterator[Record]]


class RecordSchema(NamedTuple):
    """The columns of a table, and its words in messages.

    noun      what a line adds to a picture: "caption". The table is called captions.csv
    texts     the column that may hold several texts: "caption"
    expected  what a line holds: "a file name and a caption"
    columns   {column: the names that it may have}: "file_name", perhaps "question", and the texts
    types     the types that a text may have in JSON
    item      what a line is about: "picture" or "sound"
    suffixes  of the files that need a line
    published {pattern of a file's name: its reader}: tables with which published sets come
    """

    noun: str
    texts: str
    expected: str
    columns: dict[str, Sequence[str]]
    types: tuple[type, ...] = (str,)
    item: str = "picture"
    suffixes: Collection[str] = PICTURE_SUFFIXES
    published: Mapping[str, Reader] = {}


FILE_NAMES = (
    "file_name",
    "filename",
    "image",
    "file",
    "image_name",
    "image_path",
    "img",
    "picture",
    "photo",
    "path",
)
DELIMITERS = (",", ";", "\t", "|")
UNREAD = (".xlsx", ".xls", ".ods", ".parquet")
MAX_LINES = 20  # of one cell in quotes


def _slashes(name: str) -> str:
    """./b/a.jpg and b\\a.jpg -> b/a.jpg."""
    return str(PurePosixPath(name.replace("\\", "/")))


def _name_key(name: str) -> str:
    """One key for all spellings of a name: A.jpg and ./a.JPG, b/a.jpg and b\\a.jpg, both "ü"s."""
    return unicodedata.normalize("NFC", _slashes(name)).lower()


# -------------------------------------------------------------------------------------------------
# A folder of pictures or sounds with one table.


def read_folder(
    root: Path, schema: RecordSchema, problems: list[str]
) -> tuple[list[str], list[Record]]:
    """(the names of the files below a folder, the records of its table).

    A picture (or sound) without a record is reported in `problems`.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    records = []
    for table in _find_tables(root, schema):
        records += _reader_of(table, schema)(table, schema, problems)
    files = [path.relative_to(root).as_posix() for path in files_below(root)]
    named = {_name_key(record.name) for record in records}
    for name in sorted(files):
        keys = {_name_key(name), _name_key(PurePosixPath(name).name)}
        if Path(name).suffix.lower() in schema.suffixes and not keys & named:
            problems.append(f"{root / name}: has no {schema.noun}")
    return files, records


def files_below(root: Path) -> Iterator[Path]:
    """The regular files below a folder, also those in linked folders; no hidden or system files.

    A folder is entered twice at most, by whatever links, so that a loop of links ends.
    """
    entered = Counter()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        entered[real] += 1
        if entered[real] > 2:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in names:
            path = Path(folder, name)
            if not is_hidden(name) and path.is_file():
                yield path


def is_hidden(name: str) -> bool:
    """Whether a file or folder is the system's own: ._a.jpg, .DS_Store, __MACOSX, Thumbs.db."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _find_tables(root: Path, schema: RecordSchema) -> list[Path]:
    """The table of a folder, or else those that a published set comes with."""
    stem = f"{schema.noun}s"
    tables = [root / f"{stem}{suffix}" for suffix in _READERS]
    tables = [table for table in tables if table.is_file()]
    for pattern in schema.published:
        if not tables:
            tables = sorted(path for path in root.glob(pattern) if path.is_file())
            if tables:
                return tables
    if len(tables) != 1:
        found = " and ".join(table.name for table in tables)
        others = [path for path in root.glob(f"{stem}.*") if path.suffix in UNREAD]
        if others and not found:
            raise ValueError(f"{others[0]} is not read: save it as CSV")
        found = found or f"no {stem}{f', {stem}'.join(_READERS)}"
        raise ValueError(f"{root} has {found}: exactly one {stem} file is needed")
    return tables


def _reader_of(table: Path, schema: RecordSchema) -> Reader:
    for pattern, reader in schema.published.items():
        if table.match(pattern):
            return reader
    return _READERS[table.suffix]


def match_files(
    files: Iterable[str], records: Iterable[Record], problems: list[str], item: str = "picture"
) -> Iterator[tuple[str, Record]]:
    """(the file's name as the file system spells it, record) of each whose file exists.

    A name without a folder may be that of a file in any folder, if only one has it. Records without
    a file are reported in `problems`, as a missing `item`.
    """
    spellings = defaultdict(list)
    inside = defaultdict(list)  # files in folders, by their name alone
    for name in sorted(set(files)):
        spellings[_name_key(name)].append(name)
        inside[_name_key(PurePosixPath(name).name)].append(name)
    seen = set()
    for record in records:
        key = _name_key(record.name)
        candidates = spellings[key]
        if not candidates and len(inside[key]) == 1:
            candidates = inside[key]
        name = candidates[0] if len(candidates) == 1 else _slashes(record.name)
        if len(candidates) > 1 and name not in seen:
            names = " and ".join(candidates)
            problems.append(f"{record.where}: {names} differ only in upper and lower case")
        if name in candidates:
            seen.add(name)
            yield name, record
        else:
            problems.append(f"{record.where}: there is no {item} {record.name!r}")


def texts_by_file(
    files: Iterable[str], records: Iterable[Record], problems: list[str], schema: RecordSchema
) -> dict[str, list[tuple[str, list[str]]]]:
    """{file: its texts, each as written and tokenized}, for the files that exist.

    Records of other files and empty texts are reported in `problems`.
    """
    by_file: dict[str, list[tuple[str, list[str]]]] = {}
    for name, record in match_files(files, records, problems, schema.item):
        for text in record.texts:
            tokens = words_of(text)
            if tokens:
                by_file.setdefault(name, []).append((text, tokens))
            else:
                problems.append(f"{record.where}: the {schema.noun} of {record.name!r} is empty")
    return dict(sorted(by_file.items()))


# -------------------------------------------------------------------------------------------------
# Splits.


def check_split(split: str) -> None:
    if split not in ("train", "validation", "test"):
        raise ValueError(f"no split {split!r}: choose train, validation or test")


def assign_splits(keys: Iterable, pattern: Sequence[str] = EVERY_TENTH) -> dict:
    """{key: its split}: the splits follow the pattern, over and over, in the order of the keys."""
    return {key: pattern[i % len(pattern)] for i, key in enumerate(keys)}


def records_of_split(split: str, records: list[Record], problems: list[str]) -> list[Record]:
    """The records of a split: by the split column if there is one, else by the files' names."""
    if not any(record.split for record in records):
        splits = assign_splits(sorted({_name_key(record.name) for record in records}))
        return [record for record in records if splits[_name_key(record.name)] == split]
    chosen = []
    for record in records:
        name = record.split or ""
        if name.lower() not in SPLIT_NAMES:
            known = ", ".join(SPLIT_NAMES)
            problems.append(f"{record.where}: the split {name!r} is none of {known}")
        elif SPLIT_NAMES[name.lower()] == split:
            chosen.append(record)
    return chosen


# -------------------------------------------------------------------------------------------------
# Readers of a table.


def text_lines(path: Path, problems: list[str]) -> Iterator[tuple[str, str]]:
    """(file and line number, text) of every line that is not blank."""
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    for number, raw in enumerate(content.splitlines(), 1):
        where = f"{path}:{number}"
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            problems.append(f"{where}: not UTF-8 text")
        elif text.strip():
            yield where, text


def read_table(path: Path, schema: RecordSchema, problems: list[str]) -> Iterator[Record]:
    """Records of a table, with or without column names, separated by any of `DELIMITERS`.

    Raises ValueError if there are column names, but not those that are needed.
    """
    lines = list(text_lines(path, problems))
    if not lines:
        return
    delimiter = _find_delimiter(lines[0][1], schema, "\t" if path.suffix == ".tsv" else ",")
    texts = dict(lines)
    columns = None
    for where, cells in _split_lines(lines, delimiter, problems):
        cells = [" ".join(cell.split("\n")).strip() for cell in cells]
        if columns is None:
            columns = [_column_key(cell) for cell in cells]
            missing = [n for n, names in schema.columns.items() if not set(columns) & set(names)]
            if not missing:
                continue
            if not _has_file(cells, schema):
                found = ", ".join(cells)[:100]
                raise ValueError(f"{where}: no column is called {missing[0]}; it has: {found}")
            columns = list(schema.columns)
        if path.suffix == ".txt" and len(cells) > len(columns):  # commas without quotes
            last = len(columns) - 1
            cells = [*cells[:last], texts[where].split(delimiter, last)[last].strip()]
        if len(cells) != len(columns):
            problem = f"{where}: {len(cells)} columns where {len(columns)} were expected"
            if len(cells) > len(columns) and delimiter == ",":
                problem += f"; a {schema.noun} with a comma needs quotes around it"
            problems.append(problem)
            continue
        yield from make_record(where, dict(zip(columns, cells)), schema, problems)


def _column_key(name: str) -> str:
    """One key for the spellings of a column: "File name" is file_name."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _has_file(cells: Sequence[str], schema: RecordSchema) -> bool:
    """Whether one of the cells names a file of the right kind."""
    return any(PurePosixPath(cell.lower()).suffix in schema.suffixes for cell in cells)


def _find_delimiter(line: str, schema: RecordSchema, default: str) -> str:
    """What separates the cells of a table, from its first line: column names, or a file's name."""
    for delimiter in DELIMITERS:
        names = {_column_key(cell.strip().strip('"')) for cell in line.split(delimiter)}
        if all(names & set(known) for known in schema.columns.values()):
            return delimiter
    for delimiter in (default, *DELIMITERS):
        cells = line.split(delimiter)
        if len(cells) > 1 and _has_file([cells[0].strip().strip('"')], schema):
            return delimiter
    return default


def _split_lines(
    lines: Sequence[tuple[str, str]], delimiter: str, problems: list[str]
) -> Iterator[tuple[str, list[str]]]:
    """(file and line number, cells) of each row. A cell in quotes may go on in the next lines."""
    number = 0
    while number < len(lines):
        where, text = lines[number]
        number += 1
        try:
            yield where, _split_cells(text, delimiter)
            continue
        except csv.Error as error:
            reason = error
        for _, more in lines[number : number + MAX_LINES]:
            text += "\n" + more
            try:
                cells = _split_cells(text, delimiter)
            except csv.Error:
                continue
            number += text.count("\n")
            yield where, cells
            break
        else:
            problems.append(f"{where}: {reason}")


def _split_cells(text: str, delimiter: str) -> list[str]:
    """The cells of a line. In a table with tabs, only cells that are quoted as a whole lose them."""
    if delimiter != "\t":
        (cells,) = csv.reader([text], delimiter=delimiter, skipinitialspace=True, strict=True)
        return cells
    cells = []
    for cell in text.split("\t"):
        inside = cell.strip()[1:-1].replace('""', "")
        if len(cell) > 1 and cell.strip()[:1] == cell.strip()[-1:] == '"' and '"' not in inside:
            cell = cell.strip()[1:-1].replace('""', '"')
        cells.append(cell)
    return cells


def make_record(
    where: str, entry: object, schema: RecordSchema, problems: list[str]
) -> Iterator[Record]:
    """A dict with the expected keys -> a Record."""
    if isinstance(entry, dict):
        values = {column: _first_value(entry, names) for column, names in schema.columns.items()}
        name = values["file_name"]
        question = values.get("question", "")
        texts = values[schema.texts]
        if not isinstance(texts, list):
            texts = [texts]
        split = str(entry["split"]) if entry.get("split") else None
        has_names = isinstance(name, str) and isinstance(question, str)
        if has_names and texts and all(type(text) in schema.types for text in texts):
            yield Record(where, name, [str(text) for text in texts], question, split)
            return
    problems.append(f"{where}: {schema.expected} were expected, not {json.dumps(entry)[:60]}")


def _first_value(entry: dict, keys: Sequence[str]):
    """The value of the first of these keys that the entry has."""
    for key in keys:
        if key in entry:
            return entry[key]
    return None


def _unique_names(schema: RecordSchema) -> Callable[[list], dict]:
    """`unique_keys` with an error that says what to do about two captions."""

    def checked(pairs: list[tuple[str, object]]) -> dict:
        try:
            return unique_keys(pairs)
        except ValueError as error:
            advice = f"give it a list of {schema.texts}s instead"
            raise ValueError(f"{error}: {advice}") from None

    return checked


def _read_json_lines(path: Path, schema: RecordSchema, problems: list[str]) -> Iterator[Record]:
    for where, text in text_lines(path, problems):
        try:
            entry = json.loads(text, object_pairs_hook=_unique_names(schema))
            yield from make_record(where, entry, schema, problems)
        except (ValueError, RecursionError) as error:
            problems.append(f"{where}: not JSON: {getattr(error, 'msg', error)}")


def load_json(path: Path, make_dict: Callable[[list], dict] = unique_keys):
    """The contents of a JSON file. Raises ValueError, in one line, if it is not JSON."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text, object_pairs_hook=make_dict)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from None


def numbered(path: Path, entries: object, expected: str = "a list") -> Iterator[tuple[str, object]]:
    """(file and entry number, entry) of every entry of a JSON list."""
    if not isinstance(entries, list):
        raise ValueError(f"{path}: {expected} was expected")
    for number, entry in enumerate(entries, 1):
        yield f"{path}, entry {number}", entry


def _read_json(path: Path, schema: RecordSchema, problems: list[str]) -> Iterator[Record]:
    entries = load_json(path, _unique_names(schema))
    expected = "a list"
    if len(schema.columns) == 2:  # only names and texts: this may be a map
        expected = f"a list, or a map from file names to {schema.texts}s,"
        if isinstance(entries, dict):
            entries = [{"file_name": name, schema.texts: texts} for name, texts in entries.items()]
    for where, entry in numbered(path, entries, expected):
        yield from make_record(where, entry, schema, problems)


_READERS = {
    ".csv": read_table,
    ".tsv": read_table,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
}
