"""Reports on training: the numbers in the file, the status line, and the profile of a few steps."""

import json
import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from mmscratch.engine.devices import Stopwatch
from mmscratch.engine.progress import Progress, profiled
from mmscratch.training import Step

CPU = torch.device("cpu")
KEYS = [
    "step",
    "loss",
    "learning_rate",
    "gradient_norm",
    "words_per_second",
    "examples_per_second",
    "data_time",
]
KEYS += ["peak_memory", "skipped"]


class Clock:
    """A clock that a test advances."""

    now = 1009.0

    def monotonic(self):
        return self.now

    perf_counter = monotonic


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    # something may have imported it, but this is not a notebook
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr("mmscratch.engine.progress.time", Clock())
    monkeypatch.setattr(
        "mmscratch.engine.devices.time", sys.modules["mmscratch.engine.progress"].time
    )
    return sys.modules["mmscratch.engine.progress"].time


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.fixture
def terminal(monkeypatch):
    stdout = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(
        "mmscratch.engine.progress.sys", SimpleNamespace(stdout=stdout, modules=sys.modules)
    )


@pytest.fixture
def displays(monkeypatch):
    """A simulated notebook: its displays, each a list of the texts that it has shown."""
    displays = []

    def display(data, *, raw, display_id):
        assert raw is True and display_id is True
        shown = [data["text/plain"]]
        displays.append(shown)
        return SimpleNamespace(update=lambda data, *, raw: shown.append(data["text/plain"]))

    module = ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return displays


def start(path, step=0, steps=10**6, data_time=None, unit="words"):
    return Progress(path, (step, steps), data_time or Stopwatch(CPU), CPU, unit)


def update(progress, step, rate=0.125, skipped=0, **stats):
    """A step as the training loop reports it."""
    stats = {"loss": 7.0, "count": 5, "examples": 3, "norm": 2.0, "stop": 0, "save": 0} | stats
    progress.update(step, Step(**stats), rate, skipped)


def lines_of(path):
    """Read as strict JSON, which has no NaN and no Infinity."""

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def on_screen(output):
    """The lines that a terminal shows: text after a \\r overwrites the line."""
    screen = []
    for line in output.split("\n"):
        shown = ""
        for piece in line.split("\r"):
            shown = piece + shown[len(piece) :]
        screen.append(shown.rstrip())
    return screen


def test_a_line_has_exactly_the_documented_keys(path, clock):
    progress = start(path)
    clock.now += 2
    update(progress, 1)
    progress.validated(1, 3.0)
    stats, validated = lines_of(path)
    assert list(stats) == KEYS and all(
        re.search(rf"\b{key}\b", Progress.__doc__) for key in KEYS[1:]
    )
    assert validated == {"step": 1, "validation_loss": 3.0}


def test_a_line_has_the_means_since_the_previous_line(path, clock, monkeypatch):
    monkeypatch.setattr(
        "mmscratch.engine.progress.peak_memory", lambda device: {CPU: 123_457}[device]
    )
    data_time = Stopwatch(CPU)
    progress = start(path, data_time=data_time)
    losses, words, examples, norms = (
        [31.0, 2.0, 5.0, 13.0, 3.0],
        [11, 7, 2, 5, 3],
        [5, 3, 2, 1, 7],
        [0.5, 0.25, 1.5, 3.0, 2.0],
    )
    # steps of 0.75 s, a third of it data time: a line after the second and after the fourth
    for step in range(5):
        with data_time:
            clock.now += 0.25
        clock.now += 0.5
        stats = {
            "loss": losses[step],
            "count": words[step],
            "examples": examples[step],
            "norm": norms[step],
        }
        update(progress, step + 1, 0.1 * step, step, **stats)
    lines = lines_of(path)
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        window = slice(line["step"] - 2, line["step"])
        assert line["loss"] == pytest.approx(sum(losses[window]) / sum(words[window]), abs=1e-4)
        assert line["gradient_norm"] == pytest.approx(sum(norms[window]) / 2, abs=1e-4)
        assert line["words_per_second"] == pytest.approx(sum(words[window]) / 1.5, abs=0.1)
        assert line["examples_per_second"] == pytest.approx(sum(examples[window]) / 1.5, abs=0.1)
        assert line["data_time"] == pytest.approx(1 / 3, abs=1e-4)
        last = line["step"] - 1
        assert (line["learning_rate"], line["peak_memory"], line["skipped"]) == (
            0.1 * last,
            123_457,
            last,
        )


