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
from helpers import deterministic_settings, in_processes, step_gradients, tiny_trainer
from torch import nn
from torch.testing import assert_close

from mmscratch import training
from mmscratch.batches import Examples, collate, to_device
from mmscratch.engine import distributed
from mmscratch.engine.runs import read_checkpoint
from mmscratch.text import PAD, UNK
from mmscratch.training import TrainConfig

CONFIG = TrainConfig(
    epochs=2, batch_size=7, warmup_fraction=0.25, evaluate_every=5, precision="float32"
)
ROOT = Path(__file__).parents[2]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@pytest.fixture(scope="module", params=[2, 3])
def processes(request, tmp_path_factory):
    """(number of processes, the folder with the results of all tasks, the output)"""
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    folder = tmp_path_factory.mktemp("processes")
    assert in_processes(request.param, all_tasks, folder) == [0] * request.param
    return request.param, folder, (folder / "printed").read_text()


def all_tasks(folder):
    distributed.start()
    exchange(folder)
    keep(folder, "gradient", [one_gradient(folder), one_gradient(folder, accumulation_steps=3)])
    keep(folder, "toy", [toy_gradient(folder), toy_gradient(folder, accumulation_steps=3)])
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
    rank, size = distributed.rank(), distributed.world_size()
    with distributed.main_process_first():
        if rank == 0:
            time.sleep(0.5)
            (folder / "made").write_text("by rank 0")
        else:
            assert (folder / "made").exists()
    assert distributed.all_gather(rank) == list(range(size))
    assert distributed.broadcast(f"of {rank}") == "of 0"
    assert distributed.all_reduce(torch.tensor([1.0, rank])).tolist() == [
        size,
        size * (size - 1) / 2,
    ]


def share_of(batch):
    """The examples of this process: every `size`-th."""
    return {
        name: value[distributed.rank() :: distributed.world_size()] for name, value in batch.items()
    }


def first_32(trainer):
    return to_device(collate([trainer.train[i] for i in range(32)]), torch.device("cpu"))


def one_gradient(folder, accumulation_steps=1):
    """The gradient of the first 32 captions; this process has every `size`-th."""
    trainer = tiny_trainer(
        folder / "run",
        replace(CONFIG, batch_size=32, accumulation_steps=accumulation_steps),
        **deterministic_settings(),
    )
    batch = share_of(first_32(trainer))
    stats, gradient = step_gradients(trainer, batch)
    return {"stats": tuple(stats), "own": int((batch["target"] != PAD).sum()), "gradient": gradient}


def assert_same_step(got, expected):
    loss, count, examples = got["stats"][:3]
    assert (count, examples) == expected["stats"][1:3] and examples == 32
    assert loss == pytest.approx(expected["stats"][0], rel=1e-5)
    assert_close(got["gradient"], expected["gradient"], rtol=1e-5, atol=1e-6)


def test_shards_with_unequal_words_give_the_gradient_of_the_whole_batch(processes, tmp_path):
    size, folder, _ = processes
    expected = one_gradient(tmp_path)
    ranks = kept(folder, "gradient", size)
    assert len({rank[0]["own"] for rank in ranks}) > 1  # they have different numbers of words
    assert sum(rank[0]["own"] for rank in ranks) == expected["own"] == expected["stats"][1]
    for rank in ranks:
        for got in rank:  # in one batch, and in three micro-batches
            assert_same_step(got, expected)


class Toy(nn.Module):
    """Long sentences count more: one of w words counts w * w."""

    counts = "squares"

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 1)

    def loss(self, batch):
        colours = batch["image"].float().mean((2, 3)) / 255  # (B, 3)
        weights = (batch["target"] > UNK).sum(1) ** 2  # (B,)
        return (weights * self.linear(colours).squeeze(1).square()).sum(), weights.sum()


def toy_gradient(folder, accumulation_steps=1):
    """The count of a model of another kind, which does not count words."""
    build, training.build_model = training.build_model, lambda config: Toy()
    try:
        trainer = tiny_trainer(
            folder / "toy", replace(CONFIG, batch_size=32, accumulation_steps=accumulation_steps)
        )
    finally:
        training.build_model = build
    batch = share_of(first_32(trainer))
    counts = [
        int(trainer.model.loss({name: value[i::3] for name, value in batch.items()})[1])
        for i in range(3)
    ]
    stats, gradient = step_gradients(trainer, batch)
    return {"stats": tuple(stats), "counts": counts, "gradient": gradient}


def test_ddp_gradients_are_divided_by_the_world_size(processes, tmp_path):
    size, folder, _ = processes
    trainer = tiny_trainer(tmp_path / "any", replace(CONFIG, batch_size=32))
    model = Toy()
    loss, count = model.loss(first_32(trainer))
    gradient = torch.autograd.grad(loss / count, list(model.parameters()))
    expected = {
        "stats": (loss.item(), count.item(), 32),
        "gradient": dict(zip(("linear.weight", "linear.bias"), gradient)),
    }
    ranks = kept(folder, "toy", size)
    counts = [count for rank in ranks for count in rank[0]["counts"]]
    # no two micro-batches have the same count
    assert len(set(counts)) == 3 * size and sum(counts) == count
    for rank in ranks:
        for got in rank:
            assert_same_step(got, expected)


