"""The training loop: correct gradients, exact resume, errors in one line."""

import copy
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
from helpers import IMAGE, LSTM, TRANSFORMER, deterministic_settings, step_gradients, tiny_trainer
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from mmscratch.batches import Examples, collate, to_device
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.translations import SceneTranslation
from mmscratch.engine import distributed
from mmscratch.engine.runs import VERSION, read_checkpoint
from mmscratch.finetuning import load_run, parameter_groups
from mmscratch.model import ModelConfig
from mmscratch.reliability import write_atomically
from mmscratch.text import PAD, UNK, BytePairEncoding, Vocabulary
from mmscratch.training import TrainConfig, Trainer, warmup_and_cosine

# With 53 captions: 8 steps an epoch.
CONFIG = TrainConfig(
    epochs=2, batch_size=7, warmup_fraction=0.25, evaluate_every=5, precision="float32"
)
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
    """Whether weights and optimizer state are bit-identical."""
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
    """Train, and press Ctrl-C during that step."""
    step = trainer._train_step

    def pressing(batch):
        if trainer.step == steps - 1:
            os.kill(os.getpid(), kind)
        return step(batch)

    trainer._train_step = pressing
    with pytest.raises(KeyboardInterrupt, match=f"step {steps} of 16; the same command resumes"):
        trainer.fit()


def resumed_after(steps, make):
    """Two runs that `make` makes in a folder of that name: one unbroken, one stopped and resumed."""
    whole = make("whole")
    whole.fit()
    stop_after(make("stopped"), steps)
    resumed = make("stopped")
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
    """A trainer of a tiny translation model; two of three sentences have a picture."""
    training = SceneTranslation("train", 53, size=32, hidden="some")
    validation = SceneTranslation("validation", 11, size=32, hidden="some")
    for data in (training, validation):
        column = data.columns["image"]
        column.keys = [key if i % 3 > 0 else None for i, key in enumerate(column.keys)]
    sources = training.columns["source"]
    translations = [refs[0] for refs in training.references]
    if joint:
        target = source = BytePairEncoding.learn([*sources, *translations], pieces)
    else:
        source = Vocabulary.build(sources)
        target = Vocabulary.build(translations)
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


