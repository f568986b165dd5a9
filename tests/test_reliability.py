"""Keeping a run alive: the loss scale, the first NaN, atomic writes, random states."""

import contextlib
import io
import os
import random
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mmscratch.engine.runs import read_checkpoint
from mmscratch.model import ModelConfig, build_model
from mmscratch.reliability import (
    GradScaler,
    first_nonfinite,
    get_rng_state,
    preserve_rng_state,
    set_rng_state,
    write_atomically,
)
from mmscratch.text import PAD

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", DTYPES)
def test_loss_scale_follows_that_of_torch(name):
    weight = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    ours = GradScaler(DTYPES[name])
    reference = torch.amp.GradScaler("cpu", enabled=name == "float16")
    draw = random.Random(0)
    scales = set()
    # No overflow in the first 4,100 steps, many in the next ten, then one now and then.
    for step in range(7000 if name == "float16" else 70):
        if step < 4100:
            risk = 0.0
        else:
            risk = 0.7 if step < 4110 else 0.0003
        finite = draw.random() > risk
        weight.grad = torch.tensor(1.0 if finite else draw.choice([float("nan"), float("inf")]))
        reference.scale(weight)
        reference.step(optimizer)
        reference.update()
        ours.update(finite)
        assert ours.scale == reference.get_scale(), step
        scales.add(ours.scale)
    assert min(scales) < 65536 < max(scales) / 2 if name == "float16" else scales == {1.0}


@pytest.mark.parametrize("name", DTYPES)
def test_unscaled_gradients_are_those_of_the_loss(name):
    ours = GradScaler(DTYPES[name])
    reference = torch.amp.GradScaler("cpu", enabled=name == "float16")
    weights = [nn.Parameter(torch.randn(size)) for size in (7, 5, 3)]
    weights[1].requires_grad = False
    reference.scale(sum(w.square().sum() for w in weights)).backward()
    ours.unscale(weight for weight in weights)  # an Iterable, like model.parameters()
    assert weights[1].grad is None
    for weight in (weights[0], weights[2]):  # exact, since the scale is a power of 2
        assert_close(weight.grad, 2 * weight.detach(), rtol=0, atol=0)


KINDS = [signal.SIGINT, signal.SIGTERM]
V, S = 23, 37  # words, and pixels a side


@pytest.fixture(autouse=True)
def outside():
    """Let an unhandled SIGINT or SIGTERM fail the test instead of ending the session."""

    def fail(*_):
        raise AssertionError("nobody handled the signal")

    before = [signal.signal(kind, fail) for kind in KINDS]
    yield fail
    for kind, handler in zip(KINDS, before):
        signal.signal(kind, handler)


LSTM = {"name": "lstm", "hidden_size": 13}
TRANSFORMER = {"name": "transformer", "num_heads": 2, "num_layers": 2}
LAYERS = {
    "encoders.image.backbone.conv1": (LSTM, TRANSFORMER),
    "encoders.image.backbone.layer1.0.bn2": (LSTM, TRANSFORMER),
    "encoders.image.backbone.layer2.0.downsample.0": (LSTM, TRANSFORMER),
    "encoders.image.norm": (LSTM, TRANSFORMER),
    "decoder.embedding": (LSTM,),
    "decoder.lstm": (LSTM,),
    "decoder.query": (LSTM,),
    "decoder.embedding.words": (TRANSFORMER,),
    "decoder.blocks.0.self_attn.out_proj": (TRANSFORMER,),
    "decoder.blocks.0.multihead_attn.out_proj": (TRANSFORMER,),
    "decoder.blocks.1.linear2": (TRANSFORMER,),
    "decoder.norm": (TRANSFORMER,),
}
CASES = [
    pytest.param(layer, decoder, id=f"{layer} {decoder['name']}")
    for layer in LAYERS
    for decoder in LAYERS[layer]
]
CASES = pytest.mark.parametrize(("layer", "decoder"), CASES)


def small(decoder):
    image = {"name": "resnet", "image_size": S, "depth": (1, 1), "width": 5}
    return build_model(ModelConfig(V, {"image": image}, decoder, embed_dim=22))


@pytest.fixture
def batch():
    """Five pictures with sentences of 7, 5, 3, 2 and 1 words."""
    padding = torch.arange(7) >= torch.tensor([[7], [5], [3], [2], [1]])
    target = torch.randint(4, V, (5, 7)).masked_fill(padding, PAD)
    return {"image": torch.randint(256, (5, 3, S, S), dtype=torch.uint8), "target": target}


def hooks(model):
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


