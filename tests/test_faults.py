"""What can go wrong while training: being asked to stop, no memory, others that ended, numbers that are not finite."""

import contextlib
import os
import re
import signal
import threading
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from mmscratch.faults import StopSignals, explained, first_not_finite
from mmscratch.model import ModelConfig, build_model
from mmscratch.text import PAD
from mmscratch.training import word_loss

KINDS = [signal.SIGINT, signal.SIGTERM]
V, S = 23, 37  # words, and pixels a side


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def outside():
    """The handler of both signals: one that nobody takes fails the test, and does not end them all."""

    def fail(*_):
        raise AssertionError("nobody has taken the signal")

    before = [signal.signal(kind, fail) for kind in KINDS]
    yield fail
    for kind, handler in zip(KINDS, before):
        signal.signal(kind, handler)


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1009.0)
    monkeypatch.setattr("mmscratch.faults.time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def press(kind=signal.SIGINT):
    os.kill(os.getpid(), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_signal_only_asks(kind):
    signals = StopSignals()
    assert not signals.asked
    with signals:
        assert not signals.asked
        press(kind)
        done = True  # nothing interrupts
        assert signals.asked is True
    assert done


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_a_second_signal_at_once_is_the_same_one(clock, first, second):
    signals = StopSignals()
    try:
        with signals:
            press(first)
            for _ in range(3):
                clock.now += 0.3
                press(second)
    except KeyboardInterrupt:
        pytest.fail("it stopped at once")
    assert signals.asked


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_a_second_signal_after_a_second_stops_at_once(clock, first, second):
    after = []
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"), StopSignals():
        press(first)
        clock.now += 0.7
        press(second)  # which does not begin a new second
        clock.now += 0.4
        press(second)
        after.append("not reached")
    assert after == []


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_the_handlers_are_put_back(outside, error):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for raised in (None, error):
        with contextlib.suppress(error), StopSignals():
            assert not {outside, signal.SIG_IGN} & {signal.getsignal(kind) for kind in KINDS}
            press()
            if raised:
                raise raised
        assert [signal.getsignal(kind) for kind in KINDS] == [outside, signal.SIG_IGN]


def test_the_next_run_is_not_asked_yet(clock):
    signals = StopSignals()
    for _ in range(2):
        with signals:
            assert not signals.asked
            clock.now += 5
            press()
            assert signals.asked


def test_outside_the_main_thread_it_sets_no_handlers(outside):
    seen = []

    def run():
        with StopSignals():
            seen.extend(signal.getsignal(kind) for kind in KINDS)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [outside, outside] == [signal.getsignal(kind) for kind in KINDS]


def where():
    return "step 17"


def never():
    raise AssertionError("nobody asked where it was")


def line(caught):
    """The one line of an error, whose cause, in torch's words, is not shown."""
    assert caught.value.__suppress_context__ and caught.value.__cause__ is None
    (line,) = str(caught.value).splitlines()
    return line


def test_a_real_lack_of_memory_is_explained():
    with pytest.raises(MemoryError, match="step 17.*--accumulate") as caught, explained(where):
        torch.empty(10**15)
    assert "DefaultCPUAllocator" not in line(caught)


@pytest.mark.skipif(not hasattr(torch, "OutOfMemoryError"), reason="before torch 2.5")
def test_a_lack_of_memory_on_a_gpu_is_explained():
    with pytest.raises(MemoryError, match="step 17"), explained(where):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 23.00 GiB. GPU 0 has a total capacity of 7.00 GiB")


@pytest.mark.gpu
def test_a_real_lack_of_memory_on_a_gpu_is_explained():
    with pytest.raises(MemoryError, match="step 17") as caught, explained(where):
        torch.empty(10**13, device="cuda")
    assert "GiB" not in line(caught)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")])
def test_other_errors_are_left_alone(error):
    with pytest.raises(type(error)) as caught, explained(never):
        raise error
    assert caught.value is error


def test_without_an_error_nothing_is_explained():
    done = []
    with explained(never):
        done.append("reached")
    assert done


# What torch says where another process was killed, or waits for something else; by gloo twice, and by NCCL.
DEAD = [
    "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:13177",
    "[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 55000ms for recv operation to complete",
    "NCCL error in: ProcessGroupNCCL.cpp:1970, remote process exited or there was a network error, NCCL version 2.20.5",
]


@pytest.mark.parametrize("text", DEAD)
def test_a_process_whose_others_ended_says_so_and_one_alone_does_not(monkeypatch, text):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(ConnectionError, match="another process.*step 17") as caught, explained(where):
        raise RuntimeError(text)
    assert text not in line(caught)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    with pytest.raises(RuntimeError, match=re.escape(text)), explained(never):
        raise RuntimeError(text)


LSTM = {"decoder": "lstm", "fusion": "cross_attention"}
TRANSFORMER = {"decoder": "transformer", "fusion": "cross_attention"}
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
CASES = [pytest.param(layer, decoder, id=f"{layer} {decoder['decoder']}") for layer in LAYERS for decoder in LAYERS[layer]]
CASES = pytest.mark.parametrize(("layer", "decoder"), CASES)


def small(decoder):
    size = {"depth": (1, 1), "width": 5, "image_size": S, "embed_dim": 22, "hidden_size": 13, "num_heads": 2, "num_layers": 2}
    return build_model(ModelConfig(V, **size, **decoder))


@pytest.fixture
def batch():
    """Five pictures with sentences of 7, 5, 3, 2 and 1 words."""
    target = torch.randint(4, V, (5, 7)).masked_fill(torch.arange(7) >= torch.tensor([[7], [5], [3], [2], [1]]), PAD)
    return {"image": torch.randint(256, (5, 3, S, S), dtype=torch.uint8), "target": target}


def hooks(model):
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


def poison(value, bad=float("nan")):
    """One number of a tensor, or of the first tensor in a tuple, becomes bad."""
    if isinstance(value, Tensor):
        value = value.clone()
        value[(-1,) * value.dim()] = bad
        return value
    return (poison(value[0], bad), *value[1:])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@CASES
def test_the_first_layer_whose_output_is_not_finite_is_named(batch, layer, decoder, bad):
    model = small(decoder)
    module = model.get_submodule(layer)
    module.register_forward_hook(lambda _module, _inputs, output: poison(output, bad))
    before = hooks(model)
    assert first_not_finite(model, batch) == f"the output of {layer}"
    assert hooks(model) == before


@CASES
def test_a_weight_that_is_not_finite_is_named_before_what_follows_from_it(batch, layer, decoder):
    model = small(decoder)
    name, weight = next((name, weight) for name, weight in model.named_parameters() if name.startswith(layer))
    with torch.no_grad():
        weight.view(-1)[-1] = float("nan")
    word_loss(model, batch).backward()
    assert first_not_finite(model, batch) == f"the weight {name}"


def test_a_weight_that_overflows_is_found_in_the_output(batch):
    model = small(TRANSFORMER)
    with torch.no_grad():
        model.decoder.blocks[0].linear1.weight.fill_(3e38)  # of which there is still one that is finite
    word_loss(model, batch).backward()
    assert first_not_finite(model, batch) == "the output of decoder.blocks.0.linear1"


@pytest.mark.parametrize("decoder", [LSTM, TRANSFORMER], ids=["lstm", "transformer"])
def test_a_gradient_is_named_only_where_all_outputs_are_finite(batch, decoder):
    model = small(decoder)
    names = dict(model.named_parameters())
    word_loss(model, batch).backward()
    assert first_not_finite(model, batch) == "the loss"  # of which nobody has been given another
    name = "decoder.query.weight" if decoder is LSTM else "decoder.blocks.1.norm2.weight"
    names[name].grad[3] = float("inf")
    assert first_not_finite(model, batch) == f"the gradient of {name}"
    layer = model.encoders["image"].norm
    handle = layer.register_forward_hook(lambda _module, _inputs, output: poison(output))
    assert first_not_finite(model, batch) == "the output of encoders.image.norm"
    handle.remove()
    assert first_not_finite(model, batch) == f"the gradient of {name}"


def test_of_several_gradients_the_one_nearest_to_the_loss_is_named(batch):
    model = small(TRANSFORMER)

    def overflow(_module, _inputs, output):
        output.register_hook(lambda gradient: gradient * float("inf"))

    handle = model.decoder.blocks[1].linear1.register_forward_hook(overflow)
    word_loss(model, batch).backward()
    handle.remove()
    assert not model.encoders["image"].backbone.conv1.weight.grad.isfinite().all()  # it has come that far
    assert first_not_finite(model, batch).startswith("the gradient of decoder.blocks.1.")


def test_frozen_weights_have_no_gradient_and_are_no_trouble(batch):
    model = small(LSTM)
    model.encoders.requires_grad_(False)
    word_loss(model, batch).backward()
    model.decoder.query.weight.grad[0, 0] = float("nan")
    assert first_not_finite(model, batch) == "the gradient of decoder.query.weight"


class Pair(NamedTuple):
    values: Tensor
    mask: Tensor


class Returns(nn.Module):
    """A model whose part returns what it is told to."""

    def __init__(self, output):
        super().__init__()
        self.part, self.output = nn.Identity(), output

    def forward(self, batch):
        self.part(self.output)
        return torch.zeros(3)


GOOD, BAD, MASK = torch.ones(5), torch.tensor([1.0, float("inf"), 2.0]), torch.tensor([True, False])


@pytest.mark.parametrize("output", [BAD, (GOOD, BAD), Pair(BAD, MASK), (GOOD, (GOOD, BAD))], ids=str)
def test_in_whatever_an_output_is_wrapped_it_is_found(output):
    model = Returns(output)
    assert first_not_finite(model, {}) == "the output of part"
    assert hooks(model) == []


@pytest.mark.parametrize("output", [GOOD, (GOOD, None), Pair(GOOD, MASK), torch.tensor([3, 5]), None, ()], ids=str)
def test_what_is_finite_is_not_named(output):
    assert first_not_finite(Returns(output), {}) == "the loss"


def test_the_cell_of_an_lstm_is_looked_at_too():
    """Its hidden state is finite, for tanh(inf) = 1."""
    model = nn.Sequential(nn.LSTM(3, 5, batch_first=True))
    with torch.no_grad():
        for name, weight in model[0].named_parameters():
            weight.fill_(100.0 if name.startswith("bias") else 0.0)  # i = f = g = o = 1
    state = torch.zeros(1, 2, 5), torch.full((1, 2, 5), float("inf"))
    model[0].register_forward_pre_hook(lambda _module, inputs: (inputs[0], state))
    output, (_, cell) = model(torch.zeros(2, 7, 3))
    assert output.isfinite().all() and cell.isinf().all()
    assert first_not_finite(model, torch.zeros(2, 7, 3)) == "the output of 0"


def test_the_model_itself_has_a_name_too():
    model = nn.Identity()
    assert first_not_finite(model, BAD) == "the output of the model"


def test_no_hooks_are_left_where_the_model_fails(batch):
    model = small(LSTM)
    with pytest.raises(ValueError, match="none of: image"):
        first_not_finite(model, {"target": batch["target"]})
    assert hooks(model) == []