# -------------------------------------------------------------------------------------------------
# The step.


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_accumulated_gradient_equals_that_of_the_whole_batch_if_some_examples_lack_an_image(
    smoothing, tmp_path
):
    config = replace(CONFIG, batch_size=32)
    settings = deterministic_settings() | {"label_smoothing": smoothing, "modality_dropout": 0.0}
    runs = [
        translator(tmp_path / str(n), replace(config, accumulation_steps=n), **settings)
        for n in (1, 3, 32)
    ]
    batch = a_batch(runs[0], 32)
    has_image = batch["has_image"]
    assert has_image.float().mean() == 21 / 32
    assert not has_image[::3].any()  # a micro-batch without pictures
    expected, *others = (gradients(run, batch) for run in runs)
    for got in others:
        assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_training_uses_the_teacher_forcing_ratio_of_the_config(tmp_path):
    runs = {}
    for ratio in (0.0, 1.0):
        settings = deterministic_settings() | {"modality_dropout": 0.0, "teacher_forcing_ratio": ratio}
        runs[ratio] = translator(tmp_path / str(ratio), **settings)
    batch = a_batch(runs[0.0], 7)
    words = batch["target"] != PAD
    found = {}
    for ratio, run in runs.items():
        found[ratio] = gradients(run, batch)
        run.model.zero_grad()
        logits = run.model(batch, teacher_forcing_ratio=ratio)
        F.cross_entropy(logits[words], batch["target"][words]).backward()
        expected = {name: parameter.grad for name, parameter in run.model.named_parameters()}
        assert_close(found[ratio], expected)
    assert any((found[0.0][name] != gradient).any() for name, gradient in found[1.0].items())
    # Validation reads all true words.
    assert runs[0.0]._validate() == pytest.approx(runs[1.0]._validate(), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_follows_its_formula_and_ignores_padding(smoothing, trainer):
    run = trainer(**deterministic_settings(), label_smoothing=smoothing)  # no dropout
    batch = a_batch(run, 5)
    longer = batch | {"target": F.pad(batch["target"], (0, 3), value=PAD)}
    log_p = run.model(batch).log_softmax(-1)
    target = batch["target"]
    for is_training, s in ((True, smoothing), (False, 0.0)):  # smoothing is for training only
        expected = 0
        for b, t in target.ne(PAD).nonzero().tolist():
            expected -= (1 - s) * log_p[b, t, target[b, t]] + s * log_p[b, t].mean()
        for padded in (batch, longer):
            loss, count = run.model.train(is_training).loss(padded)
            assert_close(loss, expected)
            assert count == (target != PAD).sum()


class Toy(nn.Module):
    """A model with another loss and another count: a square per example, weighted by its words."""

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
    "empty", [(), (0, 3, 6), (1, 4)], ids=["none empty", "first of 3 empty", "two empty"]
)
def test_gradient_is_that_of_loss_sum_divided_by_count_for_any_model(
    empty, parts, trainer, monkeypatch
):
    monkeypatch.setattr("mmscratch.training.build_model", lambda config: Toy())
    run = trainer(config=replace(CONFIG, accumulation_steps=parts))
    batch = a_batch(run, 7)
    batch["target"][list(empty)] = PAD
    counts = []
    for i in range(3):
        part = {name: value[i::3] for name, value in batch.items()}
        counts.append(run.model.loss(part)[1].item())
    assert len(set(counts)) > 1
    loss, count = run.model.loss(batch)
    expected = torch.autograd.grad(loss / count, list(run.model.parameters()))
    stats, found = step_gradients(run, batch)
    assert_close(list(found.values()), list(expected))
    assert stats.count == count == sum(counts) and stats.examples == 7
    assert stats.loss == pytest.approx(loss.item(), rel=1e-5)


def test_metrics_name_the_unit_that_the_model_counts(trainer, monkeypatch):
    monkeypatch.setattr("mmscratch.training.build_model", lambda config: Toy())
    run = trainer()
    run.fit()
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert any("squares_per_second" in line for line in lines) and run.step == 16


@DECODERS
@pytest.mark.parametrize("parts", [2, 4, 32])
def test_accumulated_gradient_is_that_of_the_whole_batch_averaged_over_words(
    parts, decoder, trainer
):
    config = replace(CONFIG, batch_size=32)
    settings = deterministic_settings(decoder) | {"label_smoothing": 0.1}
    whole = trainer("whole", config, **settings)
    split = trainer("split", replace(config, accumulation_steps=parts), **settings)
    batch = a_batch(whole, 32)
    lengths = (batch["target"] != PAD).sum(1)
    assert len({part.sum().item() for part in lengths.tensor_split(4)}) > 1
    expected = gradients(whole, batch)
    assert_close(gradients(split, batch), expected, rtol=1e-5, atol=1e-6)
    # A common mistake, the mean of the micro-batches' means, gives another gradient.
    of_means = {name: torch.zeros_like(value) for name, value in expected.items()}
    for i in range(4):
        part = {name: value.tensor_split(4)[i] for name, value in batch.items()}
        for name, value in gradients(whole, part).items():
            of_means[name] += value / 4
    assert max((of_means[name] - expected[name]).abs().max() for name in expected) > 1e-4


