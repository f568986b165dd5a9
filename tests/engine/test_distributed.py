"""Several processes, on the CPU with gloo: the gradient, validation and checkpoint are those of one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import tiny_trainer
from torch.testing import assert_close

from mmscratch import training
from mmscratch.batches import CaptionPairs, collate, to_device
from mmscratch.engine import distributed
from mmscratch.engine.runs import read_checkpoint
from mmscratch.text import PAD
from mmscratch.training import TrainConfig

CONFIG = TrainConfig(epochs=2, batch_size=7, warmup=4, evaluate_every=5, precision="float32")
STILL = {"backbone": "vit", "depth": 1, "width": 8, "dropout": 0.0}  # no batch norm, no dropout: shares do not matter
ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent


def torchrun(size, code, *arguments, **options):
    """The code in so many processes."""
    environment = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={size}", "--no-python"]
    command += [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, **options)


@pytest.fixture(scope="module", params=[2, 3])
def processes(request, tmp_path_factory):
    """(how many, the folder in which all tasks have left what they found, what was printed)"""
    folder = tmp_path_factory.mktemp("processes")
    done = torchrun(request.param, "import sys, test_distributed as t; t.all_tasks(t.Path(sys.argv[1]))", folder)
    assert done.returncode == 0, done.stderr
    return request.param, folder, done.stdout


def all_tasks(folder):
    distributed.start()
    exchange(folder)
    keep(folder, "gradient", [one_gradient(folder), one_gradient(folder, accumulate=3)])
    keep(folder, "fit", fit(folder))
    keep(folder, "whole", fit_and_stop(folder / "whole", None))
    fit_and_stop(folder / "broken", 5)
    keep(folder, "broken", fit_and_stop(folder / "broken", None))
    distributed.finish()


def keep(folder, name, value):
    torch.save(value, folder / f"{name}{distributed.rank()}.pt")


def kept(folder, name, size):
    return [torch.load(folder / f"{name}{rank}.pt", weights_only=True) for rank in range(size)]


def exchange(folder):
    rank, size = distributed.rank(), distributed.size()
    with distributed.main_first():
        if rank == 0:
            time.sleep(0.5)
            (folder / "made").write_text("by rank 0")
        else:
            assert (folder / "made").exists()
    assert distributed.gather(rank) == list(range(size))
    assert distributed.from_main(f"of {rank}") == "of 0"
    assert distributed.total(torch.tensor([1.0, rank])).tolist() == [size, size * (size - 1) / 2]


def one_gradient(folder, accumulate=1):
    """The gradient of the first 32 captions, of which this process has every size-th."""
    trainer = tiny_trainer(folder / "run", replace(CONFIG, batch_size=32, accumulate=accumulate), **STILL)
    share = range(32)[distributed.rank() :: distributed.size()]
    batch = to_device(collate([trainer.train[i] for i in share]), torch.device("cpu"))
    loss, words, pictures = trainer._gradient(batch)
    own = int((batch["target"] != PAD).sum())
    gradient = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}
    return {"words": words, "own": own, "pictures": pictures, "gradient": gradient, "loss": distributed.total(loss)}


def test_processes_with_unequal_words_have_the_gradient_of_the_whole_batch(processes, tmp_path):
    size, folder, _ = processes
    expected = one_gradient(tmp_path)
    ranks = kept(folder, "gradient", size)
    assert len({rank[0]["own"] for rank in ranks}) > 1  # they have different numbers of words
    for rank in ranks:
        for got in rank:  # at once, and in three parts
            assert got["words"] == expected["words"] == sum(rank[0]["own"] for rank in ranks) and got["pictures"] == 32
            assert_close(got["gradient"], expected["gradient"], rtol=1e-5, atol=1e-6)
            assert_close(got["loss"], expected["loss"], rtol=1e-5, atol=0)


def fit(folder):
    """Train to the end: 53 captions in batches of 13 leave one for the last batch, and none for all ranks but one."""
    trainer = tiny_trainer(folder / "run", replace(CONFIG, batch_size=13), **STILL)
    validated, get = [], CaptionPairs.__getitem__
    CaptionPairs.__getitem__ = lambda pairs, index: (validated.append(index), get(pairs, index))[1]
    trainer._validate()
    CaptionPairs.__getitem__ = get
    trainer.fit()
    return {"validated": validated, "weights": trainer.model.state_dict(), "best": trainer.best_loss, "steps": trainer.step}


def test_a_run_of_several_processes_is_that_of_one(processes, tmp_path):
    size, folder, printed = processes
    alone = tiny_trainer(tmp_path, replace(CONFIG, batch_size=13), **STILL)
    alone.fit()
    ranks = kept(folder, "fit", size)
    assert Counter(index for rank in ranks for index in rank["validated"]) == Counter(range(len(alone.validation)))
    for rank in ranks:
        assert rank["steps"] == 10 and rank["best"] == pytest.approx(alone.best_loss, abs=1e-5)
        assert all(torch.equal(value, rank["weights"][name]) for name, value in ranks[0]["weights"].items())
    assert printed.count("step 10/10  validation loss") == 1  # only rank 0 speaks
    assert sorted(path.name for path in (folder / "run").iterdir()) == ["best.pt", "last.pt", "metrics.jsonl"]
    entries = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if "validation_loss" in entry] == [5, 10]
    states = read_checkpoint(folder / "run/last.pt")["random_states"]
    assert len(states) == size and not torch.equal(states[0]["torch"], states[1]["torch"])  # dropout differs


def fit_and_stop(folder, stop):
    """With dropout and batch norm; one process is asked to stop in that step, if any."""
    trainer = tiny_trainer(folder, replace(CONFIG, workers=1))
    step = trainer._train_step

    def stopping(batch):
        if trainer.step + 1 == stop and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(batch)

    trainer._train_step = stopping
    try:
        trainer.fit()
    except KeyboardInterrupt:
        pass
    assert trainer.step == (stop or 16)
    del trainer._train_step  # a circle, which would keep the workers
    return [trainer.model.state_dict(), trainer.optimizer.state_dict()["state"]]


def test_all_stop_when_one_is_asked_to_and_resume_is_exact(processes):
    size, folder, _ = processes
    for whole, broken in zip(kept(folder, "whole", size), kept(folder, "broken", size)):
        assert all(torch.equal(value, broken[0][name]) for name, value in whole[0].items())
        for number, state in whole[1].items():
            assert all(torch.equal(value, broken[1][number][name]) for name, value in state.items())


def test_another_number_of_processes_goes_on_and_says_that_it_is_not_exact(processes, capsys):
    size, folder, _ = processes
    trainer = tiny_trainer(folder / "broken", CONFIG)
    assert trainer.step == 16 and f"saved by {size} processes, gone on with by 1" in capsys.readouterr().out


def test_parts_are_exchanged_once_a_step(tmp_path, monkeypatch):
    """no_sync: of three parts, the gradients of the first two stay at home."""
    calls = []

    class Parallel(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.module = model
            self.together = True

        def forward(self, batch, **options):
            calls.append(self.together)
            return self.module(batch, **options)

        def no_sync(self):
            parallel = self

            class Apart:
                def __enter__(self):
                    parallel.together = False

                def __exit__(self, *_):
                    parallel.together = True

            return Apart()

    monkeypatch.setattr(training, "DistributedDataParallel", Parallel)
    monkeypatch.setattr(distributed, "size", lambda: 2)
    trainer = tiny_trainer(tmp_path, replace(CONFIG, accumulate=3), **STILL)
    trainer._gradient(collate([trainer.train[i] for i in range(7)]))
    assert calls[-3:] == [False, False, True]


def dying(folder):
    distributed.start()
    trainer = tiny_trainer(folder, replace(CONFIG, epochs=100_000))
    step = trainer._train_step

    def die(batch):
        if trainer.step == 3 and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(batch)

    trainer._train_step = die
    try:
        trainer.fit()
    except ConnectionError as error:
        sys.exit(str(error))


def test_one_process_that_dies_ends_the_others_with_a_message(tmp_path):
    start = time.monotonic()
    done = torchrun(2, "import sys, test_distributed as t; t.dying(t.Path(sys.argv[1]))", tmp_path)
    assert done.returncode != 0 and time.monotonic() - start < 60
    assert "another process of this run has ended" in done.stderr


def test_the_command_line_under_torchrun(tmp_path):
    code = "import sys, mmscratch.__main__ as m; m.VALIDATION_SCENES = m.TEST_SCENES = 13; "
    code += "sys.exit(m.main(['quickstart', '--scenes', '100']))"
    done = torchrun(2, code, cwd=tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert done.stdout.count("drawing 100 scenes") == done.stdout.count("BLEU-4") == 1
    assert (tmp_path / "runs/quickstart/captions-test.png").exists()


def test_alone_all_of_it_does_nothing(tmp_path):
    distributed.start()
    exchange(tmp_path)
    assert (distributed.rank(), distributed.size()) == (0, 1)
    distributed.finish()
