"""The training loop: right gradients, exact resume, one line for what goes wrong."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import IMAGE, LSTM, TRANSFORMER, step_gradients, still, tiny_trainer
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from mmscratch.batches import Examples, collate, to_device
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.translations import SceneTranslation
from mmscratch.engine.runs import read_checkpoint
from mmscratch.finetuning import load_run, parameter_groups
from mmscratch.model import ModelConfig
from mmscratch.reliability import write_atomically
from mmscratch.text import PAD, UNK, BytePairEncoding, Vocabulary
from mmscratch.training import TrainConfig, Trainer, warmup_and_cosine

CONFIG = TrainConfig(
    epochs=2, batch_size=7, warmup_fraction=0.25, evaluate_every=5, precision="float32"
)  # 53 captions: 8 steps an epoch
DECODERS = pytest.mark.parametrize("decoder", [LSTM, TRANSFORMER], ids=["lstm", "transformer"])


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch, request):
    if "gpu" not in request.keywords:
        monkeypatch.setattr("mmscratch.training.pick_device", lambda: torch.device("cpu"))


@pytest.fixture
def trainer(tmp_path):
    return lambda name="run", config=CONFIG, **changes: tiny_trainer(
        tmp_path / name, config, **changes
    )


def states_equal(a, b):
    """The same weights and the same optimizer state, to the bit."""
    weights = all(
        torch.equal(x, y)
        for x, y in zip(a.model.state_dict().values(), b.model.state_dict().values())
    )
    moments = [
        torch.equal(x, y)
        for p, q in zip(a.model.parameters(), b.model.parameters())
        for x, y in zip(a.optimizer.state[p].values(), b.optimizer.state[q].values())
    ]
    return weights and len(moments) > 0 and all(moments)


def gradients(trainer, batch):
    return step_gradients(trainer, batch)[1]


def a_batch(trainer, count, device="cpu"):
    return to_device(collate([trainer.train[i] for i in range(count)]), torch.device(device))


def stop_after(trainer, steps, kind=signal.SIGINT):
    """Press Ctrl-C during that step."""
    step = trainer._train_step

    def pressing(batch):
        if trainer.step == steps - 1:
            os.kill(os.getpid(), kind)
        return step(batch)

    trainer._train_step = pressing
    with pytest.raises(KeyboardInterrupt, match=f"step {steps} of 16; the same command goes on"):
        trainer.fit()


def resumed_after(steps, make):
    """Two runs that `make` makes, in a folder of that name: one not stopped, and one stopped and gone on with."""
    whole = make("whole")
    whole.fit()
    stop_after(make("broken"), steps)
    resumed = make("broken")
    assert resumed.step == steps
    resumed.fit()
    return whole, resumed


def translator(
    folder,
    config=CONFIG,
    joint=False,
    pieces=150,
    backwards=False,
    image=IMAGE,
    decoder=LSTM,
    **settings,
):
    """A trainer of a tiny model that translates; two of three sentences have a picture."""
    training = SceneTranslation("train", 53, size=32, hidden="some")
    validation = SceneTranslation("validation", 11, size=32, hidden="some")
    for data in (training, validation):
        column = data.columns["image"]
        column.keys = [key if i % 3 > 0 else None for i, key in enumerate(column.keys)]
    sources, translations = training.columns["source"], [refs[0] for refs in training.references]
    if joint:
        target = source = BytePairEncoding.learn([*sources, *translations], pieces)
    else:
        source, target = Vocabulary.build(sources), Vocabulary.build(translations)
        source = Vocabulary(source.state()[::-1]) if backwards else source
    examples = tuple(
        Examples(data, {"target": target, "source": source}) for data in (training, validation)
    )
    if decoder["name"] == "transformer":
        decoder = decoder | {"max_length": 97}
    encoders = {"image": image, "source": decoder | {"vocab_size": len(source)}}
    settings = {"joint_vocabulary": joint, "modality_dropout": 0.3} | settings
    return Trainer(
        ModelConfig(len(target), encoders, decoder, 12, **settings), config, examples, folder
    )


# ---------------------------------------------------------------------------------------------------------------------
# The step.


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_parts_of_a_batch_in_which_some_have_pictures_give_the_gradient_of_the_whole(
    smoothing, tmp_path
):
    config = replace(CONFIG, batch_size=32)
    settings = still() | {"label_smoothing": smoothing, "modality_dropout": 0.0}
    runs = [
        translator(tmp_path / str(n), replace(config, accumulation_steps=n), **settings)
        for n in (1, 3, 32)
    ]
    batch = a_batch(runs[0], 32)
    assert (
        batch["has_image"].float().mean() == 21 / 32 and not batch["has_image"][::3].any()
    )  # one part has none
    expected, *others = (gradients(run, batch) for run in runs)
    for got in others:
        assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_the_fraction_of_true_words_that_it_reads_is_that_of_the_settings(tmp_path):
    runs = {}
    for fraction in (0.0, 1.0):
        settings = still() | {"modality_dropout": 0.0, "teacher_forcing_ratio": fraction}
        runs[fraction] = translator(tmp_path / str(fraction), **settings)
    batch = a_batch(runs[0.0], 7)
    words = batch["target"] != PAD
    found = {}
    for fraction, run in runs.items():
        found[fraction] = gradients(run, batch)
        run.model.zero_grad()
        logits = run.model(batch, teacher_forcing_ratio=fraction)
        F.cross_entropy(logits[words], batch["target"][words]).backward()
        assert_close(
            found[fraction],
            {name: parameter.grad for name, parameter in run.model.named_parameters()},
        )
    assert any((found[0.0][name] != gradient).any() for name, gradient in found[1.0].items())
    assert runs[0.0]._validate() == pytest.approx(
        runs[1.0]._validate(), rel=1e-6
    )  # which reads all of them


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_the_formula_and_pads_count_in_neither_term(smoothing, trainer):
    run = trainer(**still(), label_smoothing=smoothing)  # without dropout, training and not
    batch = a_batch(run, 5)
    longer = batch | {"target": F.pad(batch["target"], (0, 3), value=PAD)}
    log_p, target = run.model(batch).log_softmax(-1), batch["target"]
    for is_training, s in ((True, smoothing), (False, 0.0)):  # smoothing is for training only
        expected = 0
        for b, t in target.ne(PAD).nonzero().tolist():
            expected -= (1 - s) * log_p[b, t, target[b, t]] + s * log_p[b, t].mean()
        for padded in (batch, longer):
            loss, count = run.model.train(is_training).loss(padded)
            assert_close(loss, expected)
            assert count == (target != PAD).sum()


class Toy(nn.Module):
    """Its loss is of its own kind, and so is what it counts: the words of an example are the weight of its square."""

    loss_unit = "squares"

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def loss(self, batch):
        colours = batch["image"].float().mean((2, 3)) / 255  # (B, 3)
        weights = (batch["target"] > UNK).sum(1)  # (B,)
        return (weights * self.linear(colours).squeeze(1).square()).sum(), weights.sum()


@pytest.mark.parametrize("parts", [1, 2, 3, 32])
@pytest.mark.parametrize(
    "empty", [(), (0, 3, 6), (1, 4)], ids=["none empty", "first part of 3 empty", "two empty"]
)
def test_any_model_s_gradient_is_that_of_its_sum_divided_by_its_count(
    empty, parts, trainer, monkeypatch
):
    monkeypatch.setattr("mmscratch.training.build_model", lambda config: Toy())
    run = trainer(config=replace(CONFIG, accumulation_steps=parts))
    batch = a_batch(run, 7)
    batch["target"][list(empty)] = PAD
    of_parts = [
        run.model.loss({name: value[i::3] for name, value in batch.items()})[1].item()
        for i in range(3)
    ]
    assert len(set(of_parts)) > 1  # the counts of the parts differ
    loss, count = run.model.loss(batch)
    expected = torch.autograd.grad(loss / count, list(run.model.parameters()))
    stats, found = step_gradients(run, batch)
    assert_close(list(found.values()), list(expected))
    assert stats.count == count == sum(of_parts) and stats.examples == 7
    assert stats.loss == pytest.approx(loss.item(), rel=1e-5)


def test_metrics_have_the_rate_of_what_the_model_counts(trainer, monkeypatch):
    monkeypatch.setattr("mmscratch.training.build_model", lambda config: Toy())
    run = trainer()
    run.fit()
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert any("squares_per_second" in line for line in lines) and run.step == 16


@DECODERS
@pytest.mark.parametrize("parts", [2, 4, 32])
def test_the_gradient_of_parts_is_that_of_the_whole_batch_by_words(parts, decoder, trainer):
    config = replace(CONFIG, batch_size=32)
    settings = still(decoder) | {"label_smoothing": 0.1}
    whole, split = (
        trainer("whole", config, **settings),
        trainer("split", replace(config, accumulation_steps=parts), **settings),
    )
    batch = a_batch(whole, 32)
    lengths = (batch["target"] != PAD).sum(1)
    assert (
        len({part.sum().item() for part in lengths.tensor_split(4)}) > 1
    )  # the parts have different numbers of words
    expected, got = gradients(whole, batch), gradients(split, batch)
    assert_close(got, expected, rtol=1e-5, atol=1e-6)
    by_parts = {
        name: torch.zeros_like(value) for name, value in expected.items()
    }  # the common mistake: the mean of means
    for i in range(4):
        part = {name: value.tensor_split(4)[i] for name, value in batch.items()}
        for name, value in gradients(whole, part).items():
            by_parts[name] += value / 4
    assert max((by_parts[name] - expected[name]).abs().max() for name in expected) > 1e-4


@pytest.mark.parametrize("parts", [3, 32])
def test_the_parts_of_a_batch_add_up_to_its_loss_its_words_and_its_examples(parts, trainer):
    whole, split = (
        trainer("whole", **still()),
        trainer("split", replace(CONFIG, accumulation_steps=parts), **still()),
    )
    batch = a_batch(whole, 11)
    batch["target"][3] = PAD  # a picture without words counts for nothing
    expected = whole.model.loss(batch)[0].detach()
    firsts = batch["target"], batch["target"][:: min(parts, 11)]  # the first micro-batch of each
    for run, first in zip((whole, split), firsts):
        loss, count, examples, unit = run._gradient(batch)
        assert_close(loss, expected)
        assert (count, examples, unit) == ((batch["target"] != PAD).sum(), 11, (first != PAD).sum())
        assert not loss.requires_grad


def test_accumulation_trains_the_same_model(trainer):
    whole, split = (
        trainer("whole", **still()),
        trainer("split", replace(CONFIG, accumulation_steps=3), **still()),
    )
    whole.fit(), split.fit()
    assert [loss for _, loss in split.history] == pytest.approx(
        [loss for _, loss in whole.history], abs=1e-5
    )


def test_a_step_is_what_torch_s_own_pieces_make_of_it(trainer):
    run, copy = trainer("run", **still()), trainer("copy", **still())
    optimizer = torch.optim.AdamW(parameter_groups(copy.model, 0.05), betas=(0.9, 0.98))
    for i in range(5):
        batch = a_batch(run, 11)
        stats = run._train_step(batch)
        run.step += 1
        logits = copy.model(batch)
        loss = F.cross_entropy(logits.flatten(0, 1), batch["target"].flatten(), ignore_index=PAD)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(copy.model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = CONFIG.learning_rate * warmup_and_cosine(i, 16, 4)
        optimizer.step()
        optimizer.zero_grad()
        assert stats.loss / stats.count == pytest.approx(loss.item(), rel=1e-5)
        assert stats.norm == pytest.approx(norm.item(), rel=1e-4) and stats.examples == 11
    assert_close(run.model.state_dict(), copy.model.state_dict(), rtol=1e-4, atol=1e-6)


def test_clipping_bounds_the_gradient_and_tells_its_norm_before(trainer):
    run, seen = trainer(config=replace(CONFIG, clip_norm=0.01)), []
    run.optimizer.register_step_pre_hook(
        lambda *_: seen.extend(p.grad.flatten() for p in run.model.parameters())
    )
    stats = run._train_step(a_batch(run, 7))
    assert stats.norm > 0.1 and torch.cat(seen).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_clipping_does_not_see_the_scale_of_float16(trainer):
    runs = [
        trainer(name, replace(CONFIG, precision=name, clip_norm=0.01), **still())
        for name in ("float32", "float16")
    ]
    seen = []
    for run in runs:
        run.optimizer.register_step_pre_hook(
            lambda *_, run=run: seen.append([p.grad.flatten() for p in run.model.parameters()])
        )
    norms = [run._train_step(a_batch(run, 7)).norm for run in runs]
    assert norms[1] == pytest.approx(norms[0], rel=0.05)
    assert [torch.cat(gradients).norm().item() for gradients in seen] == pytest.approx(
        [0.01] * 2, rel=1e-3
    )


def test_the_learning_rate_rises_and_falls(trainer):
    factors = [
        warmup_and_cosine(step, 40, warmup_fraction=0.125) for step in range(41)
    ]  # it rises in 5 of 40 steps
    assert (
        factors[:4] == [0.2, 0.4, 0.6, 0.8]
        and factors[20] == pytest.approx(0.5)
        and factors[40] == pytest.approx(0.0)
    )
    assert all(a > b for a, b in zip(factors[4:], factors[5:])) and max(factors) > 0.97
    run, rates = trainer(), []
    run.optimizer.register_step_pre_hook(
        lambda *_: rates.append(run.optimizer.param_groups[1]["lr"])
    )
    run.fit()
    assert rates == [CONFIG.learning_rate * warmup_and_cosine(step, 16, 4) for step in range(16)]


def test_biases_and_norms_do_not_decay(trainer):
    model = trainer(**still(TRANSFORMER)).model
    decaying, kept = parameter_groups(model, 0.3)
    assert (decaying["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            kind = isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)) or "bias" in name
            assert any(parameter is p for p in decaying["params"]) == (
                not kind and parameter.squeeze().dim() > 1
            )
    assert len(decaying["params"]) + len(kept["params"]) == len(list(model.parameters()))


def poison(trainer, steps, value=math.nan):
    """Let the gradient of one weight not be finite in these steps, counted from 0."""
    weight = trainer.model.decoder.embedding.weight
    weight.register_hook(
        lambda grad: grad.index_fill(0, torch.tensor([5]), value) if poison.calls in steps else grad
    )
    step, poison.calls = trainer._train_step, -1

    def counting(batch):
        poison.calls += 1
        return step(batch)

    trainer._train_step = counting


def test_a_step_whose_gradient_is_not_finite_changes_nothing_and_is_counted(trainer):
    run = trainer()
    poison(run, {0})
    before = {
        name: value.clone() for name, value in run.model.state_dict().items()
    }  # batch norm's statistics, too
    assert math.isnan(run._train_step(a_batch(run, 7)).norm)
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert (
        run.skipped == 1
        and not run.optimizer.state
        and all(p.grad is None for p in run.model.parameters())
    )


def test_the_schedule_does_not_move_with_a_skipped_step(trainer):
    run, rates = trainer(), []
    poison(run, {2, 3, 9}, math.inf)
    run.optimizer.register_step_pre_hook(
        lambda *_: rates.append(run.optimizer.param_groups[0]["lr"])
    )
    run.fit()
    assert run.skipped == 3 and run.step == 16
    assert rates == [CONFIG.learning_rate * warmup_and_cosine(step, 16, 4) for step in range(13)]
    assert read_checkpoint(run.folder / "last.pt")["skipped"] == 3


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precisions_learn_what_float32_learns(precision, trainer):
    runs = [
        trainer(name, replace(CONFIG, precision=name, epochs=4), decoder=LSTM | {"dropout": 0.0})
        for name in ("float32", precision)
    ]
    for run in runs:
        run.fit()
    assert runs[1].best_loss == pytest.approx(runs[0].best_loss, rel=0.03)
    assert all(p.dtype == torch.float32 for p in runs[1].model.parameters())


def test_float16_halves_a_scale_that_is_too_large_and_goes_on(trainer):
    run = trainer(config=replace(CONFIG, precision="float16"))
    run.scaler.scale = 2.0**60
    run._train_step(a_batch(run, 7))
    assert run.skipped == 1 and run.scaler.scale == 2.0**59
    run.scaler.scale = 2.0**30
    run.fit()
    assert 0 < run.skipped < 16 and 1 < run.scaler.scale < 2.0**30 and run.optimizer.state


# ---------------------------------------------------------------------------------------------------------------------
# The whole run.


def test_same_seed_same_model_and_another_seed_another(trainer):
    runs = [
        trainer(name, config)
        for name, config in (("a", CONFIG), ("b", CONFIG), ("c", replace(CONFIG, seed=1)))
    ]
    for run in runs:
        run.fit()
    assert states_equal(runs[0], runs[1])
    assert not states_equal(runs[0], runs[2])


FRESH = """if True:
    import hashlib, sys
    import torch
    from helpers import tiny_trainer
    from mmscratch.engine.runs import read_checkpoint
    from mmscratch.training import TrainConfig

    trainer = tiny_trainer(sys.argv[1], TrainConfig(batch_size=7, warmup_fraction=0.25, precision="auto"))
    trainer.fit()
    saved = read_checkpoint(trainer.folder / "best.pt")
    digest = hashlib.sha256()
    for name, value in saved["model"].items():
        digest.update(f"{name} {value.shape} {value.dtype}".encode() + value.contiguous().numpy().tobytes())
    print(trainer.precision, trainer.history, digest.hexdigest())