@pytest.mark.parametrize("steps", [1, 3, 32])
def test_micro_batches_add_up_to_the_batch(steps, trainer, monkeypatch):
    """Loss, words and examples add up; examples are dealt like cards, and no graph is kept."""
    run = trainer(config=replace(CONFIG, accumulation_steps=steps), **deterministic_settings())
    batch = a_batch(run, 11)
    batch["target"][3] = PAD  # a picture without words counts for nothing
    number = min(steps, 11)
    micro_batches = list(run._micro_batches(batch))
    assert len(micro_batches) == number
    for i, micro_batch in enumerate(micro_batches):
        assert_close(micro_batch, {name: value[i::number] for name, value in batch.items()})
    expected = run.model.loss(batch)[0].item()
    first_counts = []
    summed = []
    scaled = run._scaled
    all_reduce = distributed.all_reduce

    def watched_scaled(loss, first_count):
        first_counts.append(float(first_count))
        return scaled(loss, first_count)

    def watched_all_reduce(values):
        summed.append(values)
        return all_reduce(values)

    monkeypatch.setattr(run, "_scaled", watched_scaled)
    monkeypatch.setattr(distributed, "all_reduce", watched_all_reduce)
    stats = run._train_step(batch)
    assert stats.loss == pytest.approx(expected, rel=1e-5)
    assert stats.count == (batch["target"] != PAD).sum() and stats.examples == 11
    assert set(first_counts) <= {(micro_batches[0]["target"] != PAD).sum().item()}
    assert not any(values.requires_grad for values in summed)


def test_accumulation_trains_the_same_model(trainer):
    whole = trainer("whole", **deterministic_settings())
    split = trainer("split", replace(CONFIG, accumulation_steps=3), **deterministic_settings())
    whole.fit()
    split.fit()
    losses = [loss for _, loss in whole.history]
    assert [loss for _, loss in split.history] == pytest.approx(losses, abs=1e-5)


def test_step_equals_that_of_torch(trainer):
    run = trainer("run", **deterministic_settings())
    copy = trainer("copy", **deterministic_settings())
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
            group["lr"] = CONFIG.learning_rate * warmup_and_cosine(i, 16, 0.25)
        optimizer.step()
        optimizer.zero_grad()
        assert stats.loss / stats.count == pytest.approx(loss.item(), rel=1e-5)
        assert stats.norm == pytest.approx(norm.item(), rel=1e-4) and stats.examples == 11
    assert_close(run.model.state_dict(), copy.model.state_dict(), rtol=1e-4, atol=1e-6)