def test_the_rate_is_named_after_the_unit_of_the_loss(path, clock, capsys):
    progress = start(path, steps=1, unit="pairs")
    clock.now += 2
    update(progress, 1, count=11, examples=7)
    (line,) = lines_of(path)
    assert (
        line["pairs_per_second"] == 5.5
        and line["examples_per_second"] == 3.5
        and "words_per_second" not in line
    )
    assert "4 examples/s" in capsys.readouterr().out


def test_the_last_step_is_reported_at_once(path, clock):
    progress = start(path, steps=3)
    for step in range(1, 4):
        clock.now += 0.001
        update(progress, step)
    (line,) = lines_of(path)
    assert line["step"] == 3 and line["loss"] == pytest.approx(7 / 5)


@pytest.mark.parametrize("norm", [float("inf"), float("nan")])
def test_a_skipped_step_is_not_in_the_means(path, clock, norm):
    progress = start(path)
    update(progress, 1)
    update(progress, 2, loss=float("nan"), count=11, norm=norm, skipped=1)
    clock.now += 1
    update(progress, 3, loss=23.0, norm=3.0, skipped=1)
    (line,) = lines_of(path)
    assert line["loss"] == pytest.approx((7 + 23) / (5 + 5)) and line["gradient_norm"] == 2.5
    assert line["skipped"] == 1


def test_no_loss_is_reported_if_all_steps_were_skipped(path, clock):
    progress = start(path, steps=3)
    for step in range(1, 4):
        clock.now += 2
        update(progress, step, loss=float("inf"), norm=float("nan"), skipped=step)
    assert [line.get("loss") for line in lines_of(path)] == [None] * len(lines_of(path))


def test_a_validation_loss_that_is_not_finite_is_valid_json(path):
    start(path).validated(1, float("nan"))
    assert lines_of(path)[0]["step"] == 1


def test_outputs_are_printed_in_a_line_each_and_kept(path, capsys):
    outputs = {"scene 0": "a red star", "scene 1": 99 * "very " + "long"}
    start(path).validated(1, 3.0, outputs)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.endswith("validation loss 3.000")
    assert lines[0] == "  scene 0: a red star" and len(lines) == 2 and len(lines[1]) == 100
    assert lines_of(path)[0]["outputs"] == list(outputs.values())
    start(path).validated(1, 3.0)
    assert "outputs" not in lines_of(path)[-1]


def test_the_time_of_validation_is_not_counted(path, clock):
    progress = start(path)
    for _ in range(2):
        clock.now += 2
        update(progress, 1)
        clock.now += 100
        progress.validated(1, 3.0)
    rates = [line["examples_per_second"] for line in lines_of(path) if "loss" in line]
    assert rates == [1.5, 1.5]


def test_steps_before_a_validation_are_reported_with_those_after_it(path, clock):
    progress = start(path)
    for step in range(1, 5):  # each takes less than a second
        clock.now += 0.5
        update(progress, step, loss=float(step))
        clock.now += 100
        progress.validated(step, 3.0)
    lines = [line for line in lines_of(path) if "loss" in line]
    assert [line["loss"] for line in lines] == pytest.approx([(1 + 2) / 10, (3 + 4) / 10])
    assert [line["examples_per_second"] for line in lines] == [6, 6]


