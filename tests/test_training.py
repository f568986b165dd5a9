"""The training loop: right gradients, exact resume, one line for what goes wrong."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_trainer
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from mmscratch.batches import CaptionPairs, collate, to_device
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.translations import SceneTranslation
from mmscratch.engine.runs import read_checkpoint
from mmscratch.finetuning import load_run, parameter_groups
from mmscratch.model import ModelConfig
from mmscratch.text import PAD, BytePairEncoding, Vocabulary
from mmscratch.training import TrainConfig, Trainer, _SmoothedCrossEntropy, warmup_and_cosine, word_loss

CONFIG = TrainConfig(epochs=2, batch_size=7, warmup=4, evaluate_every=5, precision="float32")  # 53 captions: 8 steps an epoch
DECODERS = [{"decoder": "lstm"}, {"decoder": "transformer"}]
STILL = {"backbone": "vit", "depth": 1, "width": 8, "dropout": 0.0}  # no batch norm, no dropout: parts do not matter


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch, request):
    if "gpu" not in request.keywords:
        monkeypatch.setattr("mmscratch.training.pick_device", lambda: torch.device("cpu"))


@pytest.fixture
def trainer(tmp_path):
    return lambda name="run", config=CONFIG, **changes: tiny_trainer(tmp_path / name, config, **changes)


def states_equal(a, b):
    """The same weights and the same optimizer state, to the bit."""
    weights = all(torch.equal(x, y) for x, y in zip(a.model.state_dict().values(), b.model.state_dict().values()))
    moments = [
        torch.equal(x, y)
        for p, q in zip(a.model.parameters(), b.model.parameters())
        for x, y in zip(a.optimizer.state[p].values(), b.optimizer.state[q].values())
    ]
    return weights and len(moments) > 0 and all(moments)


def gradients(trainer, batch):
    trainer.model.zero_grad()
    trainer._gradient(batch)
    return {name: parameter.grad.clone() for name, parameter in trainer.model.named_parameters()}


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


def translator(folder, config=CONFIG, joint=False, pieces=150, backwards=False, **model):
    """A trainer of a tiny model that translates; two of three sentences have a picture beside them."""
    training, validation = (SceneTranslation(split, n, size=32, hidden="some") for split, n in (("train", 53), ("validation", 11)))
    for data in (training, validation):
        data.pictured = [i % 3 > 0 for i in range(len(data))]
    sources, translations = training.sources, [refs[0] for refs in training.references]
    if joint:
        target = source = BytePairEncoding.learn([*sources, *translations], pieces)
    else:
        source, target = Vocabulary.build(sources), Vocabulary.build(translations)
        source = Vocabulary(source.state()[::-1]) if backwards else source
    pairs = (CaptionPairs(data, target, source_vocabulary=source) for data in (training, validation))
    size = {"depth": (1,), "width": 5, "image_size": 32, "embed_dim": 12, "hidden_size": 13, "num_heads": 2, "max_length": 97}
    model = {"dropout": 0.2, "joint_vocabulary": joint, "modality_dropout": 0.3} | model
    return Trainer(ModelConfig(len(target), source_vocab_size=len(source), **size | model), config, *pairs, folder)


# ---------------------------------------------------------------------------------------------------------------------
# The step.


@pytest.mark.parametrize("scale", [1, 1e4], ids=["logits of 1", "logits of 10,000"])
@pytest.mark.parametrize("real", [13, 9, 0], ids=["all words", "some padding", "all padding"])
@pytest.mark.parametrize("smoothing", [0.1, 0.7])
def test_the_smoothed_loss_and_its_gradient_are_those_of_torch(smoothing, real, scale):
    torch.manual_seed(0)
    logits = scale * torch.randn(13, 29, dtype=torch.float64)
    target = torch.randint(1, 29, (13,)).masked_fill(torch.randperm(13) >= real, PAD)
    results = []
    for loss in (
        lambda x: _SmoothedCrossEntropy.apply(x, target, smoothing),
        lambda x: F.cross_entropy(x, target, label_smoothing=smoothing, ignore_index=PAD, reduction="sum"),
    ):
        x = logits.clone().requires_grad_()
        value = loss(x)
        (0.37 * value).backward()
        results.append((value.detach(), x.grad))
    assert_close(*results, rtol=1e-10, atol=1e-10)
    assert_close(x.detach(), logits, rtol=0, atol=0)
    assert results[0][1].any() == (real > 0)


def test_the_loss_of_words_asks_for_its_logits_as_it_is_told():
    logits, target = torch.randn(5, 7, 29, requires_grad=True), torch.randint(5, (5, 7))

    def model(batch, teacher_forcing):
        asked.append(teacher_forcing)
        return logits.bfloat16()

    for smoothing in (0.0, 0.3):
        asked = []
        (gradient,) = torch.autograd.grad(loss := word_loss(model, {"target": target}, smoothing, 0.25), logits)
        flat, options = logits.bfloat16().float().flatten(0, 1), {"ignore_index": PAD, "reduction": "sum"}
        expected = F.cross_entropy(flat, target.flatten(), label_smoothing=smoothing, **options)
        assert_close(loss, expected)
        assert_close(gradient, torch.autograd.grad(expected, logits)[0])
        assert asked == [0.25]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_parts_of_a_batch_in_which_some_have_pictures_give_the_gradient_of_the_whole(smoothing, tmp_path):
    config = replace(CONFIG, batch_size=32, label_smoothing=smoothing)
    runs = [translator(tmp_path / str(n), replace(config, accumulate=n), **STILL, modality_dropout=0.0) for n in (1, 3, 32)]
    batch = a_batch(runs[0], 32)
    assert batch["has_image"].float().mean() == 21 / 32 and not batch["has_image"][::3].any()  # one part has none
    expected, *others = (gradients(run, batch) for run in runs)
    for got in others:
        assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_the_share_of_words_that_it_is_told_is_that_of_the_settings(tmp_path):
    shares, still = (0.0, 1.0), STILL | {"modality_dropout": 0.0}
    runs = [translator(tmp_path / str(share), replace(CONFIG, teacher_forcing=share), **still) for share in shares]
    batch = a_batch(runs[0], 7)
    words = (batch["target"] != PAD).sum()
    for run, share in zip(runs, shares):
        got = gradients(run, batch)
        run.model.zero_grad()
        (word_loss(run.model, batch, teacher_forcing=share) / words).backward()
        assert_close(got, {name: parameter.grad for name, parameter in run.model.named_parameters()})
        run.told = got
    assert any((runs[0].told[name] != gradient).any() for name, gradient in runs[1].told.items())
    assert runs[0]._validate() == pytest.approx(runs[1]._validate(), rel=1e-6)  # which is told all of them


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_the_formula_and_pads_count_in_neither_term(smoothing, trainer):
    run = trainer(**STILL)
    run.model.eval()
    batch = a_batch(run, 5)
    log_p, target = run.model(batch).log_softmax(-1), batch["target"]
    expected = 0
    for b, t in target.ne(PAD).nonzero().tolist():
        expected -= (1 - smoothing) * log_p[b, t, target[b, t]] + smoothing * log_p[b, t].mean()
    assert_close(word_loss(run.model, batch, smoothing), expected)
    longer = batch | {"target": F.pad(target, (0, 3), value=PAD)}
    assert_close(word_loss(run.model, longer, smoothing), expected)


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
@pytest.mark.parametrize("parts", [2, 4, 32])
def test_the_gradient_of_parts_is_that_of_the_whole_batch_by_words(parts, decoder, trainer):
    config = replace(CONFIG, batch_size=32, label_smoothing=0.1)
    whole, split = trainer("whole", config, **STILL, **decoder), trainer("split", replace(config, accumulate=parts), **STILL, **decoder)
    batch = a_batch(whole, 32)
    lengths = (batch["target"] != PAD).sum(1)
    assert len({part.sum().item() for part in lengths.tensor_split(4)}) > 1  # the parts have different numbers of words
    expected, got = gradients(whole, batch), gradients(split, batch)
    assert_close(got, expected, rtol=1e-5, atol=1e-6)
    by_parts = {name: torch.zeros_like(value) for name, value in expected.items()}  # the common mistake: the mean of means
    for i in range(4):
        part = {name: value.tensor_split(4)[i] for name, value in batch.items()}
        for name, value in gradients(whole, part).items():
            by_parts[name] += value / 4
    assert max((by_parts[name] - expected[name]).abs().max() for name in expected) > 1e-4


@pytest.mark.parametrize("parts", [3, 32])
def test_the_parts_of_a_batch_tell_its_loss_and_count_its_words(parts, trainer):
    whole, split = trainer("whole", **STILL), trainer("split", replace(CONFIG, accumulate=parts), **STILL)
    batch = a_batch(whole, 11)
    batch["target"][3] = PAD  # a picture without words counts for nothing
    for told in (whole._gradient(batch), split._gradient(batch)):
        assert_close(told[0], word_loss(whole.model, batch).detach())
        assert [number.item() for number in told[1:]] == [(batch["target"] != PAD).sum(), 10]
        assert not told[0].requires_grad


def test_accumulation_trains_the_same_model(trainer):
    whole, split = trainer("whole", **STILL), trainer("split", replace(CONFIG, accumulate=3), **STILL)
    whole.fit(), split.fit()
    assert [loss for _, loss in split.history] == pytest.approx([loss for _, loss in whole.history], abs=1e-5)


def test_a_step_is_what_torch_s_own_pieces_make_of_it(trainer):
    run, copy = trainer("run", **STILL), trainer("copy", **STILL)
    optimizer = torch.optim.AdamW(parameter_groups(copy.model, 0.05), betas=(0.9, 0.98))
    for i in range(5):
        batch = a_batch(run, 11)
        told = run._train_step(batch)
        run.step += 1
        logits = copy.model(batch)
        loss = F.cross_entropy(logits.flatten(0, 1), batch["target"].flatten(), ignore_index=PAD)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(copy.model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = CONFIG.learning_rate * warmup_and_cosine(i, 16, 4)
        optimizer.step()
        optimizer.zero_grad()
        assert told.loss / told.words == pytest.approx(loss.item(), rel=1e-5)
        assert told.norm == pytest.approx(norm.item(), rel=1e-4) and told.pictures == 11
    assert_close(run.model.state_dict(), copy.model.state_dict(), rtol=1e-4, atol=1e-6)


def test_clipping_bounds_the_gradient_and_tells_its_norm_before(trainer):
    run, seen = trainer(config=replace(CONFIG, clip_norm=0.01)), []
    run.optimizer.register_step_pre_hook(lambda *_: seen.extend(p.grad.flatten() for p in run.model.parameters()))
    told = run._train_step(a_batch(run, 7))
    assert told.norm > 0.1 and torch.cat(seen).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_clipping_does_not_see_the_scale_of_float16(trainer):
    runs = [trainer(name, replace(CONFIG, precision=name, clip_norm=0.01), **STILL) for name in ("float32", "float16")]
    seen = []
    for run in runs:
        run.optimizer.register_step_pre_hook(lambda *_, run=run: seen.append([p.grad.flatten() for p in run.model.parameters()]))
    norms = [run._train_step(a_batch(run, 7)).norm for run in runs]
    assert norms[1] == pytest.approx(norms[0], rel=0.05)
    assert [torch.cat(gradients).norm().item() for gradients in seen] == pytest.approx([0.01] * 2, rel=1e-3)


def test_the_learning_rate_rises_and_falls(trainer):
    factors = [warmup_and_cosine(step, 40, warmup=8) for step in range(41)]  # it rises in 5 of 40 steps
    assert factors[:4] == [0.2, 0.4, 0.6, 0.8] and factors[20] == pytest.approx(0.5) and factors[40] == pytest.approx(0.0)
    assert all(a > b for a, b in zip(factors[4:], factors[5:])) and max(factors) > 0.97
    run, rates = trainer(), []
    run.optimizer.register_step_pre_hook(lambda *_: rates.append(run.optimizer.param_groups[1]["lr"]))
    run.fit()
    assert rates == [CONFIG.learning_rate * warmup_and_cosine(step, 16, 4) for step in range(16)]


def test_biases_and_norms_do_not_decay(trainer):
    model = trainer(**STILL, decoder="transformer").model
    decaying, kept = parameter_groups(model, 0.3)
    assert (decaying["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            kind = isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)) or "bias" in name
            assert any(parameter is p for p in decaying["params"]) == (not kind and parameter.squeeze().dim() > 1)
    assert len(decaying["params"]) + len(kept["params"]) == len(list(model.parameters()))


def poison(trainer, steps, value=math.nan):
    """Let the gradient of one weight not be finite in these steps, counted from 0."""
    weight = trainer.model.decoder.embedding.weight
    weight.register_hook(lambda grad: grad.index_fill(0, torch.tensor([5]), value) if poison.calls in steps else grad)
    step, poison.calls = trainer._train_step, -1

    def counting(batch):
        poison.calls += 1
        return step(batch)

    trainer._train_step = counting


def test_a_step_whose_gradient_is_not_finite_changes_nothing_and_is_counted(trainer):
    run = trainer()
    poison(run, {0})
    before = {name: value.clone() for name, value in run.model.state_dict().items()}  # batch norm's statistics, too
    assert math.isnan(run._train_step(a_batch(run, 7)).norm)
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert run.skipped == 1 and not run.optimizer.state and all(p.grad is None for p in run.model.parameters())


def test_the_schedule_does_not_move_with_a_skipped_step(trainer):
    run, rates = trainer(), []
    poison(run, {2, 3, 9}, math.inf)
    run.optimizer.register_step_pre_hook(lambda *_: rates.append(run.optimizer.param_groups[0]["lr"]))
    run.fit()
    assert run.skipped == 3 and run.step == 16
    assert rates == [CONFIG.learning_rate * warmup_and_cosine(step, 16, 4) for step in range(13)]
    assert read_checkpoint(run.folder / "last.pt")["skipped"] == 3


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precisions_learn_what_float32_learns(precision, trainer):
    runs = [trainer(name, replace(CONFIG, precision=name, epochs=4), dropout=0.0) for name in ("float32", precision)]
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
    runs = [trainer(name, config) for name, config in (("a", CONFIG), ("b", CONFIG), ("c", replace(CONFIG, seed=1)))]
    for run in runs:
        run.fit()
    assert states_equal(runs[0], runs[1])
    assert not states_equal(runs[0], runs[2])


def test_learns_a_few_captions_by_heart(trainer):
    config = replace(CONFIG, epochs=150, learning_rate=1e-2, evaluate_every=1000)
    run = trainer(config=config, count=7, width=8, embed_dim=64, hidden_size=64, dropout=0.0)
    run.train.augmented = False
    run.fit()
    assert json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-2])["loss"] < 0.05


@pytest.mark.parametrize("steps", [1, 5, 8, 11])  # 8 is the end of an epoch
def test_ctrl_c_and_going_on_give_what_an_unbroken_run_gives(trainer, steps):
    whole, resumed = resumed_after(steps, trainer)
    assert states_equal(whole, resumed)
    assert resumed.best_loss == whole.best_loss and resumed.history == whole.history


@pytest.mark.parametrize("part", [{"decoder": "lstm"}, {"decoder": "transformer", "joint": True}], ids=str)
def test_a_translator_that_was_stopped_goes_on_to_the_bit(part, tmp_path):
    config = replace(CONFIG, label_smoothing=0.1)
    whole, resumed = resumed_after(3, lambda name: translator(tmp_path / name, config, **part))
    assert states_equal(whole, resumed) and whole.history == resumed.history
    assert whole.history[0][1] > whole.best_loss > 0
    with pytest.raises(ValueError, match="modality_dropout 0.5, there 0.3"):
        translator(whole.folder, config, **part, modality_dropout=0.5)


def test_a_run_of_other_source_words_is_refused(tmp_path):
    stop_after(translator(tmp_path / "apart"), 3)
    stop_after(translator(tmp_path / "joint", joint=True), 3)
    with pytest.raises(ValueError, match="other words.*choose another --to"):
        translator(tmp_path / "joint", joint=True, pieces=149)
    with pytest.raises(ValueError) as caught:
        translator(tmp_path / "apart", backwards=True)
    assert "other source_words" in str(caught.value) and "other words" not in str(caught.value)


def test_skipped_steps_and_the_scale_survive_a_stop(trainer):
    config = replace(CONFIG, precision="float16", accumulate=2)
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
    before = torch.get_rng_state(), random.getstate(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
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
    run = trainer(config=replace(CONFIG, label_smoothing=0.2))  # which is for training only
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
    with pytest.raises(ValueError, match="hidden_size 17, there 13.*choose another --to"):
        trainer(hidden_size=17)
    with pytest.raises(ValueError, match="captions 59, there 53; .*epochs 3, there 2"):
        trainer(config=replace(CONFIG, epochs=3), count=59)
    trainer(config=replace(CONFIG, workers=1))  # which changes nothing


def test_the_best_model_loads_with_its_vocabulary_and_what_it_was_trained_on(trainer):
    run = trainer()
    run.fit()
    model, vocabulary, saved = load_run(run.folder)
    assert vocabulary.words == run.train.vocabulary.words
    assert saved["facts"] == {"data": "scenes"} and saved["model_config"] == asdict(run.model_config)
    assert not model.training
    entries = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    validated = {entry["step"]: entry["validation_loss"] for entry in entries if "validation_loss" in entry}
    assert list(validated) == [5, 10, 15, 16] == [step for step, _ in run.history]
    assert min(validated.values()) == pytest.approx(run.best_loss, abs=1e-4)


def test_metrics_after_the_checkpoint_are_forgotten_when_a_run_goes_on(trainer):
    run = trainer()
    stop_after(run, 5)
    metrics = run.folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"step": 9, "loss": 1.0}\n{"step": 1')  # a killed run leaves half a line
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

    for decoder in DECODERS:
        run = trainer(decoder["decoder"], **decoder)
        with Watch():
            run._train_step(a_batch(run, 7))
            run._validate()
    assert torch.float32 in seen and torch.float64 not in seen


def test_a_compiled_model_learns_the_same_and_its_checkpoint_does_not_show_it(trainer, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # traced, but no minutes of C++
    runs = [trainer(f"{flag}", replace(CONFIG, compile=flag, epochs=1), **STILL, decoder="transformer") for flag in (False, True)]
    for run in runs:
        run.fit()
    assert runs[1].best_loss == pytest.approx(runs[0].best_loss, rel=1e-3)
    for name in ("last.pt", "best.pt"):
        assert list(read_checkpoint(runs[1].folder / name)["model"]) == list(runs[0].model.state_dict())


# ---------------------------------------------------------------------------------------------------------------------
# What goes wrong.


def test_nothing_to_train_on_is_refused(trainer, tmp_path):
    run = trainer()
    empty = CaptionPairs(SceneCaptions("train", 0), run.train.vocabulary)
    with pytest.raises(ValueError, match="0 captions to train on"):
        Trainer(ModelConfig(10), CONFIG, empty, run.validation, tmp_path)


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_layer(trainer):
    run = trainer()
    nn.init.constant_(run.model.encoders["image"].backbone.layer1[0].bn1.bias, 3e38)
    step = run._train_step
    stop_after_three = []
    run._train_step = lambda batch: stop_after_three.append(1) or step(batch)
    with pytest.raises(FloatingPointError, match=r"3 steps in a row.*output of encoders.image.backbone.layer1.0.*learning-rate") as error:
        run.fit()
    assert len(stop_after_three) == 3 and "\n" not in str(error.value)
    assert not (run.folder / "last.pt").exists()


def test_gradients_that_stay_infinite_stop_the_run_later(trainer):
    run = trainer(config=replace(CONFIG, epochs=9))
    poison(run, range(99), math.inf)
    with pytest.raises(FloatingPointError, match=r"25 steps in a row.*gradient of decoder.embedding.weight"):
        run.fit()


def test_out_of_memory_says_how_much_was_asked_and_what_to_lower(trainer):
    run = trainer(config=replace(CONFIG, accumulate=2))
    run.model.register_forward_hook(lambda *_: torch.empty(10**15))
    with pytest.raises(MemoryError, match=r"step 1 \(4 captions and pictures of 32 pixels at once, on cpu\).*--accumulate"):
        run.fit()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_stops_with_one_line_and_keeps_the_old_checkpoint(trainer, monkeypatch):
    stop_after(trainer(), 5)
    run = trainer()
    (run.folder / "last.pt.writing").symlink_to("/dev/full")
    monkeypatch.setattr("mmscratch.training.SAVE_SECONDS", 0)
    with pytest.raises(OSError, match=r"last.pt cannot be written: No space left on device; the one before is kept"):
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
    config = replace(CONFIG, precision=precision, accumulate=2, workers=2)
    whole, resumed = resumed_after(5, partial(trainer, config=config))
    assert resumed.device.type == "cuda" and states_equal(whole, resumed)


@pytest.mark.gpu
def test_copies_on_a_side_stream_change_nothing(trainer):
    runs = [trainer("beside"), trainer("in line")]
    runs[1].feed.copies = None
    for run in runs:
        run.fit()
    assert runs[0].feed.copies is not None and states_equal(*runs)


@pytest.mark.gpu
@pytest.mark.parametrize("decoder", DECODERS, ids=str)
def test_a_model_compiled_for_a_gpu_learns_the_same(decoder, trainer):
    runs = [trainer(f"{flag}", replace(CONFIG, compile=flag), **STILL, **decoder) for flag in (False, True)]
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


KILLED = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)
from helpers import tiny_trainer
import mmscratch.training as training
from mmscratch.engine.runs import read_checkpoint

folder, kills, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
training.SAVE_SECONDS = 0.05
config = training.TrainConfig(epochs, batch_size=7, accumulate=2, evaluate_every=5, precision="float32", workers=2)
chance, reached = random.Random(0), 0

def step():
    return read_checkpoint(f"{folder}/last.pt")["step"] if os.path.exists(f"{folder}/last.pt") else 0

for attempt in range(kills + 1):
    child = os.fork()  # of a process that has computed nothing yet: its children may
    if child == 0:
        try:
            trainer = tiny_trainer(folder, config)
            take = trainer._train_step
            if attempt < kills:  # not too fast for those who wait to kill it
                trainer._train_step = lambda batch: (time.sleep(0.01), take(batch))[1]
            trainer.fit()
        except BaseException as error:
            print(f"attempt {attempt}: {error!r}", file=sys.stderr)
            os._exit(3)
        os._exit(0)
    if attempt < kills:
        while attempt % 2 == 0 and step() <= reached:  # every second time it may get on first
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.25))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert status == (signal.SIGKILL if attempt < kills else 0), f"attempt {attempt} ended with {status}"
    assert step() >= reached, "a checkpoint was lost"
    reached = step()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_killed_at_random_moments_and_gone_on_gives_the_same_to_the_bit(tmp_path):
    kills, path = int(os.environ.get("KILLS", 8)), os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
    environment, states = os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}, {}
    for name, count in (("killed", kills), ("whole", 0)):
        command = [sys.executable, "-c", KILLED, str(tmp_path / name), str(count), str(5 * kills)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        states[name] = [read_checkpoint(tmp_path / name / kept) for kept in ("last.pt", "best.pt")]
    assert_same(states["killed"], states["whole"])


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