"""


def test_two_fresh_processes_with_the_same_seed_train_the_same_model(tmp_path):
    """To the bit, in the precision that suits the machine: nothing that changes the result is chosen by a clock."""
    here = Path(__file__).parent
    processes = []
    for name in ("one", "other"):
        environment = os.environ | {
            "PYTHONPATH": f"{here}{os.pathsep}{here.parent}",
            "CUDA_VISIBLE_DEVICES": "",
        }
        environment |= {
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": str(len(name)),
        }  # a set has another order in each
        command = [sys.executable, "-c", FRESH, str(tmp_path / name)]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        )
    one, other = (process.communicate(timeout=300)[0].splitlines()[-1] for process in processes)
    assert one == other and len(one.split()[-1]) == 64 and "[[8, " in one


def test_learns_a_few_captions_by_heart(trainer):
    config = replace(CONFIG, epochs=60, learning_rate=2e-2, evaluate_every=1000)
    run = trainer(
        config=config,
        count=5,
        image=IMAGE | {"width": 8},
        decoder={"name": "lstm", "hidden_size": 64},
        embed_dim=64,
    )
    run.train.augmented = False
    run.fit()
    loss, count = run.model.train().loss(collate([run.train[i] for i in range(5)]))
    assert loss / count < 0.05


@pytest.mark.parametrize("steps", [1, 5, 8, 11])  # 8 is the end of an epoch
def test_ctrl_c_and_going_on_give_what_an_unbroken_run_gives(trainer, steps):
    whole, resumed = resumed_after(steps, trainer)
    assert states_equal(whole, resumed)
    assert resumed.best_loss == whole.best_loss and resumed.history == whole.history


@pytest.mark.parametrize(
    "decoder, joint", [(LSTM, False), (TRANSFORMER, True)], ids=["lstm", "transformer, joint"]
)
def test_a_translator_that_was_stopped_goes_on_to_the_bit(decoder, joint, tmp_path):
    settings = {"decoder": decoder, "joint": joint, "label_smoothing": 0.1}
    whole, resumed = resumed_after(3, lambda name: translator(tmp_path / name, **settings))
    assert states_equal(whole, resumed) and whole.history == resumed.history
    assert whole.history[0][1] > whole.best_loss > 0
    with pytest.raises(ValueError, match="modality_dropout 0.5, there 0.3"):
        translator(whole.folder, **settings, modality_dropout=0.5)


def test_a_run_of_other_source_words_is_refused(tmp_path):
    stop_after(translator(tmp_path / "apart"), 3)
    stop_after(translator(tmp_path / "joint", joint=True), 3)
    with pytest.raises(ValueError, match="other vocabularies.target.*choose another --to"):
        translator(tmp_path / "joint", joint=True, pieces=149)
    with pytest.raises(ValueError) as caught:
        translator(tmp_path / "apart", backwards=True)
    assert "other vocabularies.source" in str(caught.value) and "vocabularies.target" not in str(
        caught.value
    )


def test_skipped_steps_and_the_scale_survive_a_stop(trainer):
    config = replace(CONFIG, precision="float16", accumulation_steps=2)
    runs = [trainer("whole", config), trainer("broken", config)]
    for run in runs:
        run.scaler.scale = 2.0**24
    runs[0].fit()
    stop_after(runs[1], 3)
    resumed = trainer("broken", config)
    assert resumed.skipped == 3 and resumed.scaler.scale == 2.0**21
    resumed.fit()
    assert states_equal(runs[0], resumed)
    assert (resumed.skipped, resumed.scaler.scale) == (runs[0].skipped, runs[0].scaler.scale)


def test_sigterm_is_taken_as_ctrl_c(trainer):
    stop_after(trainer(), 3, signal.SIGTERM)
    assert read_checkpoint(trainer().folder / "last.pt")["step"] == 3


def test_a_stop_asked_for_in_the_last_validation_is_not_lost(trainer):
    run = trainer()
    validate = run._validate

    def pressing():
        if run.step == 16:
            os.kill(os.getpid(), signal.SIGINT)
        return validate()

    run._validate = pressing
    with pytest.raises(KeyboardInterrupt, match="step 16 of 16"):
        run.fit()
    assert read_checkpoint(run.folder / "last.pt")["step"] == 16


def test_training_leaves_the_random_states_and_the_signal_handlers_alone(trainer):
    before = (
        torch.get_rng_state(),
        random.getstate(),
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGTERM),
    )
    trainer().fit()
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before[2:]


def test_fit_runs_outside_the_main_thread(trainer):
    run = trainer()
    thread = threading.Thread(target=run.fit)
    thread.start()
    thread.join()
    assert run.step == 16


def test_the_validation_loss_is_that_of_each_caption_alone(trainer):
    run = trainer(label_smoothing=0.2)  # which is for training only
    run.model.eval()
    total = words = 0
    for i in range(len(run.validation)):
        example = run.validation[i]
        with torch.no_grad():
            batch = {name: value.unsqueeze(0) for name, value in example.items()}
            log_probs = run.model(batch)[0].log_softmax(-1)
        total -= log_probs.gather(1, example["target"].unsqueeze(1)).sum().item()
        words += len(example["target"])
    assert run._validate() == pytest.approx(total / words, rel=1e-5)


def test_a_run_of_other_settings_is_refused_and_the_differences_are_listed(trainer):
    stop_after(trainer(), 3)
    with pytest.raises(
        ValueError, match=r"\(decoder.hidden_size 17, there 13\): choose another --to"
    ):
        trainer(decoder=LSTM | {"hidden_size": 17})
    with pytest.raises(ValueError, match="encoders.image.name vit, there resnet"):
        trainer(**still())
    with pytest.raises(ValueError, match="examples 59, there 53; .*epochs 3, there 2"):
        trainer(config=replace(CONFIG, epochs=3), count=59)
    trainer(config=replace(CONFIG, workers=1))  # which changes nothing


def test_the_best_model_loads_with_its_vocabulary_and_what_it_was_trained_on(trainer):
    run = trainer()
    run.fit()
    model, vocabularies, saved = load_run(run.folder)
    assert (
        vocabularies.keys() == {"target"}
        and vocabularies["target"].words == run.train.vocabularies["target"].words
    )
    assert saved["metadata"] == {"data": "scenes"} and saved["model_config"] == asdict(
        run.model_config
    )
    assert not model.training
    entries = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    validated = {
        entry["step"]: entry["validation_loss"] for entry in entries if "validation_loss" in entry
    }
    assert list(validated) == [5, 10, 15, 16] == [step for step, _ in run.history]
    assert min(validated.values()) == pytest.approx(run.best_loss, abs=1e-4)


@pytest.mark.parametrize("version", [None, 1, 3])
def test_a_run_of_another_layout_is_refused_in_one_line(version, trainer):
    """None: of a time when checkpoints did not say."""
    path = trainer().folder / "last.pt"
    stop_after(trainer(), 3)
    saved = read_checkpoint(path)
    assert saved.pop("version") == 2
    write_atomically(path, saved if version is None else saved | {"version": version})
    with pytest.raises(ValueError) as caught:
        trainer()
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path} is of layout {version or 1}, and ") and "another --to" in line
    write_atomically(path, {"step": 1})
    with pytest.raises(
        ValueError, match="last.pt is the checkpoint of something else: choose another --to"
    ):
        trainer()


def test_metrics_after_the_checkpoint_are_forgotten_when_a_run_goes_on(trainer):
    run = trainer()
    stop_after(run, 5)
    metrics = run.folder / "metrics.jsonl"
    metrics.write_text(
        metrics.read_text() + '{"step": 9, "loss": 1.0}\n{"step": 1'
    )  # a killed run leaves half a line
    trainer().fit()
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert 9 not in steps and steps == sorted(steps)


def test_a_profiled_run_trains_the_same(trainer, capsys):
    plain, profiled = trainer("plain"), trainer("profiled")
    plain.fit()
    profiled.fit(profile=True)
    assert states_equal(plain, profiled) and "costliest operations" in capsys.readouterr().out
    assert json.loads((profiled.folder / "trace.json").read_text())["traceEvents"]


def test_nothing_is_asked_for_in_float64(trainer):
    seen = {}

    class Watch(TorchDispatchMode):
        """Apple's GPUs do not know it. Validation adds up two numbers in it, on the CPU."""

        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            result = function(*arguments, **options or {})
            for x in [*arguments, result]:
                if isinstance(x, torch.Tensor) and x.numel() > 2:
                    seen.setdefault(x.dtype, function)
            return result

    for decoder in (LSTM, TRANSFORMER):
        run = trainer(decoder["name"], decoder=decoder)
        with Watch():
            run._train_step(a_batch(run, 7))
            run._validate()
    assert torch.float32 in seen and torch.float64 not in seen