def poison(value, bad=float("nan")):
    """Set one number of a tensor, or of the first tensor in a tuple, to `bad`."""
    if isinstance(value, Tensor):
        value = value.clone()
        value[(-1,) * value.dim()] = bad
        return value
    return (poison(value[0], bad), *value[1:])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@CASES
def test_first_nonfinite_output_is_named(batch, layer, decoder, bad):
    model = small(decoder)
    module = model.get_submodule(layer)
    module.register_forward_hook(lambda _module, _inputs, output: poison(output, bad))
    before = hooks(model)
    assert first_nonfinite(model, batch) == f"the output of {layer}"
    assert hooks(model) == before


@CASES
def test_nonfinite_weight_is_named_before_outputs(batch, layer, decoder):
    model = small(decoder)
    name = next(name for name, _ in model.named_parameters() if name.startswith(layer))
    weight = model.get_parameter(name)
    with torch.no_grad():
        weight.view(-1)[-1] = float("nan")
    model.loss(batch)[0].backward()
    assert first_nonfinite(model, batch) == f"the weight {name}"


def test_overflow_caused_by_a_large_finite_weight_is_found_in_the_output(batch):
    model = small(TRANSFORMER)
    with torch.no_grad():
        model.decoder.blocks[0].linear1.weight.fill_(3e38)  # large, but finite
    model.loss(batch)[0].backward()
    assert first_nonfinite(model, batch) == "the output of decoder.blocks.0.linear1"


@pytest.mark.parametrize("decoder", [LSTM, TRANSFORMER], ids=["lstm", "transformer"])
def test_gradient_is_named_only_if_all_outputs_are_finite(batch, decoder):
    model = small(decoder)
    names = dict(model.named_parameters())
    model.loss(batch)[0].backward()
    assert first_nonfinite(model, batch) == "the loss"
    name = "decoder.query.weight" if decoder is LSTM else "decoder.blocks.1.norm2.weight"
    names[name].grad[3] = float("inf")
    assert first_nonfinite(model, batch) == f"the gradient of {name}"
    layer = model.encoders["image"].norm
    handle = layer.register_forward_hook(lambda _module, _inputs, output: poison(output))
    assert first_nonfinite(model, batch) == "the output of encoders.image.norm"
    handle.remove()
    assert first_nonfinite(model, batch) == f"the gradient of {name}"


def test_gradient_nearest_to_the_loss_is_named_first(batch):
    model = small(TRANSFORMER)

    def overflow(_module, _inputs, output):
        output.register_hook(lambda gradient: gradient * float("inf"))

    handle = model.decoder.blocks[1].linear1.register_forward_hook(overflow)
    model.loss(batch)[0].backward()
    handle.remove()
    # The gradients are infinite all the way to the input.
    assert not model.encoders["image"].backbone.conv1.weight.grad.isfinite().all()
    assert first_nonfinite(model, batch).startswith("the gradient of decoder.blocks.1.")


def test_frozen_weights_have_no_gradient_to_check(batch):
    model = small(LSTM)
    model.encoders.requires_grad_(False)
    model.loss(batch)[0].backward()
    model.decoder.query.weight.grad[0, 0] = float("nan")
    assert first_nonfinite(model, batch) == "the gradient of decoder.query.weight"


class Pair(NamedTuple):
    values: Tensor
    mask: Tensor


class Returns(nn.Module):
    """A model with a part that returns a given output."""

    def __init__(self, output):
        super().__init__()
        self.part = nn.Identity()
        self.output = output

    def forward(self, batch):
        self.part(self.output)
        return torch.zeros(3)


GOOD = torch.ones(5)
BAD = torch.tensor([1.0, float("inf"), 2.0])
MASK = torch.tensor([True, False])


@pytest.mark.parametrize(
    "output", [BAD, (GOOD, BAD), Pair(BAD, MASK), (GOOD, (GOOD, BAD))], ids=str
)
def test_nested_outputs_are_checked(output):
    model = Returns(output)
    assert first_nonfinite(model, {}) == "the output of part"
    assert hooks(model) == []


@pytest.mark.parametrize(
    "output", [GOOD, (GOOD, None), Pair(GOOD, MASK), torch.tensor([3, 5]), None, ()], ids=str
)
def test_finite_outputs_are_not_named(output):
    assert first_nonfinite(Returns(output), {}) == "the loss"


