"""The chapters: their list, their sections, and the notebooks made from them."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import torch
from torch.testing import assert_close

from chapters import chapter, notebooks
from chapters.__main__ import Entry, book
from chapters.chapter import ROOT
from chapters.measured import few_labels, multi30k, translator
from mmscratch.audio import read_wav
from mmscratch.data.dataset import DataSet
from mmscratch.data.judge import judge
from mmscratch.data.scenes import draw
from mmscratch.decoding import alignment
from mmscratch.model import ModelConfig, build_model
from mmscratch.recurrent import LSTMCell
from mmscratch.text import BytePairEncoding
from mmscratch.vision import ResNet

SECTIONS = [
    "The idea",
    "By hand",
    "The piece",
    "Use it",  # or Train it
    "Look",
    "What to notice",
    "Your turn",
    "Sources",
]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
TINY = """\
# %% [markdown]
# # 41 · A tiny chapter
#
# **Adds** nothing. **Takes** 0.1 min on two cores.

# %%
from IPython.display import Image, display

print(6 * 7)
display(Image("pixel.png"))

# %% [markdown]
# ## The idea
"""

each_chapter = pytest.mark.parametrize("entry", book(), ids=lambda entry: entry.path.stem)


def python(*arguments, cwd=ROOT, **environment):
    """Run Python without the variables that a notebook or a shell may have set."""
    kept = dict(os.environ)
    for name in ("JPY_SESSION_NAME", "MMSCRATCH_FAST", "PYTHONPATH"):
        kept.pop(name, None)
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=cwd,
        env=kept | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


# ----------------------------------------------------------------------------------------------
# python -m chapters


@pytest.fixture(scope="module")
def listing():
    return python("-m", "chapters", PYTHONIOENCODING="utf-8")


def test_consecutive_prints_of_a_cell_are_one_output():
    def stream(text, name="stdout"):
        return nbformat.v4.new_output("stream", name=name, text=text)

    picture = nbformat.v4.new_output("display_data", data={"image/png": PIXEL})
    outputs = [stream("a"), stream("b"), picture, stream("c"), stream("d", "stderr"), stream("e")]
    cells = [nbformat.v4.new_markdown_cell("x"), nbformat.v4.new_code_cell("x", outputs=outputs)]
    notebooks.join_streams(nbformat.v4.new_notebook(cells=cells))
    printed = [(output.get("name"), output.get("text")) for output in cells[1].outputs]
    assert printed == [
        ("stdout", "ab"), (None, None), ("stdout", "c"), ("stderr", "d"), ("stdout", "e"),
    ]  # fmt: skip


@each_chapter
def test_code_cells_fit_a_notebook_page(entry):
    for cell in notebooks.make(entry).cells[1:]:  # the first prepares the notebook
        if cell.cell_type == "code":
            lines = cell.source.splitlines()
            assert max(map(len, lines)) <= 88, cell.source
            assert sum(bool(line.strip()) for line in lines) <= 25, cell.source


@each_chapter
def test_list_has_every_chapter(entry, listing):
    assert (listing.returncode, listing.stderr) == (0, "")
    [line] = [line for line in listing.stdout.splitlines() if line.startswith(f"{entry.number:2} ")]
    assert line[4:].startswith(f"{entry.title}  ") and line.endswith(f"  {entry.adds}")


def test_an_unknown_chapter_is_an_error():
    run = python("-m", "chapters", "99")
    numbers = ", ".join(str(entry.number) for entry in book())
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr == f"error: there is no chapter 99: choose {numbers} or all\n"


def test_chapter_as_a_script(tmp_path):
    code = "from chapters.chapter import Chapter; c = Chapter(41); "
    code += "print(c.choose('full', 'fast'), c.folder.as_posix())"
    unknown = python("-c", code, "--slow", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert unknown.returncode == 2 and "unrecognized arguments: --slow" in unknown.stderr
    assert list(tmp_path.iterdir()) == []
    for flags, words in ([], "full runs/ch41"), (["--fast"], "fast runs/ch41-fast"):
        run = python("-c", code, *flags, cwd=tmp_path, PYTHONPATH=str(ROOT))
        assert (run.returncode, run.stdout) == (0, words + "\n"), run.stderr
        assert (tmp_path / words.split()[1]).is_dir()
    code = "from chapters.chapter import Chapter; Chapter(41); raise {}"
    stopped = python("-c", code.format("KeyboardInterrupt"), cwd=tmp_path, PYTHONPATH=str(ROOT))
    broken = python("-c", code.format("OSError"), cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert stopped.returncode != 0 and stopped.stderr == "\nstopped\n"
    assert broken.returncode == 1 and "Traceback" in broken.stderr
    code = "from chapters.chapter import Chapter, Figure; c = Chapter(41); "
    code += "c.draw(Figure(), 'two words'); c.finish()"
    run = python("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))
    picture = tmp_path / "runs" / "ch41" / "two-words.png"
    assert f"see {picture.relative_to(tmp_path)}\nChapter 41 took 0 min " in run.stdout
    assert picture.is_file()
    assert list(json.loads(picture.with_name("finished.json").read_text())) == ["seconds"]


# ----------------------------------------------------------------------------------------------
# Their sections


def test_chapters_are_numbered_from_1():
    numbers = [entry.number for entry in book()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [entry.path.name[:5] for entry in book()] == [f"ch{number:02}_" for number in numbers]


def test_all_measurements_of_chapter_7_are_in_the_file():
    measured = []
    for row in few_labels.results():
        keys = ("task", "method", "labels", "seed", "longer")
        measured.append(tuple(row[key] for key in keys))
        # with photographs, new words are trained as well
        if row["method"] == "LoRA" and row["task"] != "photographs":
            assert row["trained"] <= 0.05 * row["parameters"]
    assert sorted(measured) == sorted(few_labels.plan())


def test_all_of_multi30k_is_measured():
    names = [*multi30k.TRANSLATORS, multi30k.WITH_PHOTOGRAPHS, multi30k.TEXT_ALONE]
    assert sorted(row["name"] for row in multi30k.results()) == sorted(names)


def test_better_translators_were_trained_as_the_task_is():
    settings = translator.Translation().settings(translator.METADATA)
    rows = translator.results()
    assert len(rows) >= 2 and {row["name"] for row in rows} <= translator.SEEDS.keys()
    for row in rows:
        assert row["epochs"] == settings["epochs"] and row.keys() >= set(translator.WAYS)


def test_weights_are_averaged_one_by_one():
    states = [{"a": torch.tensor([1.0, 4.0])}, {"a": torch.tensor([2.0, 2.0])}]
    assert_close(translator.mean_of(states)["a"], torch.tensor([1.5, 3.0]))


class Sentences(DataSet):
    def __init__(self, *sources):
        super().__init__()
        self.columns["source"] = [source.split() for source in sources]
        self.texts, self.references, self.names = (
            [[i] for i in range(len(sources))] for _ in range(3)
        )


def test_hidden_masks_all_colours_or_one_noun():
    sentences = Sentences("an orange dog and a red ball", "it rains", "a man sits")
    hidden = multi30k.Hidden(sentences, ["nothing", "colours", "noun"])
    assert [" ".join(source) for source in hidden.columns["source"]] == [
        "an orange dog and a red ball", "it rains", "a man sits", "a [v] dog and a [v] ball",
        "an orange [v] and a red ball", "a [v] sits",
    ]  # fmt: skip
    assert hidden.rows == [0, 1, 2, 0, 0, 2] and hidden.nouns == [None] * 4 + ["dog", "man"]
    assert hidden.references == hidden.texts == [[i] for i in hidden.rows]


@pytest.mark.parametrize("token, colour", [
    ("roten", "rot"), ("dunkelblauer", "blau"), ("orangefarbene", "orange"), ("rosa", "rosa"), ("rote", "rot"), ("brot", None),
])  # fmt: skip
def test_german_colour_words_with_any_ending(token, colour):
    assert multi30k.colour_of(token) == colour


@pytest.mark.parametrize("sentence, verbs", [
    ("ein mann , der einen ball wirft .", ["wirft"]), ("zwei männer bauen eine hütte auf .", ["auf"]),
    ("leute warten darauf , die straße zu überqueren", ["überqueren"]), ("ein hund läuft im gras .", []),
    ("ein mann , eine frau und ein hund .", []),
])  # fmt: skip
def test_last_verbs_of_german_clauses(sentence, verbs):
    words = sentence.split()
    assert [words[t] for t in multi30k.last_verbs(words)] == verbs


def test_jumps_counts_backward_moves_of_attention():
    written = "leute warten , die straße zu überqueren".split()
    weights = torch.nn.functional.one_hot(torch.tensor([0, 2, 1, 5, 6, 3, 4]), 7).float()[None]
    # the verb moves once, forward by 1; the others five times: +2, -1, +4, +1 and -3
    assert multi30k.jumps([([], written, weights)]) == [{"verbs": [1, 0, 1], "others": [5, 2, 3]}]


def test_word_alignment_combines_the_pieces_of_a_word():
    # One merge, so "▁" "ab" or the like: several pieces per word.
    encoding = BytePairEncoding.learn([["ab", "ab", "cd"]], 1)
    part = {"name": "transformer", "num_heads": 2, "num_layers": 2}
    encoders = {"source": part | {"vocab_size": len(encoding)}}
    model = build_model(
        ModelConfig(len(encoding), encoders, part, embed_dim=8, joint_vocabulary=True)
    )
    vocabularies = {"target": encoding, "source": encoding}
    source, written, weights = multi30k.word_alignment(
        model, vocabularies, ["ab", "cd", "x"], ["cd", "ab"]
    )
    of_pieces = alignment(model, vocabularies, source, written)
    ends = [len(encoding.encode(source[:i])) for i in range(4)]
    first = len(encoding.encode(["cd"]))
    assert weights.shape == (2, 2, 3)
    for s in range(3):
        assert_close(weights[:, 0, s], of_pieces[:, :first, ends[s] : ends[s + 1]].sum(-1).mean(1))


@pytest.mark.parametrize("task", ["inverted and noisy", "unseen nouns", "German", few_labels.OLD])
def test_tasks_of_chapter_7_show_what_their_names_say(task):
    data = few_labels.training_set(task, 20, 0)
    other = few_labels.training_set(task, 20, 1)
    test = few_labels.test_set(task, 20)
    assert len({scene.seed for each in (data, other, test) for scene in each.scenes}) == 60
    language = "de" if task == "German" else "en"
    for i, scene in enumerate(data.scenes):
        has_unseen = any(obj.noun in few_labels.UNSEEN for obj in scene.objects)
        assert has_unseen == (task == "unseen nouns")
        assert len(data.texts[i]) == 5
        assert all(judge(text, scene, language).true for text in data.texts[i])
        image = data[i]["image"].float()
        if task == "inverted and noisy":
            noise = 255 - image - draw(scene).float()
            assert noise.abs().mean() > 10 and abs(noise.mean()) < 10
            assert torch.equal(data[i]["image"].float(), image)
        else:
            assert torch.equal(image, draw(scene).float())


@each_chapter
def test_chapter_has_all_sections(entry):
    assert entry.title and entry.adds and 0 < entry.minutes <= 4
    headings = re.findall(r"^# ## (.+)$", entry.path.read_text(encoding="utf-8"), re.MULTILINE)
    assert [heading.replace("Train it", "Use it") for heading in headings] == SECTIONS


# ----------------------------------------------------------------------------------------------
# Their notebooks


@each_chapter
def test_notebook_matches_the_chapter(entry):
    assert notebooks.differences(entry) == []
    assert entry.path.with_suffix(".ipynb").stat().st_size <= notebooks.MAX_BYTES == 1_000_000


def run_fast(entry, root):
    """The notebook of a chapter, run again in a copy of the repository."""
    for name in ("chapters", "mmscratch"):
        shutil.copytree(
            ROOT / name, root / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "*.pyc.*")
        )
    notebook = nbformat.read(
        root / "chapters" / entry.path.with_suffix(".ipynb").name, as_version=4
    )
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebooks.execute(notebook, root / "chapters")
    return notebook


@each_chapter
@pytest.mark.notebook
def test_notebook_runs(entry, tmp_path, monkeypatch):
    for name in ("JPY_SESSION_NAME", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MMSCRATCH_FAST", "1")
    notebook = run_fast(entry, tmp_path)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    problems = [
        output
        for output in notebooks.outputs(notebook)
        if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert problems == []
    assert (tmp_path / "runs" / f"ch{entry.number:02}-fast" / "finished.json").is_file()


@pytest.fixture
def tiny(tmp_path):
    """A chapter in its own repository."""
    root = tmp_path / "a repository"
    for name in ("mmscratch/text.py", "chapters/figures/_", "requirements.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    path = root / "chapters" / "ch41_tiny.py"
    path.write_text(TINY, encoding="utf-8")
    return Entry(path, 41, "A tiny chapter", "nothing", 0.1)


def write(entry, notebook):
    nbformat.write(notebook, entry.path.with_suffix(".ipynb"))


def executed(entry):
    """The notebook as if it had been executed."""
    notebook = notebooks.make(entry)
    for i, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.execution_count = i + 1
    notebook.cells[2].outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="42\n"),
        nbformat.v4.new_output("display_data", {"image/png": PIXEL}),
    ]
    return notebook


def test_notebook_has_the_cells_of_the_chapter(tiny):
    notebook = notebooks.make(tiny)
    assert [cell.cell_type for cell in notebook.cells] == ["code", "markdown", "code", "markdown"]
    assert notebook.cells[0].source == notebooks.FIRST_CELL
    assert notebook.cells[3].source == "## The idea"
    assert notebook == notebooks.make(tiny)
    write(tiny, executed(tiny))
    assert notebooks.differences(tiny) == []


def test_a_missing_notebook_is_reported(tiny):
    assert notebooks.differences(tiny) == ["ch41_tiny.ipynb is missing"]


def print_on(name, text):
    """A change to a notebook: one more output."""
    return lambda n: n.cells[2].outputs.append(
        nbformat.v4.new_output("stream", name=name, text=text)
    )


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda n: n.cells[2].update(source="print(43)"),
            "ch41_tiny.ipynb: cell 2 differs from ch41_tiny.py",
        ),
        (
            lambda n: n.cells[0].update(source="import os"),
            "ch41_tiny.ipynb: cell 0 differs from ch41_tiny.py",
        ),
        (lambda n: n.cells.pop(), "ch41_tiny.ipynb: cell 3 differs from ch41_tiny.py"),
        (
            lambda n: n.cells[3].update(
                n.cells[3].source and nbformat.v4.new_raw_cell("## The idea")
            ),
            "cell 3 differs",
        ),
        (lambda n: n.cells[2].update(execution_count=None), "not executed"),
        (lambda n: n.cells[2].update(outputs=[]), "shows no picture"),
        (print_on("stderr", "Warning: old"), "prints an error or a warning: Warning: old"),
        (
            lambda n: n.cells[2].outputs.append(
                nbformat.v4.new_output("error", ename="E", evalue="6 / 0")
            ),
            "6 / 0",
        ),
        (
            print_on("stdout", "<torch.Generator at 0x7f0f>"),
            "shows an address in memory: <torch.Generator at 0x7f0f>",
        ),
        (print_on("stdout", f"see {ROOT}/runs/a.png"), f"names a path of this machine: {ROOT}"),
        (
            print_on("stdout", os.path.expanduser("~/a.png")),
            f"a path of this machine: {os.path.expanduser('~')}",
        ),
    ],
    ids=[
        "a cell",
        "first cell",
        "a cell less",
        "kind",
        "not run",
        "no picture",
        "stderr",
        "error",
        "address",
        "root",
        "home",
    ],
)
def test_a_changed_notebook_is_reported(tiny, change, words):
    notebook = executed(tiny)
    change(notebook)
    write(tiny, notebook)
    [difference] = notebooks.differences(tiny)
    assert words in difference


def test_a_changed_chapter_is_reported(tiny):
    write(tiny, executed(tiny))
    tiny.path.write_text(TINY.replace("6 * 7", "6 * 8"), encoding="utf-8")
    assert notebooks.differences(tiny) == ["ch41_tiny.ipynb: cell 2 differs from ch41_tiny.py"]


@pytest.mark.notebook
def test_build_executes_and_is_deterministic(tiny):
    root = tiny.path.parents[1]
    (root / "pixel.png").write_bytes(notebooks.base64.b64decode(PIXEL))
    built = []
    for _ in range(2):
        notebooks.build(tiny)
        built.append(tiny.path.with_suffix(".ipynb").read_bytes())
    assert built[0] == built[1] and notebooks.differences(tiny) == []
    notebook = nbformat.read(tiny.path.with_suffix(".ipynb"), as_version=4)
    assert notebooks.outputs(notebook)[0].text == "42\n" and len(notebooks.pictures(notebook)) == 1
    assert (root / "chapters" / "figures" / "ch41.png").is_file()
    tiny.path.write_text(
        TINY + "\n# %%\nimport sys\n\nprint('careful', file=sys.stderr)\n", encoding="utf-8"
    )
    with pytest.raises(ValueError, match="ch41_tiny.py: prints an error or a warning: careful"):
        notebooks.build(tiny)
    assert tiny.path.with_suffix(".ipynb").read_bytes() == built[0]


# ----------------------------------------------------------------------------------------------
# The first cell of every notebook

AFTER = "\nimport mmscratch.text as s; print(Path.cwd(), Path(s.__file__).parents[1], sep='\\n')"


@pytest.mark.parametrize("place", [".", "chapters", "chapters/figures", ".."])
def test_first_cell_finds_the_repository(tiny, place):
    root = tiny.path.parents[1].resolve()
    run = python("-c", notebooks.FIRST_CELL + AFTER, cwd=root / place)
    assert (run.returncode, run.stdout.splitlines(), run.stderr) == (0, [str(root)] * 2, "")


def test_first_cell_finds_the_repository_of_the_notebook(tiny, tmp_path_factory):
    root = tiny.path.parents[1].resolve()
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "inside"
    elsewhere.mkdir()
    run = python("-c", notebooks.FIRST_CELL + AFTER, cwd=elsewhere, JPY_SESSION_NAME=str(tiny.path))
    assert (run.returncode, run.stdout.splitlines(), run.stderr) == (0, [str(root)] * 2, "")


def test_the_first_cell_outside_the_repository_is_an_error(tmp_path):
    (tmp_path / "mmscratch").mkdir()  # only the name is that of the package
    run = python("-c", notebooks.FIRST_CELL + AFTER, cwd=tmp_path)
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr == (
        "Open this notebook from chapters/ in the repository: "
        f"{tmp_path.resolve()} is not inside it.\n"
    )


@pytest.mark.parametrize("missing", ["torch", "torchvision", "numpy", "PIL", "matplotlib"])
def test_the_first_cell_says_how_to_install_missing_packages(tiny, missing):
    root = tiny.path.parents[1].resolve()
    before = "import importlib.util as u; f = u.find_spec; "
    before += f"u.find_spec = lambda n: None if n == '{missing}' else f(n)\n"
    run = python("-c", before + notebooks.FIRST_CELL, cwd=root / "chapters")
    assert run.returncode == 1
    assert run.stderr.startswith("A package is missing. ") and run.stderr.count("\n") == 1
    assert f'"{sys.executable}" -m pip install -r "{root / "requirements.txt"}"' in run.stderr


# ----------------------------------------------------------------------------------------------
# play

WAVEFORM = torch.sin(torch.arange(8009) / 7) / 2


@pytest.fixture
def silent_chapter(tmp_path, monkeypatch):
    """Chapter 41 in a folder of its own, as in a notebook."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chapter, "NOTEBOOK", True)
    return chapter.Chapter(41)