def test_resuming_drops_lines_after_the_checkpoint_and_partial_lines(path, clock):
    kept = [json.dumps({"step": step, "loss": 0.5}) for step in (1, 3, 5)] + [
        '{"step": 5, "validation_loss": 2.0}'
    ]
    path.write_text(
        "\n".join(
            [*kept, '{"step": 6, "loss": 0.25}', '{"step": 13, "loss": 0.25}', '{"step": 5, "lo']
        )
    )
    progress = start(path, step=5)
    assert path.read_text().splitlines() == kept
    clock.now += 1
    update(progress, 6)
    assert path.read_text().splitlines()[:-1] == kept
    assert [line["step"] for line in lines_of(path)] == [1, 3, 5, 5, 6]


def test_a_new_run_starts_a_new_file(path):
    path.write_text('{"step": 0, "loss": 0.5}\n')
    start(path, step=0)
    assert path.read_text() == ""


@pytest.mark.parametrize("where", ["terminal", "displays", "capsys"])
def test_without_a_path_nothing_is_reported(tmp_path, clock, capsys, request, where):
    there = request.getfixturevalue(where)
    progress = start(None, steps=2)
    for step in (1, 2):
        clock.now += 20
        update(progress, step)
        progress.validated(step, 3.0)
    progress.close()
    assert capsys.readouterr() == ("", "") and list(tmp_path.iterdir()) == []
    assert where != "displays" or there == []


def test_without_a_terminal_a_line_is_printed_every_15_seconds_and_at_the_end(path, clock, capsys):
    progress, printed = start(path, steps=41), []
    for step in range(1, 42):
        clock.now += 1
        update(progress, step)
        printed += [step] * len(capsys.readouterr().out.splitlines())
    assert printed == [15, 30, 41]
    assert len(lines_of(path)) == 41


def test_on_a_terminal_one_line_is_overwritten(path, clock, capsys, terminal):
    progress = start(path)
    for step in range(1, 8):
        clock.now += 1
        update(progress, step, loss=5.0 * step)
        output = capsys.readouterr().out
        assert output.startswith("\r") and "\n" not in output
        assert re.search(rf"\b{step}\b", output) and f"{step}.000" in output


def test_on_a_terminal_a_shorter_line_overwrites_a_longer_one(path, clock, capsys, terminal):
    progress = start(path, steps=3)
    clock.now += 6000  # a slow start
    update(progress, 1, loss=60_000.0, examples=60_000_000)
    clock.now += 10
    update(progress, 2)
    before, after = capsys.readouterr().out.split("\r")[1:]
    assert on_screen(f"\r{before}\r{after}") == [after.rstrip()]


def test_a_line_fits_a_narrow_terminal(path, clock, capsys, terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "59")
    progress = start(path)
    clock.now += 1
    update(progress, 1)
    # text in the last column would wrap
    assert 20 < len(capsys.readouterr().out.lstrip("\r")) < 59


def test_on_a_terminal_other_output_gets_its_own_lines(path, clock, capsys, terminal):
    progress = start(path)
    progress.validated(0, 5.0)
    for step in (1, 2):
        clock.now += 1
        update(progress, step)
        progress.validated(step, 3.0)
        progress.validated(step, 3.0)
    clock.now += 1
    update(progress, 3)
    progress.close()
    print("stopped")
    first, *lines, last = on_screen(capsys.readouterr().out.rstrip("\n"))
    assert all(lines), "an empty line"
    assert "validation" in first and ["validation" in line for line in lines] == [
        False,
        True,
        True,
    ] * 2 + [False]
    assert last == "stopped"


def test_in_a_notebook_one_display_is_updated_until_something_is_printed(
    path, clock, capsys, displays
):
    progress = start(path)
    progress.validated(0, 5.0)
    for step in range(1, 6):
        clock.now += 1
        update(progress, step, loss=5.0 * step)
        if step == 3:
            progress.validated(step, 3.0)
    assert [len(display) for display in displays] == [3, 2]
    for step, line in enumerate([line for display in displays for line in display], start=1):
        assert f"{step}.000" in line
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 and all("validation" in line for line in printed)