def test_a_compiled_model_learns_the_same_and_its_checkpoint_does_not_show_it(trainer, monkeypatch):
    monkeypatch.setattr(
        torch, "compile", partial(torch.compile, backend="eager")
    )  # traced, but no minutes of C++
    settings = still(TRANSFORMER | {"num_layers": 1})
    runs = [
        trainer(f"{flag}", replace(CONFIG, compile=flag), count=11, **settings)
        for flag in (False, True)
    ]
    for run in (
        runs
    ):  # two batches an epoch, of 7 and of 4: it is traced once for that size, and once for any
        run.fit()
    assert runs[1].best_loss == pytest.approx(runs[0].best_loss, rel=1e-3)
    for name in ("last.pt", "best.pt"):
        assert list(read_checkpoint(runs[1].folder / name)["model"]) == list(
            runs[0].model.state_dict()
        )


# ---------------------------------------------------------------------------------------------------------------------
# What goes wrong.


def test_nothing_to_train_on_is_refused(trainer, tmp_path):
    run = trainer()
    empty = Examples(SceneCaptions("train", 0), run.train.vocabularies)
    with pytest.raises(ValueError, match="0 examples to train on and 15 to validate with"):
        Trainer(ModelConfig(10), CONFIG, (empty, run.validation), tmp_path)


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_layer(trainer):
    run = trainer()
    nn.init.constant_(run.model.encoders["image"].backbone.layer1[0].bn1.bias, 3e38)
    step = run._train_step
    stop_after_three = []
    run._train_step = lambda batch: stop_after_three.append(1) or step(batch)
    with pytest.raises(
        FloatingPointError,
        match=r"3 steps in a row.*output of encoders.image.backbone.layer1.0.*learning-rate",
    ) as error:
        run.fit()
    assert len(stop_after_three) == 3 and "\n" not in str(error.value)
    assert not (run.folder / "last.pt").exists()


