"""Ctrl-C and SIGTERM, and translated errors of torch."""

import contextlib
import os
import re
import signal
import threading
from types import SimpleNamespace

import pytest
import torch

from mmscratch.engine.signals import StopSignals, translate_errors

KINDS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def outside():
    """The handler of both signals: an unhandled one fails the test instead of ending all tests."""

    def fail(*_):
        raise AssertionError("nobody has taken the signal")

    before = [signal.signal(kind, fail) for kind in KINDS]
    yield fail
    for kind, handler in zip(KINDS, before):
        signal.signal(kind, handler)


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1009.0)
    monkeypatch.setattr(
        "mmscratch.engine.signals.time", SimpleNamespace(monotonic=lambda: clock.now)
    )
    return clock


def press(kind=signal.SIGINT):
    os.kill(os.getpid(), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_signal_only_sets_a_flag(kind):
    signals = StopSignals()
    assert not signals.requested
    with signals:
        assert not signals.requested
        press(kind)
        done = True  # nothing interrupts
        assert signals.requested is True
    assert done


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_a_second_signal_within_a_second_is_ignored(clock, first, second):
    signals = StopSignals()
    try:
        with signals:
            press(first)
            for _ in range(3):
                clock.now += 0.3
                press(second)
    except KeyboardInterrupt:
        pytest.fail("it stopped at once")
    assert signals.requested


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_a_second_signal_after_a_second_stops_at_once(clock, first, second):
    after = []
    with pytest.raises(KeyboardInterrupt, match="the same command resumes"), StopSignals():
        press(first)
        clock.now += 0.7
        press(second)  # this does not restart the second
        clock.now += 0.4
        press(second)
        after.append("not reached")
    assert after == []


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_the_handlers_are_restored(outside, error):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for raised in (None, error):
        with contextlib.suppress(error), StopSignals():
            assert not {outside, signal.SIG_IGN} & {signal.getsignal(kind) for kind in KINDS}
            press()
            if raised:
                raise raised
        assert [signal.getsignal(kind) for kind in KINDS] == [outside, signal.SIG_IGN]


def test_the_flag_is_reset_for_the_next_run(clock):
    signals = StopSignals()
    for _ in range(2):
        with signals:
            assert not signals.requested
            clock.now += 5
            press()
            assert signals.requested


def test_no_handlers_are_set_outside_the_main_thread(outside):
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
    """The message of an error, one line, without torch's own message."""
    assert caught.value.__suppress_context__ and caught.value.__cause__ is None
    (line,) = str(caught.value).splitlines()
    return line


def test_running_out_of_memory_is_explained():
    with (
        pytest.raises(MemoryError, match="step 17.*--accumulation-steps") as caught,
        translate_errors(where),
    ):
        torch.empty(10**15)
    assert "DefaultCPUAllocator" not in line(caught)


@pytest.mark.skipif(not hasattr(torch, "OutOfMemoryError"), reason="before torch 2.5")
def test_an_out_of_memory_error_of_a_gpu_is_explained():
    with pytest.raises(MemoryError, match="step 17"), translate_errors(where):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 23.00 GiB. GPU 0 has a total capacity of 7.00 GiB"
        )


@pytest.mark.parametrize("can_accumulate", [True, False])
def test_accumulation_is_recommended_only_where_it_is_possible(can_accumulate):
    with pytest.raises(MemoryError) as caught, translate_errors(where, can_accumulate):
        raise MemoryError
    assert ("--accumulation-steps" in line(caught)) is can_accumulate
    assert "--batch-size" in line(caught)


@pytest.mark.gpu
def test_running_out_of_memory_on_a_gpu_is_explained():
    with pytest.raises(MemoryError, match="step 17") as caught, translate_errors(where):
        torch.empty(10**13, device="cuda")
    assert "GiB" not in line(caught)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")],
)
def test_other_errors_are_not_translated(error):
    with pytest.raises(type(error)) as caught, translate_errors(never):
        raise error
    assert caught.value is error


def test_without_an_error_nothing_is_translated():
    done = []
    with translate_errors(never):
        done.append("reached")
    assert done


# Messages of torch after another process was killed or hangs: two of gloo, one of NCCL.
DEAD = [
    "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:13177",
    "[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 55000ms for recv operation to complete",
    "NCCL error in: ProcessGroupNCCL.cpp:1970, remote process exited or there was a network error, NCCL version 2.20.5",
]


@pytest.mark.parametrize("text", DEAD)
def test_a_lost_process_is_explained_only_in_a_distributed_run(monkeypatch, text):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with (
        pytest.raises(ConnectionError, match="another process.*step 17") as caught,
        translate_errors(where),
    ):
        raise RuntimeError(text)
    assert text not in line(caught)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    with pytest.raises(RuntimeError, match=re.escape(text)), translate_errors(never):
        raise RuntimeError(text)
