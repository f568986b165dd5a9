"""Prediction from the command line: a table with pictures, one of numbers, listings; and errors."""

import json
import re
import shutil

import pytest
import torch
from command_line import error_of, measured, run_command, train_tiny_captioner
from PIL import Image

from mmscratch.__main__ import main
from mmscratch.classification import ClassLoss, fit_temperature
from mmscratch.data.tables import TableData, TableOptions
from mmscratch.decoding import candidate_log_probs
from mmscratch.finetuning import load_run
from mmscratch.tasks import TASKS, predictions
from mmscratch.tasks.columns import known_columns

pytestmark = pytest.mark.xdist_group("prediction")  # the tests share trained runs

TRAIN = "train --task prediction --epochs 1 --batch-size 8 --precision float32 --image-size 32"
ON_CLINIC = f"{TRAIN} --data clinic --target dx --group patient"
OPTIONS = TableOptions("dx", "patient")


def make_clinic(folder):
    """Sixty patients, two visits each; every fifth row lacks its picture, every seventh its age."""
    folder.mkdir()
    lines = ["file_name,patient,age,sex,dx,how"]
    for i in range(120):
        patient = i // 2
        dx = ("well", "well", "ill", "sick")[patient % 4]
        name = "" if i % 5 == 0 else f"{i}.png"
        age = "" if i % 7 == 0 else 20 + patient
        lines.append(f"{name},p{patient},{age},{'fm'[patient % 3 % 2]},{dx},by {dx}")
        Image.new("RGB", (24, 20), (5 * patient % 256, 2 * i, 99)).save(folder / f"{i}.png")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")


