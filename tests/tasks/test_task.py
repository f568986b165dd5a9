"""A task defined in this file is trained, resumed, evaluated and used from the command line, without changes to the library.

The input is a row of counters, a tensor (F, 2) of varying length F; the output is the sum of its
first column, as a word.
"""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from command_line import error_of
from torch import nn

from mmscratch.__main__ import main
from mmscratch.attention import Memory
from mmscratch.data.dataset import DataSet, LazyColumn
from mmscratch.decoding import generate
from mmscratch.finetuning import load_run
from mmscratch.model import ENCODERS
from mmscratch.tasks import TASKS, Task
from mmscratch.training import Trainer

pytestmark = pytest.mark.xdist_group("counting")  # the tests share a trained run

WORDS = ("zero", "one", "two", "three", "four", "five", "six")


class CounterEncoder(nn.Module):
    """Rows (B, F, 2) -> Memory of one position that holds the sum of each row's real counters, (B, 1, D)."""

    def __init__(self, embed_dim: int, width: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, embed_dim))

    def forward(self, rows, lengths=None):
        if lengths is not None:
            real = torch.arange(rows.size(1)) < lengths.unsqueeze(1)  # (B, F)
            rows = rows.masked_fill(~real.unsqueeze(2), 0.0)
        tokens = self.net(rows.sum(1, keepdim=True))  # (B, 1, D)
        return Memory(tokens, torch.ones(len(rows), 1, dtype=torch.bool))


class Counters(DataSet):
    """Rows of zeros and ones; every ninth example has no row, and its text is "nothing"."""

    def __init__(self, seed: int, count: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        rows = [torch.randint(2, (1 + i % 6, 2), generator=generator).float() for i in range(count)]
        rows = [None if i % 9 == 8 else row for i, row in enumerate(rows)]
        self.columns["counters"] = LazyColumn(torch.clone, rows)
        self.texts = [["nothing" if row is None else WORDS[int(row[:, 0].sum())]] for row in rows]
        self.references = [[text.split() for text in texts] for texts in self.texts]
        self.names = [f"row {i}" for i in range(count)]


class Counting(Task):
    name = "counting"
    example_noun = "rows"
    layouts = ("made", "longer")
    options = {"--rows": {"type": int, "default": 640, "help": "rows to train on"}}
    verb = "count"
    verb_help = "Count the ones in a row."

    def read(self, metadata, split, image_size):
        return Counters(
            {"train": 1, "validation": 2, "test": 3}[split],
            metadata["rows"] if split == "train" else 54,
        )

    def model(self, metadata, chosen, base):
        counters = {"name": "counters", "width": 17}
        return base or {
            "encoders": {"counters": counters},
            "decoder": {"name": "lstm", "hidden_size": 19},
            "embed_dim": 23,
        }

    def settings(self, metadata):
        return {"epochs": 30, "batch_size": 32, "learning_rate": 1e-2, "precision": "float32"}

    def measure(self, run, data, split, num_beams=1):
        model, vocabularies, _ = self.load(run)
        written = generate(model, vocabularies, data, num_beams, 3)
        right = [words in references for words, references in zip(written, data.references)]
        print(f"  counted rightly      {100 * sum(right) / len(right):.1f} %")
        (run / "counted.json").write_text(json.dumps(written))

    def add_verb_options(self, parser):
        parser.add_argument("row", type=int, nargs="+")
        super().add_verb_options(parser)

    def use(self, args):
        model, vocabularies, _ = self.load(args.run)
        row = torch.tensor([[float(number), 0.0] for number in args.row])
        print(*generate(model, vocabularies, [{"counters": row}], args.beams, 3)[0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a trained run, "runs/here"."""
    folder = tmp_path_factory.mktemp("counting")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "counting", Counting())
        patch.setitem(ENCODERS, "counters", CounterEncoder)
        patch.chdir(folder)
        assert main("train --task counting --data here".split()) == 0
        yield folder


def test_a_task_is_trained_with_its_own_settings_and_measured(trained, capsys):
    assert main(["evaluate", "runs/here"]) == 0
    out = capsys.readouterr().out
    assert "validation: 54 examples with 54 texts (48 with counters); 0 problems" in out
    assert "runs/here, 54 rows of the validation split" in out
    assert float(out.split("counted rightly")[1].split()[0]) > 95
    assert main(["evaluate", "runs/here", "--split", "test", "--layout", "longer"]) == 0
    assert "54 rows of the test split" in capsys.readouterr().out
    model, vocabularies, saved = load_run("runs/here")
    assert isinstance(model.encoders["counters"], CounterEncoder) and vocabularies.keys() == {
        "target"
    }
    assert saved["metadata"] == {
        "task": "counting",
        "data": str(Path("here").resolve()),
        "layout": "made",
        "rows": 640,
    }
    assert saved["train_config"]["epochs"] == 30


def test_the_verb_of_a_task_uses_the_run(trained, capsys):
    assert main("count 1 0 1 1 --run runs/here".split()) == 0
    assert capsys.readouterr().out == "three\n"
    assert main("count 0 --run runs/here --beams 2".split()) == 0
    assert capsys.readouterr().out == "zero\n"
    assert main("caption x.jpg --run runs/here".split()) == 2
    assert (
        "runs/here is a run of the task counting, and caption needs one of the task captioning"
        in error_of(capsys)
    )


def test_a_resumed_training_equals_one_that_was_not_stopped(trained, monkeypatch, capsys):
    step = Trainer._train_step

    def pressing(trainer, batch):
        if trainer.step == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer, batch)

    command = "train --task counting --data here --epochs 1 --rows 320 --to".split()
    assert main([*command, "runs/straight"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", pressing)
        assert main([*command, "runs/stopped"]) == 130
    assert main([*command, "runs/stopped"]) == 0
    assert "resuming runs/stopped at step 8 of 10" in capsys.readouterr().out
    straight, stopped = (load_run(run)[0].state_dict() for run in ("runs/straight", "runs/stopped"))
    assert all(torch.equal(straight[name], stopped[name]) for name in straight)


def test_training_starts_only_from_a_run_with_an_encoder_of_the_same_name(trained, capsys):
    assert (
        main("train --task counting --data here --from runs/here --epochs 1 --to runs/more".split())
        == 0
    )
    command = "train --data scenes --scenes 7 --from runs/here --to runs/captioner"
    assert main(command.split()) == 2
    says = "runs/here has encoders for counters, and this model for image"
    assert error_of(capsys) == f"error: {says}"


def test_an_unknown_layout_is_refused(trained, capsys):
    assert main("train --task counting --data here --layout scenes".split()) == 2
    assert "counting has no layout scenes: choose one of made, longer" in error_of(capsys)
    assert main("train --task counting".split()) == 2
    assert "train needs --data DIR" in error_of(capsys)


def test_a_folder_named_scenes_is_read_as_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("scenes").mkdir()
    assert main("train --data scenes".split()) == 2
    assert "exactly one captions file is needed" in error_of(capsys)


@pytest.mark.parametrize(
    "path",
    sorted((Path(__file__).parents[2] / "mmscratch/tasks").glob("*.py")),
    ids=lambda path: path.stem,
)
def test_a_task_is_one_short_file(path):
    if path.stem in {task.__class__.__module__.rpartition(".")[2] for task in TASKS.values()}:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 120