@pytest.mark.parametrize("seconds", [1.0, 2.0, 0.997, 59.9])  # per step
@pytest.mark.parametrize("first", [0, 7])
def test_the_remaining_time(path, clock, capsys, terminal, first, seconds):
    progress = start(path, step=first, steps=131)
    for step in range(first + 1, 132):
        clock.now += 1
        clock.now += seconds - 1
        update(progress, step)
    shown = re.findall(r"(\d+):(\d\d) left", capsys.readouterr().out)
    assert len(shown) == len(lines_of(path))
    for line, (minutes, rest) in zip(lines_of(path), shown):
        assert int(rest) < 60
        assert 60 * int(minutes) + int(rest) == pytest.approx(
            seconds * (131 - line["step"]), abs=0.51
        )


OPERATIONS = [
    "sin",
    "cos",
    "tan",
    "exp",
    "log",
    "sqrt",
    "erf",
    "tanh",
    "sinh",
    "cosh",
    "asin",
    "acos",
    "atan",
]  # one per step


def steps(count, folder):
    for number in profiled(range(count), folder):
        getattr(torch, OPERATIONS[number])(torch.rand(101, 103))
        yield number


@pytest.mark.parametrize("count", [6, 13])
def test_the_profile_covers_the_fourth_to_sixth_step(tmp_path, capsys, count):
    assert list(steps(count, tmp_path / "run")) == list(range(count))
    with open(tmp_path / "run" / "trace.json") as file:
        events = json.load(file)["traceEvents"]
    names = {event.get("name") for event in events}
    assert [name for name in OPERATIONS if f"aten::{name}" in names] == ["exp", "log", "sqrt"]
    printed = capsys.readouterr().out
    assert "trace.json" in printed
    assert all(
        ("aten::" + name in printed) == (name in ("exp", "log", "sqrt")) for name in OPERATIONS
    )


def test_the_profile_lists_the_ten_costliest_operations(tmp_path, capsys):
    model = nn.Sequential(nn.Linear(503, 499), nn.ReLU(), nn.Linear(499, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in profiled(torch.randn(7, 101, 503), tmp_path):
        optimizer.zero_grad()
        model(batch).sum().backward()
        optimizer.step()
    rows = re.findall(
        r"^(\S.*?) +([\d.]+) +([\d.]+) % +(\d+)$", capsys.readouterr().out, re.MULTILINE
    )
    names = [name for name, *_ in rows]
    milliseconds, fractions, calls = (list(map(float, column)) for column in list(zip(*rows))[1:])
    assert len(rows) == 10 and "aten::addmm" in names
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    # including the operations that it calls
    traced = sum(event["dur"] for event in events if event.get("name") == "aten::addmm") / 1000
    assert traced / 2 < milliseconds[names.index("aten::addmm")] < traced + 0.1
    assert milliseconds == sorted(milliseconds, reverse=True) and milliseconds[0] > 0
    assert 50 < sum(fractions) <= 100.5 and fractions[0] / fractions[1] == pytest.approx(
        milliseconds[0] / milliseconds[1], rel=0.2
    )
    assert calls[names.index("aten::addmm")] == 3 * 2
    assert not any("ProfilerStep" in name or "Optimizer" in name for name in names), (
        "a mark, which is no operation"
    )


@pytest.mark.parametrize("count", range(6))
def test_fewer_than_six_steps_give_no_profile(tmp_path, capsys, count):
    assert list(steps(count, tmp_path)) == list(range(count))
    assert "aten::" not in capsys.readouterr().out and not (tmp_path / "trace.json").exists()


def test_leaving_a_profiled_loop_early_gives_no_profile(tmp_path, capsys):
    with pytest.raises(KeyError):
        for number in steps(8, tmp_path):
            if number == 4:
                raise KeyError
    assert "aten::" not in capsys.readouterr().out and not (tmp_path / "trace.json").exists()