def test_cell_state_of_an_lstm_is_checked():
    """Its hidden state is finite, since tanh(inf) = 1."""
    model = nn.Sequential(nn.LSTM(3, 5, batch_first=True))
    with torch.no_grad():
        for name, weight in model[0].named_parameters():
            weight.fill_(100.0 if name.startswith("bias") else 0.0)  # i = f = g = o = 1
    state = torch.zeros(1, 2, 5), torch.full((1, 2, 5), float("inf"))
    model[0].register_forward_pre_hook(lambda _module, inputs: (inputs[0], state))
    output, (_, cell) = model(torch.zeros(2, 7, 3))
    assert output.isfinite().all() and cell.isinf().all()
    assert first_nonfinite(model, torch.zeros(2, 7, 3)) == "the output of 0"


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_of_the_model_stays(batch, training):
    model = small(LSTM).train(training)
    model.decoder.eval()
    before = {name: module.training for name, module in model.named_modules()}
    first_nonfinite(model, batch)
    assert {name: module.training for name, module in model.named_modules()} == before


def test_output_of_the_model_itself_is_checked():
    model = nn.Identity()
    assert first_nonfinite(model, BAD) == "the output of the model"


def test_no_hooks_remain_when_the_model_fails(batch):
    model = small(LSTM)
    with pytest.raises(ValueError, match="none of: image"):
        first_nonfinite(model, {"target": batch["target"]})
    assert hooks(model) == []


BIG = 1_000_003  # numbers, 4 MB
DEVICES = [torch.device("cpu")] + [torch.device("cuda")] * torch.cuda.is_available()


@pytest.fixture
def path(tmp_path):
    """A checkpoint, alone in its folder."""
    path = tmp_path / "run" / "last.pt"
    write_atomically(path, {"step": 1})
    return path


def test_a_reader_never_sees_half_a_checkpoint(path):
    """0 damaged of 1,000 reads, while another process writes as fast as it can."""
    process = os.fork()
    if process == 0:
        step = 1
        while True:
            step += 1
            write_atomically(path, {"step": 1, "x": torch.full((1009,), float(step))})
    try:
        versions = set()
        for _ in range(1000):
            saved = torch.load(path, weights_only=True)
            x = saved.get("x", torch.zeros(1))
            assert saved["step"] == 1 and (x == x[0]).all()
            versions.add(x[0].item())
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    assert len(versions) > 20


def assert_unchanged(path):
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert os.listdir(path.parent) == [path.name]


def refused(path, state):
    """The error of a failed write, one line."""
    with pytest.raises(OSError) as caught:
        write_atomically(path, state)
    (line,) = str(caught.value).splitlines()
    assert str(path) in line
    # The error that torch raised is not shown.
    error = caught.value
    assert error.__cause__ is None and (error.__suppress_context__ or error.__context__ is None)
    return line


def test_written_file_can_be_read(path):
    weights = {"weight": torch.randn(5, 3), "half": torch.randn(7).bfloat16()}
    plain = [1, (2.5, None), {"a": "ä"}, True]
    write_atomically(path, {"model": weights, "plain": plain})
    state = read_checkpoint(path)
    assert_close(state["model"], weights, rtol=0, atol=0)
    assert state["plain"] == plain and os.listdir(path.parent) == ["last.pt"]


