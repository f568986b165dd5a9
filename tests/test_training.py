"""The training loop: right losses, exact resume, checkpoints that survive."""

import json
import os
import signal
import threading
from dataclasses import asdict, replace

import pytest
import torch

from mmscratch.batches import CaptionPairs
from mmscratch.datasets import SceneCaptions
from mmscratch.images import Augment
from mmscratch.model import ModelConfig
from mmscratch.text import Vocabulary
from mmscratch.training import Precision, TrainConfig, Trainer, load_run, pick_precision, write_atomically

CONFIG = TrainConfig(epochs=2, batch_size=7, warmup=0.25, evaluate_every=5)  # 53 captions: 8 steps an epoch


@pytest.fixture(scope="module")
def pairs():
    training = SceneCaptions("train", 53, size=32, one_each=True)
    validation = SceneCaptions("validation", 3, size=32)
    vocabulary = Vocabulary.build(c for data in (training, validation) for refs in data.references for c in refs)
    return CaptionPairs(training, vocabulary, Augment(32)), CaptionPairs(validation, vocabulary)


@pytest.fixture
def trainer(pairs, tmp_path, monkeypatch):
    """Makes trainers of a tiny model in float32, so that no measurement decides."""
    plain = Precision(torch.device("cpu"), torch.float32, False)
    monkeypatch.setattr("mmscratch.training.pick_precision", lambda *_: (plain, "for the test"))
    monkeypatch.setattr("mmscratch.training.pick_device", lambda: torch.device("cpu"))
    model = ModelConfig(len(pairs[0].vocabulary), depth=(1,), width=5, image_size=32, embed_dim=11, hidden_size=13, dropout=0.2)

    def make(name="run", config=CONFIG, **changes):
        return Trainer(replace(model, **changes), config, *pairs, tmp_path / name, facts={"data": "scenes"})

    return make


def states_equal(a, b):
    """The same weights and the same optimizer state, to the bit."""
    weights = all(torch.equal(x, y) for x, y in zip(a.model.state_dict().values(), b.model.state_dict().values()))
    moments = [
        torch.equal(x, y)
        for p, q in zip(a.model.parameters(), b.model.parameters())
        for x, y in zip(a.optimizer.state[p].values(), b.optimizer.state[q].values())
    ]
    return weights and len(moments) > 0 and all(moments)


def stop_after(trainer, steps):
    """Press Ctrl-C during that step."""
    step = trainer._train_step

    def pressing(batch):
        if trainer.step == steps - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(batch)

    trainer._train_step = pressing
    with pytest.raises(KeyboardInterrupt, match=f"step {steps} of 16"):
        trainer.fit()


def test_same_seed_same_model_and_another_seed_another(trainer):
    runs = [trainer(name, config) for name, config in (("a", CONFIG), ("b", CONFIG), ("c", replace(CONFIG, seed=1)))]
    for run in runs:
        run.fit()
    assert states_equal(runs[0], runs[1])
    assert not states_equal(runs[0], runs[2])


@pytest.mark.parametrize("steps", [1, 5, 8, 11])  # 8 is the end of an epoch
def test_ctrl_c_and_going_on_give_what_an_unbroken_run_gives(trainer, steps):
    whole = trainer("whole")
    whole.fit()
    stop_after(trainer("broken"), steps)
    resumed = trainer("broken")
    assert resumed.step == steps
    resumed.fit()
    assert states_equal(whole, resumed)
    assert resumed.best_loss == whole.best_loss


def test_training_leaves_the_global_random_state_and_the_signal_handler_alone(trainer):
    before, handler = torch.get_rng_state(), signal.getsignal(signal.SIGINT)
    trainer().fit()
    assert torch.equal(torch.get_rng_state(), before)
    assert signal.getsignal(signal.SIGINT) is handler


def test_fit_runs_outside_the_main_thread(trainer):
    run = trainer()
    thread = threading.Thread(target=run.fit)
    thread.start()
    thread.join()
    assert run.step == 16