def test_a_script_writes_a_sound_and_prints_its_path(silent_chapter, monkeypatch, capsys):
    monkeypatch.setattr(chapter, "NOTEBOOK", False)
    silent_chapter.play(WAVEFORM, 8000, "a long tone")
    path = silent_chapter.folder / "a-long-tone.wav"
    assert capsys.readouterr().out == f"hear {path}\n"
    heard, rate = read_wav(path)
    assert rate == 8000
    assert_close(heard, WAVEFORM, rtol=0, atol=1e-4)


def test_a_notebook_plays_a_sound(silent_chapter, monkeypatch, capsys, tmp_path):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    silent_chapter.play(WAVEFORM, 16_000, "a tone")
    [audio] = shown
    path = tmp_path / "heard.wav"
    path.write_bytes(audio.data)
    heard, rate = read_wav(path)
    assert rate == 16_000
    assert_close(heard, WAVEFORM, rtol=0, atol=1e-4)
    assert "audio/wav" in audio._repr_html_()
    assert capsys.readouterr().out == "a tone:\n"


def test_a_sound_of_more_than_60_kb_is_refused(silent_chapter, monkeypatch):
    monkeypatch.setattr("IPython.display.display", lambda audio: None)
    silent_chapter.play(torch.zeros(29_978), 16_000, "short")
    assert (silent_chapter.folder / "short.wav").stat().st_size == chapter.MAX_SOUND == 60_000
    with pytest.raises(ValueError, match="^the sound 'long' has 60,002 bytes, more than 60,000: "):
        silent_chapter.play(torch.zeros(29_979), 16_000, "long")
    assert not (silent_chapter.folder / "long.wav").exists()


