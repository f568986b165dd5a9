"""The scores, plots and files of the task prediction."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..classification import (
    ClassLoss,
    average_precision,
    balanced_accuracy,
    brier_score,
    class_weights,
    expected_calibration_error,
    fit_temperature,
    group_bootstrap,
    macro_auc,
    mean_absolute_percentage_error,
    number_of_brackets,
    r_squared,
    reliability_bins,
    roc_auc,
)
from ..data.dataset import DataSet, LazyColumn, Subset
from ..data.listings import Listings
from ..data.scenes import render
from ..data.tables import Target
from ..decoding import candidate_log_probs
from ..metrics import label_scores
from ..plots import reliability_diagram
from ..training import Trainer
from .scores import write_rows

GAMMA = 2.0  # of the focal loss
VIEWS = {"without pictures": "image", "without rows": "row"}
TEMPERATURE = "temperature.json"


def balance(trainer: Trainer, how: str) -> None:
    """Let a trainer weigh classes ("weights"), or examples by how wrong they are ("focal")."""
    if how == "none":
        return
    data = trainer.train.data
    vocabulary = trainer.train.vocabularies["target"]
    weights = torch.ones(len(vocabulary))  # of <eos> as well
    if how == "weights":
        classes = vocabulary.encode(data.target.classes)
        weights[classes] = class_weights(label_numbers(data), len(classes))
    trainer.model.objective = ClassLoss(weights, GAMMA if how == "focal" else 0.0)


def class_log_probs(model, vocabularies: dict, data: Sequence[dict], target: Target) -> Tensor:
    """The logarithm of the probability of each class of each example, (M, K): their sum is 1."""
    candidates = [[label] for label in target.classes]
    return candidate_log_probs(model, vocabularies, data, candidates).log_softmax(-1)


def measure(run: Path, model: tuple, data: DataSet, split: str) -> None:
    """Print how good a run is; with both modalities, also without each. Save its predictions.

    Before, `keep_temperature` has fitted the temperature of a run that predicts classes.
    """
    log_probs = class_log_probs(*model, data, data.target)
    if data.target.is_number:
        score = print_numbers
        scores = {"predicted": number_of_brackets(log_probs.exp(), data.target.medians).tolist()}
        score(log_probs, data)
    else:
        score = print_classes
        score(log_probs, data)
        temperature = read_temperature(run)
        print_calibration(run, log_probs, temperature, data, split)
        confidence, best = (log_probs / temperature).softmax(1).max(1)
        scores = {"predicted": [data.target.classes[i] for i in best.tolist()]}
        scores["probability"] = [round(x, 4) for x in confidence.tolist()]
    if data.count("image") and data.count("row"):
        for name, modality in VIEWS.items():
            rest = without(data, modality)
            print(f"{name}: {len(rest):,} rows")
            score(class_log_probs(*model, rest, data.target), rest, brief=True)
    true = data.values if data.target.is_number else data.labels
    path = run / f"predictions-{split}.jsonl"
    write_rows(path, row=data.names, true=true, **scores)


def without(data: DataSet, modality: str) -> DataSet:
    """The examples without a modality, as far as they then have anything left."""
    (other,) = data.columns.keys() - {modality}
    column = data.columns[other]
    keys = column.keys if isinstance(column, LazyColumn) else column
    chosen = [i for i, key in enumerate(keys) if key is not None]
    rest = Subset(data.without(modality), chosen)
    rest.target = data.target
    rest.labels = [data.labels[i] for i in chosen]
    rest.values = [data.values[i] for i in chosen]
    rest.groups = [data.groups[i] for i in chosen]
    return rest


def label_numbers(data: DataSet) -> Tensor:
    """The number of each row's class, (M,)."""
    return torch.tensor([data.target.classes.index(label) for label in data.labels])