def test_clipping_bounds_the_gradient_and_reports_its_norm_before(trainer):
    run = trainer(config=replace(CONFIG, clip_norm=0.01))
    seen = []
    run.optimizer.register_step_pre_hook(
        lambda *_: seen.extend(p.grad.flatten() for p in run.model.parameters())
    )
    stats = run._train_step(a_batch(run, 7))
    assert stats.norm > 0.1 and torch.cat(seen).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_clipping_ignores_the_loss_scale_of_float16(trainer):
    runs = [
        trainer(name, replace(CONFIG, precision=name, clip_norm=0.01), **deterministic_settings())
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


def test_learning_rate_rises_linearly_and_falls_as_a_cosine(trainer):
    # The warmup takes 5 of 40 steps.
    factors = [warmup_and_cosine(step, 40, warmup_fraction=0.125) for step in range(41)]
    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert (factors[20], factors[40]) == (pytest.approx(0.5), pytest.approx(0.0))
    assert all(a > b for a, b in zip(factors[4:], factors[5:])) and max(factors) > 0.97
    assert warmup_and_cosine(0, 30, 0.05) == pytest.approx(1 / 1.5)  # a step and a half
    assert warmup_and_cosine(0, 10, 0.05) == pytest.approx(1.0)  # half a step
    run = trainer()
    rates = []
    run.optimizer.register_step_pre_hook(
        lambda *_: rates.append(run.optimizer.param_groups[1]["lr"])
    )
    run.fit()
    factors = [warmup_and_cosine(step, 16, 0.25) for step in range(16)]
    assert rates == pytest.approx([CONFIG.learning_rate * factor for factor in factors])


@pytest.mark.parametrize("shuffle", [True, False])
def test_training_reads_the_examples_in_their_order_unless_shuffled(shuffle, trainer):
    run = trainer(config=replace(CONFIG, bucket_batches=None, shuffle=shuffle))
    batches = list(run.prefetcher.loader.batch_sampler)
    indices = [sorted(index for index, _ in batch) for batch in batches]
    in_order = [index for batch in indices for index in batch] == list(range(len(run.train)))
    assert in_order != shuffle


def test_biases_and_norms_do_not_decay(trainer):
    model = trainer(**deterministic_settings(TRANSFORMER)).model
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
    """Make the gradient of one weight `value` in these steps, counted from 0."""
    weight = trainer.model.decoder.embedding.weight
    weight.register_hook(
        lambda grad: grad.index_fill(0, torch.tensor([5]), value) if poison.calls in steps else grad
    )
    step = trainer._train_step
    poison.calls = -1

    def counting(batch):
        poison.calls += 1
        return step(batch)

    trainer._train_step = counting


def test_step_with_a_nonfinite_gradient_is_skipped_and_counted(trainer):
    run = trainer()
    poison(run, {0})
    state = run.model.state_dict()  # includes batch-norm statistics
    before = {name: value.clone() for name, value in state.items()}
    assert math.isnan(run._train_step(a_batch(run, 7)).norm)
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert run.skipped == 1 and not run.optimizer.state
    assert all(p.grad is None for p in run.model.parameters())


def test_skipped_steps_do_not_move_the_schedule(trainer):
    run = trainer()
    rates = []
    poison(run, {2, 3, 9}, math.inf)
    run.optimizer.register_step_pre_hook(
        lambda *_: rates.append(run.optimizer.param_groups[0]["lr"])
    )
    run.fit()
    assert run.skipped == 3 and run.step == 16
    factors = [warmup_and_cosine(step, 16, 0.25) for step in range(13)]
    assert rates == pytest.approx([CONFIG.learning_rate * factor for factor in factors])
    assert read_checkpoint(run.folder / "last.pt")["skipped"] == 3


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_reaches_the_loss_of_float32(precision, trainer):
    runs = [
        trainer(name, replace(CONFIG, precision=name, epochs=4), decoder=LSTM | {"dropout": 0.0})
        for name in ("float32", precision)
    ]
    for run in runs:
        run.fit()
    assert runs[1].best_loss == pytest.approx(runs[0].best_loss, rel=0.03)
    assert all(p.dtype == torch.float32 for p in runs[1].model.parameters())


def test_float16_halves_a_loss_scale_that_is_too_large(trainer):
    run = trainer(config=replace(CONFIG, precision="float16"))
    run.scaler.scale = 2.0**60
    run._train_step(a_batch(run, 7))
    assert run.skipped == 1 and run.scaler.scale == 2.0**59
    run.scaler.scale = 2.0**30
    run.fit()
    assert 0 < run.skipped < 16 and 1 < run.scaler.scale < 2.0**30 and run.optimizer.state


# -------------------------------------------------------------------------------------------------
# The whole run.


def test_same_seed_gives_the_same_model_and_another_seed_does_not(trainer):
    first = trainer("first")
    same = trainer("same")
    other = trainer("other", replace(CONFIG, seed=1))
    for run in (first, same, other):
        run.fit()
    assert states_equal(first, same)
    assert not states_equal(first, other)


@pytest.mark.parametrize("keep_best", [True, False])
def test_the_best_or_the_last_weights_are_kept(trainer, monkeypatch, keep_best):
    run = trainer(config=replace(CONFIG, keep_best=keep_best))
    validated = []  # the weights at each validation

    def rising():
        validated.append(copy.deepcopy(run.model.state_dict()))
        return float(len(validated))

    monkeypatch.setattr(run, "_validate", rising)
    run.fit()
    assert len(validated) > 2
    kept = read_checkpoint(run.folder / "best.pt")["model"]
    expected = validated[0] if keep_best else run.model.state_dict()
    assert all(torch.equal(kept[name], expected[name]) for name in expected)


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
    """Bit for bit, in the machine's best precision: no choice that affects numbers is timed."""
    here = Path(__file__).parent
    processes = []
    for name in ("one", "other"):
        environment = os.environ | {
            "PYTHONPATH": f"{here}{os.pathsep}{here.parent}",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": str(len(name)),  # sets have another order in each
        }
        command = [sys.executable, "-c", FRESH, str(tmp_path / name)]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        )
    one, other = (process.communicate(timeout=300)[0].splitlines()[-1] for process in processes)
    assert one == other and len(one.split()[-1]) == 64 and "[[8, " in one


