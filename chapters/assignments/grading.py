"""Grade a folder of submissions: a table, a report for each, and the tests that the class fails.

See chapters/instructors.md.
"""

import ast
import csv
import hashlib
import html
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from mmscratch.text import printable

from .exercises import Exercise, of_chapter
from .splice import definitions, excerpt, library, parse
from .submissions import read_files, submissions_in
from .verdicts import MARKS, Verdict, assess, described, wrong_outcomes


class Graded(NamedTuple):
    """A graded submission."""

    name: str
    verdicts: list[Verdict]
    texts: list[str]  # the learner's code for each exercise
    unread: str  # why it could not be read, or ""

    @property
    def points(self) -> int:
        return sum(verdict.points for verdict in self.verdicts)

    @property
    def notes(self) -> list[str]:
        """What the instructor should know."""
        notes = [self.unread] if self.unread else []
        copied = []
        for verdict, text in zip(self.verdicts, self.texts):
            exercise = verdict.exercise
            if text and same_code(text, own_text(exercise, library(exercise.module))):
                copied.append(exercise.name)
        if copied:
            notes.append(f"as in the library: {', '.join(copied)}")
        for verdict in self.verdicts:
            if verdict.problem:
                notes.append(f"{verdict.exercise.name}: {verdict.problem}")
        return notes