def test_the_validation_loss_is_that_of_each_caption_alone(trainer, pairs):
    run = trainer()
    run.model.eval()
    total = words = 0
    for i in range(len(pairs[1])):
        example = pairs[1][i]
        with torch.no_grad():
            batch = {name: value.unsqueeze(0) for name, value in example.items()}
            log_probs = run.model(batch)[0].log_softmax(-1)
        total -= log_probs.gather(1, example["target"].unsqueeze(1)).sum().item()
        words += len(example["target"])
    assert run._validate() == pytest.approx(total / words, rel=1e-5)


def test_a_step_descends_the_mean_over_words(trainer, pairs):
    run = trainer(config=replace(CONFIG, clip_norm=1e9), dropout=0.0)
    batch = next(iter(run.loader))
    grads = []
    run.optimizer.register_step_pre_hook(lambda *_: grads.extend(p.grad.clone() for p in run.model.parameters()))
    copy = trainer("copy", dropout=0.0)
    loss = run._train_step(batch)
    logits = copy.model(batch)
    mean = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["target"].flatten(), ignore_index=0)
    mean.backward()
    assert loss == pytest.approx(mean.item(), rel=1e-5)
    for ours, parameter in zip(grads, copy.model.parameters()):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_learning_rate_rises_and_falls(trainer):
    run = trainer(config=replace(CONFIG, warmup=0.25))  # 4 of 16 steps
    rates = [run._schedule(step) for step in range(17)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0 and rates[10] == pytest.approx(0.5) and rates[16] == pytest.approx(0.0)
    assert all(a > b for a, b in zip(rates[4:], rates[5:]))


def test_biases_and_norms_do_not_decay(trainer):
    run = trainer()
    decayed = {p for group in run.optimizer.param_groups if group["weight_decay"] > 0 for p in group["params"]}
    for name, parameter in run.model.named_parameters():
        assert (parameter in decayed) == (parameter.dim() > 1), name


def test_a_run_of_other_settings_is_refused_by_name(trainer):
    stop_after(trainer(), 3)
    with pytest.raises(ValueError, match="hidden_size.*choose another --run"):
        trainer(hidden_size=17)
    with pytest.raises(ValueError, match="epochs"):
        trainer(config=replace(CONFIG, epochs=3))


def test_the_best_model_loads_with_its_vocabulary_and_what_it_was_trained_on(trainer, pairs):
    run = trainer()
    run.fit()
    model, vocabulary, saved = load_run(run.folder)
    assert vocabulary.words == pairs[0].vocabulary.words
    assert saved["facts"] == {"data": "scenes"} and saved["model_config"] == asdict(run.model_config)
    assert not model.training
    entries = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    validated = {entry["step"]: entry["validation_loss"] for entry in entries if "validation_loss" in entry}
    assert list(validated) == [5, 10, 15, 16]
    assert min(validated.values()) == pytest.approx(run.best_loss, abs=1e-4)


def test_metrics_after_the_checkpoint_are_forgotten_when_a_run_goes_on(trainer):
    run = trainer()
    stop_after(run, 5)
    metrics = run.folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"step": 9, "loss": 1.0}\n{"step": 1')  # a killed run leaves half a line
    trainer().fit()
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert 9 not in steps and steps == sorted(steps)


def test_a_failing_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    write_atomically(path, {"step": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, {"step": 2})
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert os.listdir(tmp_path) == ["last.pt"]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 torn"])
def test_a_broken_checkpoint_is_named(tmp_path, content):
    (tmp_path / "best.pt").write_bytes(content)
    with pytest.raises(ValueError, match="best.pt: not a checkpoint"):
        load_run(tmp_path)


def test_a_checkpoint_executes_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    torch.save({"model": Evil()}, tmp_path / "best.pt")
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_run(tmp_path)
    assert not (tmp_path / "evil").exists()


def test_measuring_the_precision_changes_nothing(trainer):
    run = trainer()
    batch = next(iter(run.loader))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    random_state = torch.get_rng_state()
    precision, why = pick_precision(run.model, batch, torch.device("cpu"))
    assert "ms" in why and precision.dtype in (torch.float32, torch.bfloat16)
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert all(parameter.grad is None for parameter in run.model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_nothing_to_train_on_is_refused(pairs, tmp_path):
    empty = CaptionPairs(SceneCaptions("train", 0), pairs[0].vocabulary)
    with pytest.raises(ValueError, match="0 captions to train on"):
        Trainer(ModelConfig(10), CONFIG, empty, pairs[1], tmp_path)