def make_houses(folder):
    """Ninety houses without pictures, whose price is a number."""
    folder.mkdir()
    lines = ["rooms,area (sqft),price"]
    for i in range(90):
        lines.append(f"{1 + i % 4},{500 + 37 * i % 900},{100000 + 7919 * i % 250000}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with data, trained runs, and what their training printed."""
    folder = tmp_path_factory.mktemp("prediction")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("mmscratch.tasks.prediction.LISTINGS", 60)
        patch.setattr("mmscratch.tasks.prediction.TEST_LISTINGS", 30)
        make_clinic(folder / "clinic")
        make_houses(folder / "houses")
        printed = {}
        for name, command in {
            "clinic": f"{ON_CLINIC} --leave-out how",
            "houses": f"{TRAIN} --data houses --target price",
            "listings": f"{TRAIN} --data listings --to runs/listings",
        }.items():
            status, printed[name] = run_command(command)
            assert status == 0
    return folder, printed


@pytest.fixture
def printed(workplace, monkeypatch):
    folder, out = workplace
    monkeypatch.chdir(folder)
    return out


def test_classes_are_reported_with_intervals_and_by_class(printed):
    out = printed["clinic"]
    for name in ("accuracy", "balanced accuracy", "AUC, mean of classes"):
        assert re.search(rf"^  {name} +[\d.]+( %)?  \([\d.]+ to [\d.]+\)$", out, re.M), name
    assert re.search(r"^  commonest class +\d\d\.\d % of the rows$", out, re.M)
    for label in ("well", "ill", "sick"):
        assert re.search(rf"^  {label} +\d+ ", out, re.M)
    assert "calibration error" in out and "scaled, temperature" in out
    without = re.findall(r"^without (\w+): (\d+) rows$", out, re.M)
    data = TableData("clinic", "test", 32, OPTIONS)
    assert without == [("pictures", str(len(data))), ("rows", str(data.count("image")))]
    assert data.count("image") < len(data)


def test_predictions_are_saved_and_those_of_the_model(printed):
    rows = [json.loads(line) for line in open("runs/clinic/predictions-test.jsonl")]
    model, vocabularies, checkpoint = load_run("runs/clinic")
    _, target, _ = known_columns(checkpoint["metadata"])
    data = TableData("clinic", "test", 32, OPTIONS._replace(left_out=("how",)))
    candidates = [[label] for label in target.classes]
    log_probs = candidate_log_probs(model, vocabularies, data, candidates).log_softmax(1)
    temperature = json.loads(open("runs/clinic/temperature.json").read())
    confidence, best = (log_probs / temperature).softmax(1).max(1)
    lines = [name.rpartition(":")[2] for name in data.names]
    assert [row["row"].rpartition(":")[2] for row in rows] == lines
    assert [row["true"] for row in rows] == data.labels
    assert [row["predicted"] for row in rows] == [target.classes[i] for i in best.tolist()]
    assert [row["probability"] for row in rows] == pytest.approx(confidence.tolist(), abs=1e-4)
    assert Image.open("runs/clinic/reliability-test.png").size[0] > 500


def test_the_temperature_is_fitted_on_the_validation_split(printed):
    model, vocabularies, _ = load_run("runs/clinic")
    data = TableData("clinic", "validation", 32, OPTIONS._replace(left_out=("how",)))
    log_probs = predictions.class_log_probs(model, vocabularies, data, data.target)
    labels = torch.tensor([data.target.classes.index(label) for label in data.labels])
    expected = fit_temperature(log_probs, labels)
    assert json.loads(open("runs/clinic/temperature.json").read()) == pytest.approx(expected)


def test_the_run_knows_its_columns(printed):
    _, vocabularies, checkpoint = load_run("runs/clinic")
    schema, target, most_files = known_columns(checkpoint["metadata"])
    assert [column.name for column in schema.columns] == ["age", "sex"]
    assert target.classes == ("well", "ill", "sick") and most_files == 1
    assert vocabularies["target"].state() == ["well", "ill", "sick"]
    assert checkpoint["model_config"]["encoders"]["row"]["num_categories"] == [0, 3]


def test_evaluate_prints_the_same(printed, capsys):
    assert main(["evaluate", "runs/clinic"]) == 0
    again = measured(capsys.readouterr().out)
    assert again[again.index("  accuracy") :] in printed["clinic"]


def test_numbers_are_reported(printed):
    out = printed["houses"]
    for name in ("explained variance", "of its logarithm", "percentage error"):
        assert re.search(rf"^  {name} +-?[\d.]+ %  \(-?[\d.]+ to -?[\d.]+\)$", out, re.M), name
    assert "without" not in out
    rows = [json.loads(line) for line in open("runs/houses/predictions-test.jsonl")]
    data = TableData("houses", "test", 0, TableOptions("price"))
    assert [row["true"] for row in rows] == data.values
    assert all(min(data.target.medians) <= r["predicted"] <= max(data.target.medians) for r in rows)


def test_predict_gives_each_class_its_probability(printed, capsys, tmp_path):
    shutil.copy("clinic/7.png", tmp_path)
    (tmp_path / "rows.csv").write_text("sex,age,file_name\nf,44,7.png\nx,,\n")
    assert main(["predict", str(tmp_path / "rows.csv"), "--run", "runs/clinic"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith(f"{tmp_path}/rows.csv:2: ")
    for line in lines:
        shares = [int(n) for n in re.findall(r"(\d+) %", line)]
        assert sorted(re.findall(r"[a-z]+(?= \d+ %)", line)) == ["ill", "sick", "well"]
        assert shares == sorted(shares, reverse=True) and abs(sum(shares) - 100) <= 2
    command = ["predict", str(tmp_path / "rows.csv"), "--run", "runs/clinic"]
    assert main([*command, "--image", "clinic/7.png"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == lines[0]


def test_predict_gives_a_number_and_its_range(printed, capsys, tmp_path):
    (tmp_path / "row.csv").write_text("rooms,area (sqft)\n3,700\n")
    assert main(["predict", str(tmp_path / "row.csv"), "--run", "runs/houses"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    number, low, high = (
        float(text.replace(",", ""))
        for text in re.fullmatch(
            r".*row.csv:2: price ([\d,.]+); 80 % between ([\d,.]+) and ([\d,.]+)", line
        ).groups()
    )
    assert low <= number <= high


def test_the_advice_after_training_works(printed, capsys):
    command = printed["listings"].strip().splitlines()[-1].split()
    assert command[:4] == ["python", "-m", "mmscratch", "predict"]
    assert main(command[3:]) == 0
    assert "price (EUR)" in capsys.readouterr().out
    assert "explained variance" in printed["listings"] and "without rows" in printed["listings"]


@pytest.mark.parametrize("inputs, encoders", [("image", {"image"}), ("row", {"row"})])
def test_pictures_or_rows_only(printed, inputs, encoders, monkeypatch):
    monkeypatch.setattr("mmscratch.tasks.prediction.TEST_LISTINGS", 30)
    monkeypatch.setattr("mmscratch.tasks.prediction.LISTINGS", 60)
    run = f"runs/listings-{inputs}"
    status, out = run_command(f"{TRAIN} --data listings --inputs {inputs} --to {run}")
    assert status == 0 and "without" not in out
    _, _, checkpoint = load_run(run)
    assert checkpoint["model_config"]["encoders"].keys() == encoders


@pytest.mark.parametrize("how, gamma", [("weights", 0.0), ("focal", 2.0)])
def test_rare_classes_may_weigh_more(printed, how, gamma, monkeypatch):
    trainers = []
    prepare = TASKS["prediction"].prepare

    def record(trainer, metadata):
        prepare(trainer, metadata)
        trainers.append(trainer)

    monkeypatch.setattr(TASKS["prediction"], "prepare", record)
    command = f"{ON_CLINIC} --leave-out how --balance {how} --to runs/{how}"
    assert run_command(command)[0] == 0
    (trainer,) = trainers
    loss = trainer.model.objective
    assert isinstance(loss, ClassLoss) and loss.gamma == gamma
    weights = loss.weights[trainer.train.vocabularies["target"].encode(["well", "ill", "sick"])]
    counts = [trainer.train.data.labels.count(label) for label in ("well", "ill", "sick")]
    if how == "weights":
        expected = [sum(counts) / (3 * count) for count in counts]
        assert weights.tolist() == pytest.approx(expected)
    else:
        assert weights.tolist() == [1, 1, 1]
    assert loss.weights[:4].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "command, says",
    [
        (f"{TRAIN} --data clinic", "no column 'price (EUR)' among: file_name, patient, age"),
        (f"{TRAIN} --data clinic --target dx --group lesion", "no column 'lesion' among"),
        (f"{ON_CLINIC} --leave-out age,nothing", "no column 'nothing' among"),
        (f"{ON_CLINIC} --fold 6/5", "--fold is I/K, such as 1/5 (of 3 or more), not '6/5'"),
        (f"{ON_CLINIC} --fold one", "--fold is I/K"),
        (f"{TRAIN} --data nowhere --target dx", "nowhere/table.csv: not found"),
        ("predict nothing.csv --run runs/clinic", "nothing.csv: not found"),
        ("predict clinic/table.csv --run runs/nowhere", "runs/nowhere holds no trained model"),
        ("predict clinic/table.csv --run runs/clinic --image gone.png", "gone.png: no such file"),
        ("caption clinic/7.png --run runs/clinic", "is a run of the task prediction"),
    ],
)
def test_errors_are_one_line(printed, command, says, capsys):
    assert main(command.split()) == 2
    assert says in error_of(capsys)


def test_the_eyes_may_be_those_of_a_captioner(printed, monkeypatch):
    monkeypatch.setattr("mmscratch.tasks.prediction.TEST_LISTINGS", 30)
    monkeypatch.setattr("mmscratch.tasks.prediction.LISTINGS", 60)
    train_tiny_captioner("runs/captioner")  # its decoder is an LSTM: it stays there
    command = "train --task prediction --epochs 1 --batch-size 8 --precision float32"
    command += " --data listings --inputs image --from runs/captioner --to runs/eyes"
    status, out = run_command(command)
    assert status == 0 and "from runs/captioner: encoders.image\nall else is new" in out
