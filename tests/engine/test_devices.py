"""Device, number format, watches."""

import contextlib
import copy
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mmscratch.engine.devices import Precision, Stopwatch, peak_memory, pick_device, pick_precision, repeatable
from mmscratch.model import ModelConfig, build_model
from mmscratch.reliability import GradScaler
from mmscratch.text import PAD
from mmscratch.training import word_loss

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ROOT = Path(__file__).resolve().parents[2]
V, S = 23, 37  # words, and pixels a side
gpu = pytest.mark.gpu
on_gpu = pytest.mark.parametrize("device", [pytest.param(CUDA, marks=gpu)], ids=str)
everywhere = pytest.mark.parametrize("device", [CPU, pytest.param(CUDA, marks=gpu)], ids=str)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def model():
    size = {"depth": (1,), "width": 5, "image_size": S, "embed_dim": 22, "hidden_size": 13}
    return build_model(ModelConfig(V, **size, dropout=0.2))


@pytest.fixture
def batch():
    """Eleven pictures with sentences of 7, 5, 3, 2, 1, 7, 5, 3, 2, 1 and 7 words."""
    lengths = torch.tensor([7, 5, 3, 2, 1] * 2 + [7])
    target = torch.randint(4, V, (11, 7)).masked_fill(torch.arange(7) >= lengths.unsqueeze(1), PAD)
    return {"image": torch.randint(256, (11, 3, S, S), dtype=torch.uint8), "target": target}