def test_overfits_a_few_captions(trainer):
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
def test_run_resumed_after_ctrl_c_is_bit_identical(trainer, steps):
    whole, resumed = resumed_after(steps, trainer)
    assert states_equal(whole, resumed)
    assert resumed.best_loss == whole.best_loss and resumed.history == whole.history


@pytest.mark.parametrize(
    "decoder, joint", [(LSTM, False), (TRANSFORMER, True)], ids=["lstm", "transformer, joint"]
)
def test_resumed_translation_run_is_bit_identical(decoder, joint, tmp_path):
    settings = {"decoder": decoder, "joint": joint, "label_smoothing": 0.1}
    whole, resumed = resumed_after(3, lambda name: translator(tmp_path / name, **settings))
    assert states_equal(whole, resumed) and whole.history == resumed.history
    assert whole.history[0][1] > whole.best_loss > 0
    with pytest.raises(ValueError, match="modality_dropout 0.5, there 0.3"):
        translator(whole.folder, **settings, modality_dropout=0.5)


def test_resuming_with_another_vocabulary_is_refused(tmp_path):
    stop_after(translator(tmp_path / "apart"), 3)
    stop_after(translator(tmp_path / "joint", joint=True), 3)
    with pytest.raises(ValueError, match="other vocabularies.target.*choose another --to"):
        translator(tmp_path / "joint", joint=True, pieces=149)
    with pytest.raises(ValueError) as caught:
        translator(tmp_path / "apart", backwards=True)
    message = str(caught.value)
    assert "other vocabularies.source" in message and "vocabularies.target" not in message


def test_skipped_steps_and_loss_scale_are_resumed(trainer):
    config = replace(CONFIG, precision="float16", accumulation_steps=2)
    runs = [trainer("whole", config), trainer("stopped", config)]
    for run in runs:
        run.scaler.scale = 2.0**24
    runs[0].fit()
    stop_after(runs[1], 3)
    resumed = trainer("stopped", config)
    assert resumed.skipped == 3 and resumed.scaler.scale == 2.0**21
    resumed.fit()
    assert states_equal(runs[0], resumed)
    assert (resumed.skipped, resumed.scaler.scale) == (runs[0].skipped, runs[0].scaler.scale)


def test_sigterm_stops_like_ctrl_c(trainer):
    stop_after(trainer(), 3, signal.SIGTERM)
    assert read_checkpoint(trainer().folder / "last.pt")["step"] == 3


def test_stop_requested_during_the_last_validation_is_not_lost(trainer):
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


def test_training_preserves_random_states_and_signal_handlers(trainer):
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


def test_validation_loss_is_the_mean_over_captions_one_by_one(trainer):
    run = trainer(label_smoothing=0.2)  # in training only
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


def test_resuming_with_other_settings_is_refused_and_lists_the_differences(trainer):
    stop_after(trainer(), 3)
    with pytest.raises(
        ValueError, match=r"\(decoder.hidden_size 17, there 13\): choose another --to"
    ):
        trainer(decoder=LSTM | {"hidden_size": 17})
    with pytest.raises(ValueError, match="encoders.image.name vit, there resnet"):
        trainer(**deterministic_settings())
    with pytest.raises(ValueError, match="examples 59, there 53; .*epochs 3, there 2"):
        trainer(config=replace(CONFIG, epochs=3), count=59)
    trainer(config=replace(CONFIG, workers=1))  # may change: the results are the same


def test_best_model_loads_with_its_vocabulary_and_metadata(trainer):
    run = trainer()
    run.fit()
    model, vocabularies, saved = load_run(run.folder)
    assert vocabularies.keys() == {"target"}
    assert vocabularies["target"].words == run.train.vocabularies["target"].words
    assert saved["metadata"] == {"data": "scenes"}
    assert saved["model_config"] == asdict(run.model_config)
    assert not model.training
    entries = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    validated = {}
    for entry in entries:
        if "validation_loss" in entry:
            validated[entry["step"]] = entry["validation_loss"]
    assert list(validated) == [5, 10, 15, 16] == [step for step, _ in run.history]
    assert min(validated.values()) == pytest.approx(run.best_loss, abs=1e-4)


