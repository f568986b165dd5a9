"""Grade a folder of submissions: a table, a report a submission, and which test the class fails. See chapters/instructors.md."""

import ast
import csv
import html
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .exercises import Exercise, of_chapter
from .splice import definitions, excerpt, library, parse
from .submissions import read_files, submissions_in
from .verdicts import MARKS, Verdict, described, verdict, wrong_outcomes


class Graded(NamedTuple):
    """A submission: what is said of each exercise, the learner's text of it, and why it could not be read, or ""."""

    name: str
    verdicts: list[Verdict]
    texts: list[str]
    unread: str

    @property
    def points(self) -> int:
        return sum(one.points for one in self.verdicts)

    @property
    def notes(self) -> list[str]:
        """What the instructor should know."""
        pairs = [(one.exercise, text) for one, text in zip(self.verdicts, self.texts)]
        copied = [
            e.name for e, text in pairs if text and same_code(text, own_text(e, library(e.module)))
        ]
        notes = [self.unread, f"as in the library: {', '.join(copied)}" if copied else ""]
        return [
            note
            for note in [
                *notes,
                *(f"{v.exercise.name}: {v.problem}" for v in self.verdicts if v.problem),
            ]
            if note
        ]


def grade(number: int, folder: Path, out: Path) -> list[Graded]:
    """Grade every file, folder and zip file in `folder`; `out` is the table, and the reports lie in a folder beside it.

    The table is written line by line, so that what was graded before Ctrl-C stays. Raises ValueError if `out` is there.
    """
    exercises, reports = of_chapter(number), out.with_suffix("")
    if out.suffix != ".csv":
        raise ValueError(f"{out}: the table is a .csv file")
    for path in (out, out.with_suffix(".html"), reports):
        if path.exists():
            raise ValueError(
                f"{path} is there already, and stays as it is: choose another --out, or move it away"
            )
    submissions = submissions_in(folder)
    reports.mkdir(parents=True)
    graded = []
    with (
        open(out, "x", newline="", encoding="utf-8") as file,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        table = csv.writer(file)
        names = [f"{e.name} ({e.points})" for e in exercises]
        most = sum(e.points for e in exercises)
        table.writerow(["submission", *names, f"points of {most}", "notes"])
        try:
            list(pool.map(wrong_outcomes, exercises))  # once, for the hints of all
            for one in pool.map(lambda item: grade_one(*item, exercises), submissions.items()):
                graded.append(one)
                points = [v.points for v in one.verdicts]
                table.writerow([_harmless(one.name), *points, one.points, "; ".join(one.notes)])
                file.flush()
                (reports / f"{one.name}.html").write_text(report(number, one), encoding="utf-8")
                done = f"{len(graded):4} of {len(submissions)}"
                print(f"{done}  {one.points:4} points  {one.name}", flush=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            out.with_suffix(".html").write_text(
                class_report(number, exercises, graded, reports.name), encoding="utf-8"
            )
    for line in class_table(exercises, graded):
        print(line)
    print(f"wrote {out}, {out.with_suffix('.html')} about all, and in {reports} a report for each")
    return graded


def grade_one(name: str, path: Path, exercises: Sequence[Exercise]) -> Graded:
    """One submission, its exercises one after another."""
    files: dict[str, tuple[str, str]] = {}
    try:
        if path.is_symlink():
            raise ValueError("it is a link, and was not followed")
        files = read_files(path, exercises)
        unread = "" if files else "no file of this chapter"
    except (ValueError, OSError) as error:
        unread = str(error)
    whole = [files.get(exercise.module, ("", ""))[1] for exercise in exercises]
    texts = [own_text(exercise, text) for exercise, text in zip(exercises, whole)]
    return Graded(
        name, [verdict(exercise, text) for exercise, text in zip(exercises, whole)], texts, unread
    )


def own_text(exercise: Exercise, text: str) -> str:
    """What a file has of the exercise's parts."""
    try:
        known = definitions(parse(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    return "\n\n".join(excerpt(text, known[part]) for part in exercise.parts if part in known)


def same_code(one: str, other: str) -> bool:
    """Are they the same but for spaces, comments and docstrings?"""

    def bare(text: str) -> str:
        tree = parse("if True:\n" + "\n".join("    " + line for line in text.splitlines()))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        return ast.dump(tree)

    try:
        return bare(one) == bare(other)
    except SyntaxError:
        return False


def _harmless(text: str) -> str:
    """For a table: what begins like a formula must not be computed by whoever opens it."""
    return "'" + text if text.startswith(("=", "+", "-", "@")) else text


# -------------------------------------------------------------------------------------------------
# What is written of it.


def class_table(exercises: Sequence[Exercise], graded: Sequence[Graded]) -> Iterator[str]:
    """For each exercise how many passed, and which of its tests were failed by how many, the most first."""
    for i, exercise in enumerate(exercises):
        verdicts = [one.verdicts[i] for one in graded]
        states = Counter(one.state for one in verdicts)
        yield f"{exercise.name}: {states['passed']} passed, {states['failed']} failed, {states['not started']} not started"
        failed = Counter(words for one in verdicts for words in failed_tests(one))
        yield from (f"    {count:4} failed: {words}" for words, count in failed.most_common(5))


def failed_tests(verdict: Verdict) -> set[str]:
    """In words, without what they were called with; and why it was ended, if it was."""
    failures = verdict.outcome.failed.values() if verdict.outcome else ()
    words = {failure["test"].partition(" [")[0] for failure in failures}
    return words | {"(it was not run, or ended early)"} if verdict.problem else words


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
    head = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n<style>{STYLE}</style>'
    return "\n".join([head, f"<h1>{title}</h1>", *body, "</html>\n"])


def report(number: int, graded: Graded) -> str:
    """A page about one submission."""
    most = sum(one.exercise.points for one in graded.verdicts)
    rows, details = [], []
    for one, text in zip(graded.verdicts, graded.texts):
        exercise, mark = (
            one.exercise,
            f'<span class="{one.state.split()[0]}">{MARKS[one.state]}</span>',
        )
        name = html.escape(exercise.name)
        rows.append(f'<tr><td>{mark}<td><a href="#{name}">{name}</a><td>{html.escape(exercise.title)}'
                    f'<td class="number">{one.points}<td class="number">{exercise.points}')  # fmt: skip
        details.append(
            f'<h2 id="{name}">{mark} {name}: {one.points} of {exercise.points} points</h2>'
        )
        lines = list(described(one))
        hints = [line for line in lines if line.startswith("Hint")]
        said = html.escape("\n".join(line for line in lines if line not in hints))
        shown = {
            "passed": "<p>All tests pass.</p>",
            "failed": f"<pre>{said}</pre>",
            "not started": "<p>Not started.</p>",
        }
        details.append(shown[one.state])
        details += [f'<p class="hint">{html.escape(line)}</p>' for line in hints]
        if text:
            details.append(
                f"<details><summary>what was handed in</summary><pre>{html.escape(text)}</pre></details>"
            )
    head = '<tr><th><th>exercise<th><th class="number">points<th class="number">of'
    total = f"<p>Chapter {number}: {graded.points} of {most} points</p>"
    return page(
        graded.name,
        [
            total,
            f"<p>{html.escape(graded.unread)}</p>",
            f"<table>{head}{''.join(rows)}</table>",
            *details,
        ],
    )


def class_report(
    number: int, exercises: Sequence[Exercise], graded: Sequence[Graded], reports: str
) -> str:
    """A page about all: the points of each, and which test was failed by how many."""
    names = [
        re.sub(r"([._])", r"\1<wbr>", html.escape(e.name)) for e in exercises
    ]  # where a long name may be broken
    head = "".join(
        f'<th class="number narrow">{name} ({e.points})' for name, e in zip(names, exercises)
    )
    rows = []
    for one in graded:
        name = html.escape(one.name)
        cells = (
            MARKS[v.state] if v.state == "not started" else str(v.points) for v in one.verdicts
        )
        rows.append(
            f'<tr><td><a href="{html.escape(reports)}/{name}.html">{name}</a><td class="number">{one.points}'
        )
        rows += [
            f'<td class="number {v.state.split()[0]}">{cell}'
            for v, cell in zip(one.verdicts, cells)
        ]
    return page(f"Chapter {number}: {len(graded)} submissions", [
        "<h2>Which test was failed by how many</h2>",
        f"<pre>{html.escape(chr(10).join(class_table(exercises, graded)))}</pre>",
        "<h2>Points</h2>",
        f'<table><tr><th>submission<th class="number">points{head}{"".join(rows)}</table>',
    ])  # fmt: skip