def grade(number: int, folder: Path, out: Path) -> list[Graded]:
    """Grade every file, folder and zip file in a folder.

    out: the table to write; the reports go into a folder next to it. The table is written row by
        row, so Ctrl-C keeps the finished rows.
    Raises ValueError if one of the files to write exists already.
    """
    exercises = of_chapter(number)
    reports = out.with_suffix("")
    if out.suffix != ".csv":
        raise ValueError(f"{out}: the table must be a .csv file")
    for path in (out, out.with_suffix(".html"), reports):
        if path.exists():
            raise ValueError(f"{path} exists already: choose another --out, or move it away")
    submissions = submissions_in(folder)
    reports.mkdir(parents=True)
    graded = []
    with (
        open(out, "x", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        table = csv.writer(file)
        names = [f"{e.name} ({e.points})" for e in exercises]
        maximum = sum(e.points for e in exercises)
        table.writerow(["submission", *names, f"points of {maximum}", "notes"])
        try:
            list(pool.map(wrong_outcomes, exercises))  # once, for everybody's hints
            names, paths = submissions.keys(), submissions.values()
            for one in pool.map(grade_one, names, paths, repeat(exercises)):
                graded.append(one)
                points = [verdict.points for verdict in one.verdicts]
                notes = _escape("; ".join(one.notes))
                table.writerow([_escape(one.name), *points, one.points, notes])
                file.flush()
                _write(reports / report_file(one.name), report(number, one))
                done = f"{len(graded):4} of {len(submissions)}"
                print(printable(f"{done}  {one.points:4} points  {one.name}"), flush=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            page = class_report(number, exercises, graded, reports.name)
            _write(out.with_suffix(".html"), page)
    for line in class_table(exercises, graded):
        print(printable(line))
    print(f"wrote {out}, {out.with_suffix('.html')} about the class, and reports in {reports}")
    return graded


def grade_one(name: str, path: Path, exercises: Sequence[Exercise]) -> Graded:
    """Grade one submission, exercise by exercise. Whatever it does, it becomes a note."""
    try:
        return _grade_one(name, path, exercises)
    except Exception as error:
        problem = f"it cannot be graded: {type(error).__name__}: {str(error)[:200]}"
        verdicts = [Verdict(exercise, "failed") for exercise in exercises]
        return Graded(name, verdicts, [""] * len(exercises), problem)


def _grade_one(name: str, path: Path, exercises: Sequence[Exercise]) -> Graded:
    files: dict[str, tuple[str, str]] = {}
    unread = ""
    try:
        if path.is_symlink():
            raise ValueError("it is a link, and was not followed")
        files = read_files(path, exercises)
        if not files:
            unread = "no file of this chapter"
    except (ValueError, OSError) as error:
        unread = str(error)
    verdicts = []
    texts = []
    for exercise in exercises:
        _, text = files.get(exercise.module, ("", ""))
        verdicts.append(assess(exercise, text))
        texts.append(own_text(exercise, text))
    return Graded(name, verdicts, texts, unread)


def own_text(exercise: Exercise, text: str) -> str:
    """The exercise's parts in the text of a file."""
    try:
        known = definitions(parse(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    return "\n\n".join(excerpt(text, known[part]) for part in exercise.parts if part in known)


def same_code(one: str, other: str) -> bool:
    """Whether two texts are equal apart from spaces, comments and docstrings."""

    def bare(text: str) -> str:
        tree = parse("if True:\n" + "\n".join("    " + line for line in text.splitlines()))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        return ast.dump(tree)

    try:
        return bare(one) == bare(other)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _escape(text: str) -> str:
    """Text for a table: a spreadsheet must not compute what looks like a formula."""
    text = printable(text)
    return "'" + text if text.lstrip().startswith(("=", "+", "-", "@", "|", "%")) else text


def report_file(name: str) -> str:
    """The name of a submission's report: that of the submission, if a file can be called so."""
    shown = printable(name)
    if shown == name and len(name.encode()) < 200:
        return f"{name}.html"
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', shown)[:80]}-{digest}.html"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


# -------------------------------------------------------------------------------------------------
# The reports.


def class_table(exercises: Sequence[Exercise], graded: Sequence[Graded]) -> Iterator[str]:
    """For each exercise, how many passed, and its most failed tests."""
    for i, exercise in enumerate(exercises):
        verdicts = [one.verdicts[i] for one in graded]
        states = Counter(verdict.state for verdict in verdicts)
        counts = ", ".join(f"{states[s]} {s}" for s in ("passed", "failed", "not started"))
        yield f"{exercise.name}: {counts}"
        failed = Counter(test for verdict in verdicts for test in failed_tests(verdict))
        for test, count in failed.most_common(5):
            yield f"    {count:4} failed: {test}"


def failed_tests(verdict: Verdict) -> set[str]:
    """The failed tests in words, without their parameters, and a note if they were ended early."""
    failures = verdict.outcome.failed.values() if verdict.outcome else ()
    tests = {failure["test"].partition(" [")[0] for failure in failures}
    if verdict.problem:
        tests.add("(it was not run, or ended early)")
    return tests


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h2 { margin-top: 2.2rem; font-size: 1.15rem }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: left }
td.number, th.number { text-align: right }
th.narrow { font-size: .7rem; padding: .25rem .4rem; vertical-align: bottom }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 13px; line-height: 1.4 }
summary { cursor: pointer }
.passed { color: #1a7f37 }
.failed { color: #b42318 }
.hint { background: #fff6d6; padding: .5rem .8rem; border-radius: 4px }
"""


def page(title: str, body: Sequence[str]) -> str:
    title = html.escape(title)
    head = [
        "<!doctype html>",
        '<html lang="en">',
        '<meta charset="utf-8">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
    ]
    return "\n".join([*head, f"<h1>{title}</h1>", *body, "</html>\n"])


def report(number: int, graded: Graded) -> str:
    """A page about one submission."""
    rows = []
    details = []
    for verdict, text in zip(graded.verdicts, graded.texts):
        exercise = verdict.exercise
        name = html.escape(exercise.name)
        mark = f'<span class="{verdict.state.split()[0]}">{MARKS[verdict.state]}</span>'
        rows.append(
            f'<tr><td>{mark}<td><a href="#{name}">{name}</a><td>{html.escape(exercise.title)}'
            f'<td class="number">{verdict.points}<td class="number">{exercise.points}'
        )
        heading = f"{mark} {name}: {verdict.points} of {exercise.points} points"
        details.append(f'<h2 id="{name}">{heading}</h2>')
        details += _details(verdict)
        if text:
            code = f"<pre>{html.escape(text)}</pre>"
            details.append(f"<details><summary>submitted code</summary>{code}</details>")
    maximum = sum(verdict.exercise.points for verdict in graded.verdicts)
    head = '<tr><th><th>exercise<th><th class="number">points<th class="number">of'
    body = [
        f"<p>Chapter {number}: {graded.points} of {maximum} points</p>",
        *_open_room([graded]),
        f"<p>{html.escape(graded.unread)}</p>",
        f"<table>{head}{''.join(rows)}</table>",
        *details,
    ]
    return page(printable(graded.name), body)


def _open_room(graded: Sequence[Graded]) -> list[str]:
    """A paragraph that says so if submissions were not shut in."""
    outcomes = [verdict.outcome for one in graded for verdict in one.verdicts if verdict.outcome]
    if all(outcome.enclosed for outcome in outcomes):
        return []
    text = (
        "This system has no namespaces for processes, so the submissions could see its files; only "
        "the checks in Python kept them from the solutions. See chapters/attacks.md."
    )
    return [f"<p><b>{text}</b></p>"]


def _details(verdict: Verdict) -> list[str]:
    """Paragraphs about one exercise: what went wrong, and the hint."""
    if verdict.state == "passed":
        return ["<p>All tests pass.</p>"]
    if verdict.state == "not started":
        return ["<p>Not started.</p>"]
    messages = []
    hints = []
    for line in described(verdict):
        if line.startswith("Hint"):
            hints.append(f'<p class="hint">{html.escape(line)}</p>')
        else:
            messages.append(html.escape(line))
    return ["<pre>" + "\n".join(messages) + "</pre>", *hints]


def class_report(
    number: int, exercises: Sequence[Exercise], graded: Sequence[Graded], reports: str
) -> str:
    """A page about the class: the points of each, and how many failed which test."""
    head = ""
    for exercise in exercises:
        name = re.sub(r"([._])", r"\1<wbr>", html.escape(exercise.name))  # may break there
        head += f'<th class="number narrow">{name} ({exercise.points})'
    rows = ""
    for one in graded:
        name = html.escape(printable(one.name))
        address = quote(f"{reports}/{report_file(one.name)}", errors="backslashreplace")
        link = f'<a href="{html.escape(address)}">{name}</a>'
        rows += f'<tr><td>{link}<td class="number">{one.points}'
        for verdict in one.verdicts:
            is_started = verdict.state != "not started"
            cell = str(verdict.points) if is_started else MARKS[verdict.state]
            rows += f'<td class="number {verdict.state.split()[0]}">{cell}'
    failures = html.escape("\n".join(class_table(exercises, graded)))
    body = [
        *_open_room(graded),
        "<h2>Failed tests</h2>",
        f"<pre>{failures}</pre>",
        "<h2>Points</h2>",
        f'<table><tr><th>submission<th class="number">points{head}{rows}</table>',
    ]
    return page(f"Chapter {number}: {len(graded)} submissions", body)