# ----------------------------------------------------------------------------------------------
# show


def is_at(text, source):
    """Is `source` in the file that `text` names, from the line that it names?"""
    path, line = re.search(r"([\w/]+\.py), line (\d+)", text).groups()
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    first = int(line) - 1
    return lines[first : first + source.count("\n")] == source.splitlines()


@pytest.mark.parametrize(
    "piece", [LSTMCell, ResNet, ResNet.forward, notebooks.differences], ids=lambda p: p.__qualname__
)
def test_show_prints_the_source_and_its_location(piece, monkeypatch, capsys):
    monkeypatch.setattr(chapter, "NOTEBOOK", False)
    chapter.show(piece)
    printed, source = capsys.readouterr().out, inspect.getsource(piece)
    assert is_at(printed, source)
    margin = len(source) - len(source.lstrip())
    assert margin == (4 if piece is ResNet.forward else 0)
    assert re.sub(f"^ {{{margin}}}", "", source, flags=re.MULTILINE) in printed
    compile(printed, "printed", "exec")  # the location is a comment


def test_show_in_a_notebook_links_to_the_source(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(chapter, "NOTEBOOK", True)
    monkeypatch.setattr("IPython.display.display", shown.append)
    chapter.show(ResNet)
    [text] = [markdown.data for markdown in shown]
    link = "[`mmscratch/vision.py`](../mmscratch/vision.py)"
    assert text == f"{link}\n\n```python\n{inspect.getsource(ResNet)}```"
    assert capsys.readouterr().out == ""


def test_an_outdated_piece_is_reported(tiny, monkeypatch):
    shown = []
    monkeypatch.setattr(chapter, "NOTEBOOK", True)
    monkeypatch.setattr("IPython.display.display", shown.append)
    chapter.show(ResNet.forward)
    for text, found in (
        (shown[0].data, []),
        (shown[0].data.replace("mean", "amax"), ["def forward(self, x: Tensor)"]),
    ):
        notebook = executed(tiny)
        output = nbformat.v4.new_output("display_data", {"text/markdown": text})
        notebook.cells[2].outputs.append(output)
        write(tiny, notebook)
        differences = notebooks.differences(tiny)
        assert len(differences) == len(found)
        assert all(word in line for word, line in zip(found, differences))