def test_content_is_on_the_disk_before_the_rename(path, monkeypatch):
    events = []
    fsync = os.fsync
    replace = os.replace

    def watched_fsync(file):
        events.append(("on the disk", os.fstat(file).st_size, path.stat().st_size))
        fsync(file)

    def watched_replace(source, target):
        events.append("renamed")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    old = path.stat().st_size
    write_atomically(path, {"weights": torch.randn(BIG)})
    assert events == [("on the disk", path.stat().st_size, old), "renamed"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("size", [1, BIG])  # fails in the last flush, or within torch.save
def test_full_disk_keeps_the_old_checkpoint(path, size):
    path.with_name("last.pt.writing").symlink_to("/dev/full")
    line = refused(path, {"weights": torch.randn(size)})
    assert "No space left" in line and "the previous file is kept" in line
    assert_unchanged(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_full_disk_at_the_first_write_leaves_no_file(tmp_path):
    (tmp_path / "last.pt.writing").symlink_to("/dev/full")
    line = refused(tmp_path / "last.pt", {"step": 1})
    assert "No space left" in line and "kept" not in line  # there is no previous file
    assert os.listdir(tmp_path) == []


def test_file_size_limit_keeps_the_old_checkpoint(path):
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BIG, before[1]))  # Python ignores its signal
    try:
        line = refused(path, {"weights": torch.randn(BIG)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "too large" in line  # the reason, which the operating system gives
    assert_unchanged(path)


@pytest.mark.parametrize("below", ["last.pt", "run/last.pt"])
def test_impossible_folder_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("a file, and no folder")
    refused(tmp_path / "file" / below, {"step": 1})
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_read_only_folder_keeps_the_old_checkpoint(path):
    path.parent.chmod(0o500)
    try:
        assert "ermission" in refused(path, {"step": 2})
    finally:
        path.parent.chmod(0o700)
    assert_unchanged(path)


def test_folder_in_place_of_the_file_is_refused(tmp_path):
    (tmp_path / "last.pt").mkdir()
    refused(tmp_path / "last.pt", {"step": 1})
    assert os.listdir(tmp_path) == ["last.pt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, KeyError])
def test_other_errors_pass_through_and_keep_the_old_checkpoint(path, monkeypatch, error):
    def happen(_):
        raise error

    monkeypatch.setattr(os, "fsync", happen)
    with pytest.raises(error):
        write_atomically(path, {"step": 2})
    assert_unchanged(path)


NUMBERS = torch.arange(300_007)


def write_and_be_killed(path, step, moment):
    """Fork a process that writes this step and kills itself at this moment; None: it writes on."""

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def save_half(state, file):
        buffer = io.BytesIO()
        save(state, buffer)
        file.write(buffer.getvalue()[: buffer.tell() // 2])
        file.flush()
        die()

    save = torch.save
    replace = os.replace
    child = os.fork()
    if child:
        return child
    try:
        if moment == "within torch.save":
            torch.save = save_half
        if moment == "before it is on the disk":
            os.fsync = die
        if moment == "before the rename":
            os.replace = die
        if moment == "after the rename":
            os.replace = lambda *names: (replace(*names), die())
        for later in range(step, step + 10**6):
            write_atomically(path, {"step": later, "numbers": NUMBERS + later})
    finally:
        os._exit(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows")
@pytest.mark.parametrize(("moment", "reached"), [
    ("within torch.save", 3), ("before it is on the disk", 3),
    ("before the rename", 3), ("after the rename", 4),
])  # fmt: skip
def test_process_killed_at_a_given_moment_leaves_a_complete_checkpoint(tmp_path, moment, reached):
    path = tmp_path / "last.pt"
    write_atomically(path, {"step": 3, "numbers": NUMBERS + 3})
    _, status = os.waitpid(write_and_be_killed(path, 4, moment), 0)
    assert status == signal.SIGKILL
    was_writing = path.with_name("last.pt.writing").exists()
    assert was_writing == (reached == 3)
    state = read_checkpoint(path)
    assert state["step"] == reached and torch.equal(state["numbers"], NUMBERS + reached)
    write_atomically(path, {"step": 1})
    assert_unchanged(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows")
def test_process_killed_at_a_random_moment_leaves_a_complete_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    draw = random.Random(0)
    state = {"step": 0, "numbers": NUMBERS}
    write_atomically(path, state)
    for _ in range(5):
        child = write_and_be_killed(path, state["step"] + 1, None)
        time.sleep(draw.uniform(0.02, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        state = read_checkpoint(path)
        assert torch.equal(state["numbers"], NUMBERS + state["step"])


def draws():
    """Numbers from each generator, drawn as in training."""
    numbers = []
    for device in DEVICES:
        numbers += torch.randn(3, device=device).tolist()
        numbers.append(nn.Dropout()(torch.ones(53, device=device)).tolist())
    return numbers


@pytest.mark.parametrize("on_disk", [False, True])
def test_restored_random_state_gives_the_same_numbers(path, on_disk):
    state = get_rng_state()
    if on_disk:
        write_atomically(path, state)
        state = read_checkpoint(path)
    expected = draws()
    assert all(a != b for a, b in zip(draws(), expected))
    for _ in range(2):  # drawing does not change the saved state
        set_rng_state(state)
        assert draws() == expected


def test_random_state_saved_with_a_gpu_is_restored_without_one(monkeypatch):
    state = get_rng_state()
    expected = draws()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "set_rng_state", None)  # cannot be called
    set_rng_state(state | {"device": [("cuda", torch.zeros(16, dtype=torch.uint8))]})
    assert draws()[:4] == expected[:4]
    assert get_rng_state()["device"] == []


def test_draws_within_preserve_rng_state_do_not_change_it():
    with preserve_rng_state():
        expected = draws()
    for error in (None, KeyError):
        with contextlib.suppress(KeyError), preserve_rng_state():
            draws()
            if error:
                raise error
    assert draws() == expected
