"""Devices, number formats, stopwatches, determinism."""

import contextlib
import copy
import multiprocessing
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from mmscratch.engine.devices import (
    Precision,
    Stopwatch,
    cpu_flags,
    deterministic,
    peak_memory,
    pick_device,
    pick_precision,
)
from mmscratch.model import ModelConfig, build_model
from mmscratch.reliability import GradScaler
from mmscratch.text import PAD

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
V, S = 23, 37  # vocabulary, and the side of a picture
gpu = pytest.mark.gpu
on_gpu = pytest.mark.parametrize("device", [pytest.param(CUDA, marks=gpu)], ids=str)
everywhere = pytest.mark.parametrize("device", [CPU, pytest.param(CUDA, marks=gpu)], ids=str)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def model():
    image = {"name": "resnet", "image_size": S, "depth": (1,), "width": 5}
    decoder = {"name": "lstm", "hidden_size": 13, "dropout": 0.2}
    return build_model(ModelConfig(V, {"image": image}, decoder, embed_dim=22))


@pytest.fixture
def batch():
    """Eleven pictures with sentences of 7, 5, 3, 2, 1, 7, 5, 3, 2, 1 and 7 words."""
    lengths = torch.tensor([7, 5, 3, 2, 1] * 2 + [7])
    target = torch.randint(4, V, (11, 7)).masked_fill(torch.arange(7) >= lengths.unsqueeze(1), PAD)
    return {"image": torch.randint(256, (11, 3, S, S), dtype=torch.uint8), "target": target}