def fit(folder):
    """Train to the end: 53 captions in batches of 13 leave one for the last batch, and none for all ranks but one."""
    trainer = tiny_trainer(folder / "run", replace(CONFIG, batch_size=13), **deterministic_settings())
    validated, get = [], Examples.__getitem__
    Examples.__getitem__ = lambda examples, index: (validated.append(index), get(examples, index))[
        1
    ]
    trainer._validate()
    Examples.__getitem__ = get
    trainer.fit()
    return {
        "validated": validated,
        "weights": trainer.model.state_dict(),
        "best": trainer.best_loss,
        "steps": trainer.step,
    }


def test_training_with_several_processes_equals_training_with_one(processes, tmp_path):
    size, folder, printed = processes
    alone = tiny_trainer(tmp_path, replace(CONFIG, batch_size=13), **deterministic_settings())
    alone.fit()
    ranks = kept(folder, "fit", size)
    assert Counter(index for rank in ranks for index in rank["validated"]) == Counter(
        range(len(alone.validation))
    )
    for rank in ranks:
        assert rank["steps"] == 10 and rank["best"] == pytest.approx(alone.best_loss, abs=1e-5)
        assert all(
            torch.equal(value, rank["weights"][name]) for name, value in ranks[0]["weights"].items()
        )
    assert printed.count("step 10/10  validation loss") == 1  # only rank 0 prints
    assert sorted(path.name for path in (folder / "run").iterdir()) == [
        "best.pt",
        "last.pt",
        "metrics.jsonl",
    ]
    entries = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if "validation_loss" in entry] == [5, 10]
    states = read_checkpoint(folder / "run/last.pt")["rng_states"]
    # dropout differs
    assert len(states) == size and not torch.equal(states[0]["torch"], states[1]["torch"])


def fit_and_stop(folder, stop):
    """With dropout and batch norm; if a step is given, one process is asked to stop in it."""
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
    del trainer._train_step  # a reference cycle, which would keep the workers alive
    return [trainer.model.state_dict(), trainer.optimizer.state_dict()["state"]]


def test_a_signal_to_one_process_stops_all_and_resuming_is_exact(processes):
    size, folder, _ = processes
    for whole, broken in zip(kept(folder, "whole", size), kept(folder, "broken", size)):
        assert all(torch.equal(value, broken[0][name]) for name, value in whole[0].items())
        for number, state in whole[1].items():
            assert all(torch.equal(value, broken[1][number][name]) for name, value in state.items())


def test_resuming_with_another_world_size_warns_that_it_is_not_exact(processes, capsys):
    size, folder, _ = processes
    trainer = tiny_trainer(folder / "broken", CONFIG)
    assert (
        trainer.step == 16
        and f"saved by {size} processes, resuming with 1" in capsys.readouterr().out
    )


def test_gradients_are_exchanged_once_per_step(tmp_path, monkeypatch):
    """no_sync: of three micro-batches, the gradients of the first two are not exchanged."""
    calls = []

    class Parallel(torch.nn.Module):
        def __init__(self, model, find_unused_parameters):
            super().__init__()
            self.module = model
            self.together = True
            assert find_unused_parameters

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
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    trainer = tiny_trainer(tmp_path, replace(CONFIG, accumulation_steps=3), **deterministic_settings())
    trainer._train_step(collate([trainer.train[i] for i in range(7)]))
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
        (folder / "said").write_text(str(error))
        sys.exit(7)


@needs_fork
def test_a_lost_process_ends_the_others_with_a_message(tmp_path):
    start = time.monotonic()
    assert (
        in_processes(2, dying, tmp_path) == [7, -signal.SIGKILL] and time.monotonic() - start < 60
    )
    (line,) = (tmp_path / "said").read_text().splitlines()
    assert "another process of this run has ended" in line


def test_the_command_line_under_torchrun(tmp_path):
    code = "import sys, mmscratch.__main__ as m, mmscratch.tasks.captioning as c; c.VALIDATION_SCENES = c.TEST_SCENES = 13; "
    code += "sys.exit(m.main(['quickstart', '--scenes', '100']))"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "--no-python",
    ]
    command += [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=150, cwd=tmp_path
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert done.stdout.count("drawing 100 scenes") == done.stdout.count("BLEU-4") == 1
    assert (tmp_path / "runs/quickstart/captions-test.png").exists()


def test_without_torchrun_the_collectives_do_nothing(tmp_path):
    distributed.start()
    exchange(tmp_path)
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    distributed.finish()