@pytest.mark.parametrize("version", [None, 1, VERSION + 1])
def test_checkpoint_of_another_layout_is_refused_in_one_line(version, trainer):
    """None: an old checkpoint without a version."""
    path = trainer().folder / "last.pt"
    stop_after(trainer(), 3)
    saved = read_checkpoint(path)
    assert saved.pop("version") == VERSION
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


def test_metrics_after_the_checkpoint_are_dropped_on_resume(trainer):
    run = trainer()
    stop_after(run, 5)
    metrics = run.folder / "metrics.jsonl"
    half_a_line = '{"step": 1'  # as a killed run leaves it
    metrics.write_text(metrics.read_text() + '{"step": 9, "loss": 1.0}\n' + half_a_line)
    trainer().fit()
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert 9 not in steps and steps == sorted(steps)


def test_profiling_does_not_change_training(trainer, capsys):
    plain = trainer("plain")
    profiled = trainer("profiled")
    plain.fit()
    profiled.fit(profile=True)
    assert states_equal(plain, profiled) and "costliest operations" in capsys.readouterr().out
    assert json.loads((profiled.folder / "trace.json").read_text())["traceEvents"]


def test_no_large_tensor_is_float64(trainer):
    seen = {}

    class Watch(TorchDispatchMode):
        """Apple's GPUs have no float64. Validation uses it for two sums only, on the CPU."""

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


def test_compiled_model_learns_the_same_and_saves_the_same_names(trainer, monkeypatch):
    # Traced, but not compiled to C++, which would take minutes.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    settings = deterministic_settings(TRANSFORMER | {"num_layers": 1})
    runs = [
        trainer(f"{flag}", replace(CONFIG, compile=flag), count=11, **settings)
        for flag in (False, True)
    ]
    for run in runs:  # batches of 7 and of 4: traced once for the first size, once for any size
        run.fit()
    assert runs[1].best_loss == pytest.approx(runs[0].best_loss, rel=1e-3)
    for name in ("last.pt", "best.pt"):
        names = list(read_checkpoint(runs[1].folder / name)["model"])
        assert names == list(runs[0].model.state_dict())


# -------------------------------------------------------------------------------------------------
# Errors.


def test_empty_training_data_is_refused(trainer, tmp_path):
    run = trainer()
    empty = Examples(SceneCaptions("train", 0), run.train.vocabularies)
    with pytest.raises(ValueError, match="0 examples to train on and 15 to validate with"):
        Trainer(ModelConfig(10), CONFIG, (empty, run.validation), tmp_path)


def test_nonfinite_loss_stops_the_run_and_names_the_layer(trainer):
    run = trainer()
    nn.init.constant_(run.model.encoders["image"].backbone.layer1[0].bn1.bias, 3e38)
    step = run._train_step
    batches = []

    def counting(batch):
        batches.append(batch)
        return step(batch)

    run._train_step = counting
    message = r"3 steps in a row.*output of encoders.image.backbone.layer1.0.*learning-rate"
    with pytest.raises(FloatingPointError, match=message) as error:
        run.fit()
    assert len(batches) == 3 and "\n" not in str(error.value)
    assert not (run.folder / "last.pt").exists()


def test_persistently_infinite_gradients_stop_the_run(trainer):
    run = trainer(config=replace(CONFIG, epochs=9))
    poison(run, range(99), math.inf)
    message = r"25 steps in a row.*gradient of decoder.embedding.weight"
    with pytest.raises(FloatingPointError, match=message):
        run.fit()