def test_gradients_that_stay_infinite_stop_the_run_later(trainer):
    run = trainer(config=replace(CONFIG, epochs=9))
    poison(run, range(99), math.inf)
    with pytest.raises(
        FloatingPointError, match=r"25 steps in a row.*gradient of decoder.embedding.weight"
    ):
        run.fit()


def test_out_of_memory_says_how_much_was_asked_and_what_to_lower(trainer):
    run = trainer(config=replace(CONFIG, accumulation_steps=2))
    run.model.register_forward_hook(lambda *_: torch.empty(10**15))
    with pytest.raises(MemoryError, match=r"step 1 \(4 examples at once, on cpu\).*--accumulate"):
        run.fit()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_stops_with_one_line_and_keeps_the_old_checkpoint(trainer, monkeypatch):
    stop_after(trainer(), 5)
    run = trainer()
    (run.folder / "last.pt.writing").symlink_to("/dev/full")
    monkeypatch.setattr("mmscratch.training.SAVE_SECONDS", 0)
    with pytest.raises(
        OSError, match=r"last.pt cannot be written: No space left on device; the one before is kept"
    ):
        run.fit()
    assert read_checkpoint(run.folder / "last.pt")["step"] == 5


def test_an_unwritable_folder_is_told_before_the_first_step(trainer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        trainer("file/run").fit()


# ---------------------------------------------------------------------------------------------------------------------
# On a GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "auto", "float16"])
def test_resume_is_exact_on_a_gpu(precision, trainer):
    config = replace(CONFIG, precision=precision, accumulation_steps=2, workers=2)
    whole, resumed = resumed_after(5, partial(trainer, config=config))
    assert resumed.device.type == "cuda" and states_equal(whole, resumed)


@pytest.mark.gpu
def test_copies_on_a_side_stream_change_nothing(trainer):
    runs = [trainer("beside"), trainer("in line")]
    runs[1].prefetcher.copies = None
    for run in runs:
        run.fit()
    assert runs[0].prefetcher.copies is not None and states_equal(*runs)


@pytest.mark.gpu
@DECODERS
def test_a_model_compiled_for_a_gpu_learns_the_same(decoder, trainer):
    runs = [
        trainer(f"{flag}", replace(CONFIG, compile=flag), **still(decoder))
        for flag in (False, True)
    ]
    for run in runs:
        run.fit()
    assert runs[1].best_loss == pytest.approx(runs[0].best_loss, rel=1e-2)


@pytest.mark.gpu
def test_memory_stays_flat_over_steps(trainer):
    run, used = trainer(config=replace(CONFIG, epochs=30)), []
    step = run._train_step
    run._train_step = lambda batch: (step(batch), used.append(torch.cuda.memory_allocated()))[0]
    run.fit()
    assert len(used) == 240 and max(used[200:]) <= 1.01 * max(used[40:80])


# ---------------------------------------------------------------------------------------------------------------------
# Killed.


# A run is killed at these moments of its 16 steps, one after the other, and resumed after each. It saves at every third step.
MOMENTS = [
    (2, "in the step"),  # there is no checkpoint yet
    (None, "at any time"),  # in the first three steps
    (None, "at any time"),
    (5, "after the best model is kept"),  # which is newer than the checkpoint
    (6, "before it is renamed"),  # the checkpoint is written, and does not count yet
    (9, "in the step"),  # the first of the second epoch, whose batches the worker has begun to read
    (10, "while validating"),
    (12, "after it is renamed"),
    (15, "after the best model is kept"),  # and the checkpoint of this step is not
    (16, "before it is renamed"),
]


def train_and_be_killed(trainer, moment, chance):
    """Train until that moment, at which this process kills itself."""
    number, where = moment

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def at(now):
        if (trainer.step, now) == (number, where):
            die()

    def step(batch):
        trainer.saved_at = (
            -math.inf if (trainer.step + 1) % 3 == 0 else math.inf
        )  # when it is time to save
        stats = take(batch)
        if (trainer.step + 1, "in the step") == (number, where):
            die()
        if number is None:
            time.sleep(0.05)  # not too fast for the clock that kills it
        return stats

    def validate():
        at("while validating")
        return measure()

    def rename(source, target):
        if target.name == "last.pt":
            at("before it is renamed")
        replace_file(source, target)
        if target.name == "last.pt":
            at("after it is renamed")
        if target.name == "best.pt":
            at("after the best model is kept")

    take, measure, replace_file = trainer._train_step, trainer._validate, os.replace
    trainer._train_step, trainer._validate, os.replace = step, validate, rename
    if where == "at any time":
        threading.Timer(chance, die).start()
    trainer.fit()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_killed_at_many_moments_and_gone_on_gives_the_same_to_the_bit(
    trainer, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # a fork could not use it
    config = replace(CONFIG, accumulation_steps=2, workers=1)
    whole = trainer("whole", config)
    whole.fit()
    path, chance = tmp_path / "killed/last.pt", random.Random(0)
    reached = 0
    for moment in MOMENTS:
        seconds = chance.uniform(0, 0.15)
        child = os.fork()
        if child == 0:
            try:
                train_and_be_killed(trainer("killed", config), moment, seconds)
            finally:
                os._exit(3)
        _, status = os.waitpid(child, 0)
        assert status == signal.SIGKILL, f"at {moment} it ended with {status}"
        step = read_checkpoint(path)["step"] if path.exists() else 0
        assert step >= reached, "a checkpoint was lost"
        if moment[0]:
            assert step == (
                moment[0] if moment[1] == "after it is renamed" else (moment[0] - 1) // 3 * 3
            )
        reached = step
    resumed = trainer("killed", config)
    assert resumed.step == 15
    resumed.fit()
    for name in ("last.pt", "best.pt"):
        assert_same(*(read_checkpoint(tmp_path / run / name) for run in ("killed", "whole")))
    assert states_equal(whole, resumed)


def assert_same(a, b, where=""):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for i, pair in enumerate(zip(a, b)):
            assert_same(*pair, f"{where}.{i}")
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, where