@pytest.fixture
def tf32():
    """TF32 is on; the settings are restored."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    yield lambda: (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def two_gpus(monkeypatch):
    """Two simulated GPUs; the arguments of set_device."""
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
    with pytest.raises(ValueError, match="this machine has 2 GPUs.*--nproc_per_node"):
        pick_device()
    assert two_gpus == []


@pytest.mark.parametrize(("mps", "picked"), [(True, "mps"), (False, "cpu")])
def test_without_cuda_the_device_is_mps_or_cpu(monkeypatch, mps, picked):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setenv("LOCAL_RANK", "1")  # a CPU takes any number of processes
    assert pick_device() == torch.device(picked)


@pytest.mark.parametrize("name", DTYPES)
def test_autocast_computes_in_the_dtype_and_keeps_the_weights(name):
    linear = nn.Linear(5, 3)
    with Precision(CPU, DTYPES[name], False).autocast():
        assert linear(torch.randn(7, 5)).dtype == DTYPES[name]
    assert linear.weight.dtype == torch.float32
    assert (
        torch.randn(7, 5).matmul(torch.randn(5, 3)).dtype == torch.float32
    )  # the context has ended


def test_float32_does_not_use_autocast():
    assert isinstance(Precision(CPU, torch.float32, True).autocast(), contextlib.nullcontext)


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_layout_sets_the_memory_format_of_convolutions(channels_last):
    precision = Precision(CPU, torch.float32, channels_last)
    weight = nn.Conv2d(3, 7, 5).to(memory_format=precision.layout).weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_tf32_is_turned_off_on_a_gpu_only(tf32, dtype):
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
    losses, gradients = [], []
    for precision in (
        Precision(device, torch.float32, False),
        Precision(device, DTYPES[name], channels_last),
    ):
        trial, scaler = (
            copy.deepcopy(model).to(memory_format=precision.layout),
            GradScaler(precision.dtype),
        )
        with precision.autocast():
            loss, words = trial.loss(batch)
        (loss * scaler.scale / words).backward()
        scaler.unscale(trial.parameters())
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in trial.parameters()]))
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert 0 < (gradients[1] - gradients[0]).norm() < 0.05 * gradients[0].norm()


@pytest.mark.parametrize("asked", DTYPES)
def test_a_requested_precision_is_used(asked):
    precision, why = pick_precision(CPU, asked)
    assert precision.dtype == DTYPES[asked] and precision.device == CPU and precision.channels_last
    assert "asked" in why


def test_an_unknown_precision_is_refused():
    with pytest.raises(
        ValueError, match='"auto", "float32", "bfloat16" or "float16", not \'float8\''
    ):
        pick_precision(CPU, "float8")


@pytest.fixture
def cpuinfo(monkeypatch):
    """Simulates /proc/cpuinfo with these flags, for each of two cores; None means that the file is missing."""

    def write(flags):
        def read_text(path, **_):
            assert path == Path("/proc/cpuinfo")
            if flags is None:
                raise FileNotFoundError(path)
            core = f"processor\t: 0\nmodel name\t: some flags: avx512_bf16\nflags\t\t: {flags}\nbugs\t\t: amx_bf16\n\n"
            return 2 * core

        monkeypatch.setattr(Path, "read_text", read_text)

    return write


@pytest.mark.parametrize(
    ("flags", "expected", "reason"),
    [
        ("fpu sse2 avx512f avx512_bf16 amx_bf16 amx_tile", "bfloat16", "amx_bf16"),
        ("fpu amx_bf16", "bfloat16", "amx_bf16"),
        ("fpu sse2 avx512_bf16 avx512f", "bfloat16", "avx512_bf16"),
        ("fpu sse2 avx2 avx512f", "float32", "no instructions for bfloat16"),
        ("fpu not_amx_bf16 avx512_bf16x", "float32", "no instructions for bfloat16"),
        ("", "float32", "no instructions for bfloat16"),
        (None, "float32", "no instructions for bfloat16"),  # not Linux
    ],
)
def test_a_cpu_uses_bfloat16_if_its_flags_support_it(cpuinfo, flags, expected, reason):
    cpuinfo(flags)
    assert cpu_flags() == set((flags or "").split())
    precision, why = pick_precision(CPU)
    assert precision.dtype == DTYPES[expected] and precision.channels_last and reason in why


def test_a_processor_without_flags_uses_float32(monkeypatch):
    """As on ARM, where the kernel has another name for them."""
    monkeypatch.setattr(
        Path, "read_text", lambda path, **_: "processor\t: 0\nFeatures\t: fp asimd bf16\n"
    )
    assert cpu_flags() == set() and pick_precision(CPU)[0].dtype == torch.float32


@pytest.mark.parametrize("device", [CPU, CUDA, torch.device("mps")], ids=str)
def test_precision_depends_on_no_measurement(monkeypatch, tf32, device):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr("mmscratch.engine.devices.time", None)  # has no clock

    class Refuse(TorchDispatchMode):
        def __torch_dispatch__(self, function, *_):
            raise AssertionError(f"{function} was computed")

    get_rng_state = torch.get_rng_state()
    with Refuse():
        first, again = pick_precision(device), pick_precision(device)
    assert str(first[0]) == str(again[0]) and first[1] == again[1]
    assert torch.equal(torch.get_rng_state(), get_rng_state)


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
def test_precision_on_a_gpu_depends_on_its_compute_capability(
    monkeypatch, tf32, capability, asked, expected
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    precision, _ = pick_precision(CUDA, asked)
    assert precision.dtype == DTYPES[expected] and precision.channels_last
    assert tf32() == (False, False) and ("TF32 off" in str(precision)) == (expected == "float32")


@pytest.mark.parametrize(
    ("asked", "expected"), [("auto", "float32"), ("float32", "float32"), ("float16", "float16")]
)
def test_mps_uses_float32_unless_asked(asked, expected):
    precision, _ = pick_precision(torch.device("mps"), asked)
    assert precision.dtype == DTYPES[expected] and not precision.channels_last


def test_a_stopwatch_adds_up_and_restarts_when_read(monkeypatch):
    times = iter([2.0, 5.0, 11.0, 18.0, 31.0, 44.0])
    monkeypatch.setattr(
        "mmscratch.engine.devices.time", SimpleNamespace(perf_counter=lambda: next(times))
    )
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
def test_a_stopwatch_on_a_gpu_measures_waiting_for_the_cpu(device):
    watch = Stopwatch(device)
    torch.cuda.synchronize()
    with watch:
        time.sleep(0.2)
    torch.cuda.synchronize()
    assert watch.seconds() == pytest.approx(0.2, abs=0.1)
    assert watch.seconds() == 0


@on_gpu
def test_a_stopwatch_on_a_gpu_does_not_synchronize(device):
    watch = Stopwatch(device)
    with watch:
        torch.cuda._sleep(2 * 10**9)  # clock ticks: about a second
    # the GPU has not reached the second event
    assert watch.seconds() == 0 and not torch.cuda.current_stream().query()
    torch.cuda.synchronize()
    assert watch.seconds() > 0.1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not say")
def test_peak_memory_is_in_bytes_and_stays_after_memory_is_freed():
    def measure():
        before = peak_memory(CPU)
        torch.ones(300_000_000, dtype=torch.uint8)
        found.put((before, peak_memory(CPU)))

    # its peak starts at the parent's current memory, not at the parent's peak
    fork = multiprocessing.get_context("fork")
    found = fork.SimpleQueue()
    process = fork.Process(target=measure)
    process.start()
    before, after = found.get()
    process.join()
    assert 20e6 < before < 2e9  # of Python and torch
    assert after - before == pytest.approx(300e6, rel=0.2)


@on_gpu
def test_peak_memory_on_a_gpu_counts_tensors(device):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = peak_memory(device)
    torch.ones(300_000_000, dtype=torch.uint8, device=device)
    assert peak_memory(device) - before == pytest.approx(300e6, rel=0.02)


@pytest.fixture
def workspace(monkeypatch):
    """The setting of cuBLAS is unset."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is restored
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")


def settings():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def test_deterministic_changes_nothing_on_a_cpu(workspace):
    before = settings()
    with deterministic(CPU):
        assert settings() == before
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_deterministic_restores_the_settings_after_an_error(workspace):
    before = settings()
    with pytest.raises(KeyError), deterministic(CUDA):
        assert settings() == (True, True) and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        raise KeyError
    assert settings() == before


@on_gpu
@pytest.mark.parametrize("name", DTYPES)
def test_gradients_on_a_gpu_are_bit_identical(model, batch, device, name):
    batch = {key: value.to(device) for key, value in batch.items()}
    model, precision, gradients = model.to(device), Precision(device, DTYPES[name], True), []
    with deterministic(device):
        for _ in range(3):
            torch.manual_seed(3)
            with precision.autocast():
                loss, _ = model.loss(batch)
            gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for again in gradients[1:]:
        assert_close(again, gradients[0], rtol=0, atol=0)