def test_out_of_memory_names_the_batch_and_what_to_lower(trainer):
    run = trainer(config=replace(CONFIG, accumulation_steps=2))
    run.model.register_forward_hook(lambda *_: torch.empty(10**15))
    message = r"step 1 \(4 examples at once, on cpu\).*--accumulation-steps"
    with pytest.raises(MemoryError, match=message):
        run.fit()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_stops_the_run_in_one_line_and_keeps_the_old_checkpoint(trainer, monkeypatch):
    stop_after(trainer(), 5)
    run = trainer()
    (run.folder / "last.pt.writing").symlink_to("/dev/full")
    monkeypatch.setattr("mmscratch.training.SAVE_SECONDS", 0)
    message = "last.pt cannot be written: No space left on device; the previous file is kept"
    with pytest.raises(OSError, match=message):
        run.fit()
    assert read_checkpoint(run.folder / "last.pt")["step"] == 5


def test_unwritable_folder_is_reported_before_the_first_step(trainer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        trainer("file/run").fit()


# -------------------------------------------------------------------------------------------------
# On a GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "auto", "float16"])
def test_resume_is_exact_on_a_gpu(precision, trainer):
    config = replace(CONFIG, precision=precision, accumulation_steps=2, workers=2)
    whole, resumed = resumed_after(5, partial(trainer, config=config))
    assert resumed.device.type == "cuda" and states_equal(whole, resumed)


@pytest.mark.gpu
def test_copying_on_a_side_stream_changes_nothing(trainer):
    runs = [trainer("side stream"), trainer("same stream")]
    runs[1].prefetcher.copy_stream = None
    for run in runs:
        run.fit()
    assert runs[0].prefetcher.copy_stream is not None and states_equal(*runs)


@pytest.mark.gpu
@DECODERS
def test_model_compiled_for_a_gpu_learns_the_same(decoder, trainer):
    runs = [
        trainer(f"{flag}", replace(CONFIG, compile=flag), **deterministic_settings(decoder))
        for flag in (False, True)
    ]
    for run in runs:
        run.fit()
    assert runs[1].best_loss == pytest.approx(runs[0].best_loss, rel=1e-2)


@pytest.mark.gpu
def test_gpu_memory_does_not_grow_over_steps(trainer):
    run = trainer(config=replace(CONFIG, epochs=30))
    used = []
    step = run._train_step

    def measured(batch):
        stats = step(batch)
        used.append(torch.cuda.memory_allocated())
        return stats

    run._train_step = measured
    run.fit()
    assert len(used) == 240 and max(used[200:]) <= 1.01 * max(used[40:80])


# -------------------------------------------------------------------------------------------------
# Killed.


# A run of 16 steps is killed at these moments, one after another, and resumed after each. It saves
# every third step.
MOMENTS = [
    (2, "in the step"),  # before the first checkpoint
    (None, "at any time"),  # in the first three steps
    (None, "at any time"),
    (5, "after saving the best model"),  # which is then newer than the checkpoint
    (6, "before the rename"),  # the checkpoint is written but does not count yet
    (9, "in the step"),  # first of the second epoch: the worker has begun to read its batches
    (10, "while validating"),
    (12, "after the rename"),
    (15, "after saving the best model"),  # before the checkpoint of this step
    (16, "before the rename"),
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
        is_time_to_save = (trainer.step + 1) % 3 == 0
        trainer.saved_at = -math.inf if is_time_to_save else math.inf
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
            at("before the rename")
        replace_file(source, target)
        if target.name == "last.pt":
            at("after the rename")
        if target.name == "best.pt":
            at("after saving the best model")

    take = trainer._train_step
    measure = trainer._validate
    replace_file = os.replace
    trainer._train_step = step
    trainer._validate = validate
    os.replace = rename
    if where == "at any time":
        threading.Timer(chance, die).start()
    trainer.fit()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_run_killed_and_resumed_many_times_is_bit_identical(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # a fork could not use it
    config = replace(CONFIG, accumulation_steps=2, workers=1)
    whole = trainer("whole", config)
    whole.fit()
    path = tmp_path / "killed/last.pt"
    chance = random.Random(0)
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
            was_saved = moment[1] == "after the rename"
            assert step == (moment[0] if was_saved else (moment[0] - 1) // 3 * 3)
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