@pytest.fixture
def tf32():
    """Where TF32 is on; what it was is put back."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    yield lambda: (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def two_gpus(monkeypatch):
    """Pretended; what is given to set_device."""
    made_current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", made_current.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return made_current


def test_one_process_takes_the_gpu(two_gpus):
    assert pick_device() == torch.device("cuda") and two_gpus == []


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_takes_its_own_gpu(two_gpus, monkeypatch, rank):
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    assert pick_device() == torch.device("cuda", rank) and two_gpus == [rank]


def test_more_processes_than_gpus_are_refused(two_gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="2 GPUs are here.*--nproc_per_node"):
        pick_device()
    assert two_gpus == []


@pytest.mark.parametrize(("mps", "picked"), [(True, "mps"), (False, "cpu")])
def test_without_cuda_it_is_mps_or_the_cpu(monkeypatch, mps, picked):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setenv("LOCAL_RANK", "1")  # of which a CPU has as many as it likes
    assert pick_device() == torch.device(picked)


@pytest.mark.parametrize("name", DTYPES)
def test_autocast_computes_in_the_dtype_and_keeps_the_weights(name):
    linear = nn.Linear(5, 3)
    with Precision(CPU, DTYPES[name], False).autocast():
        assert linear(torch.randn(7, 5)).dtype == DTYPES[name]
    assert linear.weight.dtype == torch.float32
    assert torch.randn(7, 5).matmul(torch.randn(5, 3)).dtype == torch.float32  # it has ended


def test_float32_is_no_autocast_at_all():
    assert isinstance(Precision(CPU, torch.float32, True).autocast(), contextlib.nullcontext)


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_layout_is_that_of_the_convolutions(channels_last):
    precision = Precision(CPU, torch.float32, channels_last)
    weight = nn.Conv2d(3, 7, 5).to(memory_format=precision.layout).weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_on_a_gpu_tf32_is_off_and_elsewhere_nobody_asks(tf32, dtype):
    Precision(CPU, dtype, False)
    assert tf32() == (True, True)
    Precision(CUDA, dtype, True)
    assert tf32() == (False, False)


@everywhere
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_loss_and_gradients_agree_with_those_of_float32(model, batch, name, channels_last, device):
    batch = {key: value.to(device) for key, value in batch.items()}
    model = model.eval().to(device)  # without dropout
    losses, gradients, words = [], [], batch["target"].ne(PAD).sum()
    for precision in (Precision(device, torch.float32, False), Precision(device, DTYPES[name], channels_last)):
        trial, scaler = copy.deepcopy(model).to(memory_format=precision.layout), GradScaler(precision.dtype)
        with precision.autocast():
            loss = word_loss(trial, batch)
        (loss * scaler.scale / words).backward()
        scaler.unscale(trial.parameters())
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in trial.parameters()]))
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert 0 < (gradients[1] - gradients[0]).norm() < 0.05 * gradients[0].norm()


@pytest.mark.parametrize("asked", DTYPES)
def test_the_precision_that_is_asked_for_is_taken(model, batch, asked):
    precision, why = pick_precision(model, partial(word_loss, batch=batch), CPU, asked)
    assert precision.dtype == DTYPES[asked] and precision.device == CPU
    assert "asked" in why


def test_an_unknown_precision_is_refused(model):
    with pytest.raises(ValueError, match='"auto", "float32", "bfloat16" or "float16", not \'float8\''):
        pick_precision(model, None, CPU, "float8")


@pytest.mark.parametrize("fastest", ["float32", "float32, channels last", "bfloat16, channels last"])
def test_a_cpu_takes_the_fastest(monkeypatch, fastest):
    """By our clock, in which only backward passes take time, and the machine is busy at first and at last."""
    clock, calls = [0.0], []
    monkeypatch.setattr("mmscratch.engine.devices.time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def loss(model):
        layout = ", channels last" if model.weight.is_contiguous(memory_format=torch.channels_last) else ""
        output = model(torch.randn(2, 3, 7, 7))
        calls.append(str(output.dtype).removeprefix("torch.") + layout)
        seconds = 23.0 if len(calls) <= 3 or len(calls) > 9 else 0.017 if calls[-1] == fastest else 0.019
        output.register_hook(lambda _: clock.append(clock.pop() + seconds))
        return output.float().sum()

    precision, why = pick_precision(nn.Conv2d(3, 5, 3), loss, CPU)
    assert str(precision) == fastest
    assert calls[:3] == calls[3:6] == ["float32", "float32, channels last", "bfloat16, channels last"]
    assert f"{fastest} 17 ms" in why and why.count("19 ms") == 2


def test_measuring_the_precision_changes_nothing(model, batch):
    word_loss(model, batch).backward()
    state = copy.deepcopy(model.state_dict())
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    random_state = torch.get_rng_state()
    precision, why = pick_precision(model, partial(word_loss, batch=batch), CPU)
    assert why.count(" ms") == 3 and precision.dtype in (torch.float32, torch.bfloat16)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert_close([parameter.grad for parameter in model.parameters()], gradients, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("capability", "asked", "expected"),
    [
        ((8, 0), "auto", "bfloat16"),
        ((9, 0), "auto", "bfloat16"),
        ((7, 5), "auto", "float16"),
        ((8, 0), "float16", "float16"),
        ((7, 5), "float32", "float32"),
    ],
)
def test_on_a_gpu_its_age_decides(monkeypatch, tf32, capability, asked, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    precision, _ = pick_precision(None, None, CUDA, asked)  # nothing is measured
    assert precision.dtype == DTYPES[expected] and precision.channels_last
    assert tf32() == (False, False) and ("TF32 off" in str(precision)) == (expected == "float32")


@pytest.mark.parametrize(("asked", "expected"), [("auto", "float32"), ("float32", "float32"), ("float16", "float16")])
def test_mps_computes_in_float32_unless_asked(asked, expected):
    precision, _ = pick_precision(None, None, torch.device("mps"), asked)
    assert precision.dtype == DTYPES[expected] and not precision.channels_last


def test_a_stopwatch_adds_up_and_begins_anew_when_it_was_asked(monkeypatch):
    times = iter([2.0, 5.0, 11.0, 18.0, 31.0, 44.0])
    monkeypatch.setattr("mmscratch.engine.devices.time", SimpleNamespace(perf_counter=lambda: next(times)))
    watch = Stopwatch(CPU)
    assert watch.seconds() == 0
    for _ in range(2):
        with watch:
            pass
    assert watch.seconds() == 3 + 7
    assert watch.seconds() == 0
    with pytest.raises(KeyError), watch:
        raise KeyError
    assert watch.seconds() == 13


@on_gpu
def test_a_stopwatch_on_a_gpu_sees_that_the_cpu_kept_it_waiting(device):
    watch = Stopwatch(device)
    torch.cuda.synchronize()
    with watch:
        time.sleep(0.2)
    torch.cuda.synchronize()
    assert watch.seconds() == pytest.approx(0.2, abs=0.1)
    assert watch.seconds() == 0


@on_gpu
def test_a_stopwatch_on_a_gpu_waits_for_nobody(device):
    watch = Stopwatch(device)
    with watch:
        torch.cuda._sleep(2 * 10**9)  # so many ticks, about a second
    assert watch.seconds() == 0 and not torch.cuda.current_stream().query()  # the GPU has not come to the second mark
    torch.cuda.synchronize()
    assert watch.seconds() > 0.1


def test_peak_memory_is_in_bytes_and_stays_when_the_memory_is_given_back():
    pytest.importorskip("resource", reason="Windows does not say")
    code = """if True:
        import os, torch
        from mmscratch.engine.devices import peak_memory
        if os.fork():  # a process that was started by a big one has that one's peak, but a fork of it has not
            raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
        before = peak_memory(torch.device("cpu"))
        torch.ones(300_000_000, dtype=torch.uint8)
        print(before, peak_memory(torch.device("cpu")))"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = map(int, run.stdout.split())
    assert 20e6 < before < 2e9  # of Python and torch
    assert after - before == pytest.approx(300e6, rel=0.2)


@on_gpu
def test_peak_memory_of_a_gpu_is_that_of_its_tensors(device):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = peak_memory(device)
    torch.ones(300_000_000, dtype=torch.uint8, device=device)
    assert peak_memory(device) - before == pytest.approx(300e6, rel=0.02)


@pytest.fixture
def workspace(monkeypatch):
    """Where cuBLAS has not been told anything."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")


def deterministic():
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def test_a_cpu_needs_nothing_to_be_repeatable(workspace):
    before = deterministic()
    with repeatable(CPU):
        assert deterministic() == before
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_a_gpu_is_repeatable_within_and_as_before_after_an_error(workspace):
    before = deterministic()
    with pytest.raises(KeyError), repeatable(CUDA):
        assert deterministic() == (True, True) and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        raise KeyError
    assert deterministic() == before


@on_gpu
@pytest.mark.parametrize("name", DTYPES)
def test_a_gpu_gives_the_same_gradients_to_the_bit(model, batch, device, name):
    batch = {key: value.to(device) for key, value in batch.items()}
    model, precision, gradients = model.to(device), Precision(device, DTYPES[name], True), []
    with repeatable(device):
        for _ in range(3):
            torch.manual_seed(3)
            with precision.autocast():
                loss = word_loss(model, batch)
            gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for again in gradients[1:]:
        assert_close(again, gradients[0], rtol=0, atol=0)