def print_classes(log_probs: Tensor, data: DataSet, brief: bool = False) -> None:
    """Print how well classes are predicted, with intervals from drawing groups."""
    labels = label_numbers(data)
    predicted = log_probs.argmax(1)  # (M,)
    probabilities = log_probs.exp()
    right = (predicted == labels).double()

    def line(name: str, score: Callable[[Tensor], float], scale: float = 100) -> None:
        value, low, high = (scale * x for x in group_bootstrap(score, data.groups))
        unit, digits = (" %", 1) if scale == 100 else ("", 3)
        print(f"  {name:20} {value:.{digits}f}{unit}  ({low:.{digits}f} to {high:.{digits}f})")

    line("accuracy", lambda rows: right[rows].mean().item())
    line("balanced accuracy", lambda rows: balanced_accuracy(predicted[rows], labels[rows]))
    line("AUC, mean of classes", lambda rows: macro_auc(probabilities[rows], labels[rows]), 1)
    if brief:
        return
    most = labels.bincount().max().item() / len(labels)
    print(f"  commonest class      {100 * most:.1f} % of the rows")
    K = len(data.target.classes)
    scores = label_scores(F.one_hot(predicted, K).bool(), F.one_hot(labels, K).bool())
    width = max(map(len, data.target.classes))
    print(f"  {'':{width}}   rows  precision  recall    F1    AUC  average precision")
    for k, label in enumerate(data.target.classes):
        positive = labels == k
        if not positive.any() or positive.all():
            continue
        print(
            f"  {label:{width}} {int(positive.sum()):6,} {scores.precision[k]:10.2f}"
            f" {scores.recall[k]:7.2f} {scores.f1[k]:5.2f}"
            f" {roc_auc(probabilities[:, k], positive):6.3f}"
            f" {average_precision(probabilities[:, k], positive):18.3f}"
        )


def print_numbers(log_probs: Tensor, data: DataSet, brief: bool = False) -> None:
    """Print how well numbers are predicted, with intervals from drawing groups."""
    predicted = number_of_brackets(log_probs.exp(), data.target.medians)  # (M,)
    true = torch.tensor(data.values, dtype=torch.float64)
    names = ["explained variance"]
    scores = [lambda rows: r_squared(predicted[rows], true[rows])]
    if (true > 0).all() and (predicted > 0).all():
        logs = predicted.log(), true.log()
        names += ["of its logarithm", "percentage error"]
        scores.append(lambda rows: r_squared(logs[0][rows], logs[1][rows]))
        scores.append(lambda rows: mean_absolute_percentage_error(predicted[rows], true[rows]))
    for name, score in zip(names, scores):
        value, low, high = (100 * x for x in group_bootstrap(score, data.groups))
        print(f"  {name:20} {value:.1f} %  ({low:.1f} to {high:.1f})")


def print_calibration(
    run: Path, log_probs: Tensor, temperature: float, data: DataSet, split: str
) -> None:
    """Print the calibration before and after temperature scaling, and draw it."""
    labels = label_numbers(data)
    panels = {}
    for name, scaled in (("as trained", log_probs), ("scaled", log_probs / temperature)):
        probabilities = scaled.softmax(1)
        confidence, predicted = probabilities.max(1)
        right = predicted == labels
        error = expected_calibration_error(confidence, right)
        note = f", temperature {temperature:.2f}" if name == "scaled" else ""
        brier = brier_score(probabilities, labels)
        print(f"  calibration error    {error:.3f} {name}{note}; Brier score {brier:.3f}")
        panels[f"{name}: {error:.3f}"] = reliability_bins(confidence, right)
    reliability_diagram(panels).savefig(run / f"reliability-{split}.png")


def keep_temperature(run: Path, model: tuple, validation: DataSet) -> None:
    """Fit the temperature on the validation split, and keep it with the run."""
    log_probs = class_log_probs(*model, validation, validation.target)
    temperature = fit_temperature(log_probs, label_numbers(validation))
    (run / TEMPERATURE).write_text(json.dumps(temperature), encoding="utf-8")


def read_temperature(run: Path) -> float:
    """The temperature of a run; 1 before it is measured."""
    path = run / TEMPERATURE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else 1.0


def describe(probabilities: Tensor, target: Target) -> str:
    """The prediction from the probabilities (K,) of the classes, in words."""
    if not target.is_number:
        ranked = probabilities.argsort(descending=True).tolist()
        return ", ".join(f"{target.classes[k]} {100 * probabilities[k]:.0f} %" for k in ranked)
    (number,) = number_of_brackets(probabilities.unsqueeze(0), target.medians).tolist()
    total = probabilities.cumsum(0)
    low = target.medians[int((total < 0.1).sum())]
    high = target.medians[min(int((total < 0.9).sum()), len(target.medians) - 1)]
    return f"{target.column} {number:,.6g}; 80 % between {low:,.6g} and {high:,.6g}"


def write_example(data: DataSet, run: Path) -> str:
    """Write the form and the picture of the first listing to a run's folder; -> the CSV file."""
    if not isinstance(data, Listings):
        return "ROWS.csv"
    listing = data.listings[0]
    render(listing.scene, 256).save(run / "picture.png")
    cells = listing.form | {"file_name": "picture.png"}
    with (run / "row.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([cells.keys(), cells.values()])
    return str(run / "row.csv")
