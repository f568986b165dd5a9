"""How well are columns of tables predicted, and who wins: picture, form, or both? For chapter 16.

    python -m chapters.measured.tables          adds what chapters/measured/tables.jsonl lacks
    python -m chapters.measured.tables NAME …   measures only these
    torchrun --nproc_per_node=2 -m chapters.measured.tables …   trains on two cores

Listings need runs/quickstart (python -m mmscratch quickstart), whose eyes they start with. HAM10000
needs data/ham10000 (python -m data_scripts.ham10000 --from FOLDER) and
data/mobilenet_v2.pth (chapters/measured/mobilenet.py), Houses data/houses (data_scripts/houses.py).
The boosted trees are those of scikit-learn, which is in tests/requirements.txt.
"""

import statistics
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from chapters.measured import by_name, measure_missing, percent, train
from chapters.measured.mobilenet import WEIGHTS
from mmscratch.classification import (
    balanced_accuracy,
    expected_calibration_error,
    fit_temperature,
    group_bootstrap,
    macro_auc,
    mean_absolute_percentage_error,
    number_of_brackets,
    r_squared,
)
from mmscratch.data.dataset import DataSet
from mmscratch.data.listings import PRICE, expected_log_price
from mmscratch.data.tables import Target
from mmscratch.decoding import memory_attention
from mmscratch.engine import distributed
from mmscratch.finetuning import load_run
from mmscratch.tabular import TableEncoder
from mmscratch.tasks.prediction import Prediction
from mmscratch.tasks.predictions import class_log_probs, label_numbers
from mmscratch.tasks.task import load
from mmscratch.training import warmup_and_cosine

RESULTS = Path(__file__).with_suffix(".jsonl")
RUNS = Path("runs/tables-measured")
BASE = Path("runs/quickstart")
TASK = Prediction()
INPUTS = {"both": "both", "picture": "image", "form": "row"}
UNUSED = {"group": None, "split-by": "group", "leave-out": "", "balance": "none", "fold": None}
LISTING = UNUSED | {"task": TASK.name, "layout": "listings", "data": "listings", "target": PRICE}
SKIN = UNUSED | {
    "task": TASK.name,
    "layout": "table",
    "data": "data/ham10000",
    "target": "diagnosis",
    "group": "lesion_id",
    "leave-out": "dx_type",
}
HOUSES = UNUSED | {
    "task": TASK.name,
    "layout": "table",
    "data": "data/houses",
    "target": "price (USD)",
}
FOLDS = 5
SKIN_SIZE = 160
HOUSE_SIZE = 192  # of four photographs together
MOBILENET = {"name": "mobilenet"}


def folder_of(name: str) -> Path:
    return RUNS / name.replace(" ", "-").replace(",", "")


def from_published(**options) -> dict:
    """The options of `TrainConfig` that start from MobileNetV2's published weights."""
    return {"start_from": "mobilenet_v2", "weights": str(WEIGHTS)} | options


def fit(name: str, metadata: dict, size: int, **options) -> dict:
    """Train a run, and return its row."""
    chosen = {"image_size": size, "backbone": MOBILENET}
    if metadata["layout"] == "listings":
        chosen = {"image": load(BASE)[2]["model_config"]["encoders"]["image"]}
    settings = TASK.model(metadata, chosen, None)
    if "image" not in settings["encoders"]:
        for option in ("start_from", "weights", "freeze"):
            options.pop(option, None)
    return train(TASK, metadata, settings, folder_of(name), **options)


def predict(name: str, metadata: dict, split: str, size: int) -> tuple[Tensor, DataSet]:
    """(the logarithms of the probabilities of the classes, the examples)."""
    model, vocabularies, _ = load_run(folder_of(name))
    data = TASK.read(metadata, split, size)
    return class_log_probs(model, vocabularies, data, data.target), data


def listings(name: str) -> dict:
    """The share of what can be explained of the logarithm of the price, %."""
    inputs = INPUTS[name.partition(", ")[2]]
    metadata = LISTING | {"inputs": inputs}
    epochs = 5 if inputs == "image" else 1  # with the form, one is enough
    row = fit(name, metadata, 64, start_from=str(BASE), epochs=epochs)
    if distributed.rank() > 0:
        return row
    log_probs, data = predict(name, metadata, "test", 64)
    predicted = number_of_brackets(log_probs.exp(), data.target.medians).log()
    true = torch.tensor([listing.log_price for listing in data.listings], dtype=torch.float64)
    best = torch.tensor([expected_log_price(each, inputs) for each in data.listings])
    row["explained"] = round(100 * r_squared(predicted, true), 1)
    row["possible"] = round(100 * r_squared(best, true), 1)
    return row


def skin(name: str) -> dict:
    """HAM10000: AUC, balanced accuracy and calibration, with intervals from drawing lesions."""
    _, how, *changes = name.split(", ")
    metadata = SKIN | {"inputs": INPUTS[how]}
    if "split by picture" in changes:
        metadata["split-by"] = "row"
    if "with dx_type" in changes:
        metadata["leave-out"] = ""
    for balance in ("weights", "focal"):
        if balance in changes:
            metadata["balance"] = balance
    options = from_published(epochs=15, freeze=("encoders.image.backbone",))
    if "fine-tuned" in changes:
        options = from_published(epochs=12, learning_rate=5e-4)
    row = fit(name, metadata, SKIN_SIZE, **options)
    return row | skin_scores(name, metadata) if distributed.rank() == 0 else row


def skin_scores(name: str, metadata: dict) -> dict:
    """The scores of a run on the test split, before and after temperature scaling."""
    log_probs, validation = predict(name, metadata, "validation", SKIN_SIZE)
    temperature = fit_temperature(log_probs, label_numbers(validation))
    log_probs, data = predict(name, metadata, "test", SKIN_SIZE)
    labels = label_numbers(data)
    probabilities = log_probs.softmax(1)
    predicted = probabilities.argmax(1)
    right = (predicted == labels).double()

    def interval(score, digits: int = 3) -> list[float]:
        return [round(x, digits) for x in group_bootstrap(score, data.groups)]

    calibration = {}
    for when, scaled in (("before", log_probs), ("after", log_probs / temperature)):
        confidence, best = scaled.softmax(1).max(1)
        error = expected_calibration_error(confidence, best == labels)
        calibration[when] = round(error, 3)
    return {
        "rows": len(data),
        "accuracy": interval(lambda rows: right[rows].mean().item()),
        "balanced accuracy": interval(
            lambda rows: balanced_accuracy(predicted[rows], labels[rows])
        ),
        "AUC": interval(lambda rows: macro_auc(probabilities[rows], labels[rows])),
        "calibration error": calibration,
        "temperature": round(temperature, 2),
    }


LOOKED_AT = 300  # lesions, with one picture each
CELLS = SKIN_SIZE // 32  # MobileNetV2's vectors a side: one for 32 × 32 pixels


def look(name: str) -> dict:
    """Where the model of "HAM10000, both" looks on lesions, and what happens without that place, %."""
    model = load_run(folder_of("HAM10000, both"))[:2]
    data = TASK.read(SKIN | {"inputs": "both"}, "test", SKIN_SIZE)
    first_of_lesion = dict(zip(reversed(data.groups), reversed(range(len(data)))))
    chosen = sorted(first_of_lesion.values())[:LOOKED_AT]
    looks = [look_at(model, data[i], data.target) for i in chosen]
    row = {kind: percent([each[kind] for each in looks]) for kind in looks[0]}
    return {"lesions": len(looks)} | row


def look_at(model: tuple, example: dict, target: Target) -> dict[str, float]:
    """The look is the attention to each cell of the picture. On the lesion: its share of the look,
    and of the area. Without a cell, painted in the colour of the skin: how much the probability of
    the predicted diagnosis changes, if it is the cell that was looked at most, any cell (the mean of
    all), or the cell that holds most of the lesion. And the correlation of the look with that change,
    over the cells; 0 if nothing changes.
    """
    lesion, skin_colour = segment(example["image"])  # (CELLS²,), (3, 1, 1)
    views = [example]
    for cell in range(CELLS**2):
        views.append(example | {"image": without_cell(example["image"], cell, skin_colour)})
    probabilities = class_log_probs(*model, views, target).exp().float()
    predicted = probabilities[0].argmax()
    seen = memory_attention(*model, example, [target.classes[predicted]])[0, : CELLS**2]
    seen = seen / seen.sum()
    change = (probabilities[1:, predicted] - probabilities[0, predicted]).abs()  # (CELLS²,)
    found = {
        "look on the lesion": (seen * lesion).sum(),
        "area of the lesion": lesion.mean(),
        "change without the cell looked at most": change[seen.argmax()],
        "change without any cell, on average": change.mean(),
        "change without most of the lesion": change[lesion.argmax()],
        "correlation of look and change": torch.corrcoef(torch.stack([seen, change]))[0, 1],
    }
    return {kind: value.nan_to_num().item() for kind, value in found.items()}


def segment(picture: Tensor) -> tuple[Tensor, Tensor]:
    """The lesion's share of each cell, (CELLS²,), and the colour of the skin, (3, 1, 1).

    The lesion is what is darker than Otsu's threshold, which makes the two parts as unlike as it can.
    Now and then, a shadow at the edge counts as lesion.
    Source: Otsu 1979.
    """
    grey = picture.float().mean(0)  # (S, S)
    levels = grey.flatten().sort().values
    below = torch.arange(1, len(levels))  # the number of dark pixels, for each threshold
    sums = levels.cumsum(0)
    dark = sums[:-1] / below
    light = (sums[-1] - sums[:-1]) / (len(levels) - below)
    between = below * (len(levels) - below) * (light - dark).square()
    is_dark = grey <= levels[between.argmax()]
    skin_colour = picture.float()[:, ~is_dark].mean(1).to(picture.dtype)
    size = SKIN_SIZE // CELLS
    cells = is_dark.float().view(CELLS, size, CELLS, size).mean((1, 3)).flatten()
    return cells, skin_colour[:, None, None]


def without_cell(picture: Tensor, cell: int, colour: Tensor) -> Tensor:
    """The picture (3, S, S) with one cell painted over."""
    size = SKIN_SIZE // CELLS
    row, column = cell // CELLS * size, cell % CELLS * size
    picture = picture.clone()
    picture[:, row : row + size, column : column + size] = colour
    return picture


def houses(name: str) -> dict:
    """Houses: the mean absolute percentage error, %, of each of five folds."""
    _, how, *changes = name.split(", ")
    errors = []
    predicted = []
    true = []
    row = {}
    for fold in range(1, FOLDS + 1):
        metadata = HOUSES | {"fold": f"{fold}/{FOLDS}", "inputs": INPUTS.get(how, "row")}
        if how == "boosted trees":
            values, data = boosted_trees(metadata)
        elif "with a head" in changes:
            values, data = regress(metadata, epochs=40, batch_size=16)
        else:
            options = from_published(freeze=("encoders.image.backbone",), epochs=40, batch_size=16)
            row = fit(name, metadata, HOUSE_SIZE, **options)
            log_probs, data = predict(name, metadata, "test", HOUSE_SIZE)
            values = number_of_brackets(log_probs.exp(), data.target.medians)
        prices = torch.tensor(data.values, dtype=torch.float64)
        errors.append(round(100 * mean_absolute_percentage_error(values, prices), 1))
        predicted.append(values)
        true.append(prices)
    predicted, true = torch.cat(predicted), torch.cat(true)

    def error(rows: Tensor) -> float:
        return 100 * mean_absolute_percentage_error(predicted[rows], true[rows])

    interval = [round(x, 1) for x in group_bootstrap(error, range(len(true)))]
    spread = round(statistics.stdev(errors), 1)
    return row | {"percentage error": interval, "folds": errors, "standard deviation": spread}


def boosted_trees(metadata: dict) -> tuple[Tensor, DataSet]:
    """What a practitioner would use: gradient-boosted trees, of the logarithm of the price."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    parts = {split: TASK.read(metadata, split, 0) for split in ("train", "validation", "test")}
    rows, prices = {}, {}
    for split, data in parts.items():
        rows[split] = torch.stack([data[i]["row"] for i in range(len(data))])
        prices[split] = torch.tensor(data.values, dtype=torch.float64)
    training = torch.cat([rows["train"], rows["validation"]])
    targets = torch.cat([prices["train"], prices["validation"]]).log()
    is_category = [count > 0 for count in parts["train"].schema.num_categories()]
    model = HistGradientBoostingRegressor(categorical_features=is_category, random_state=0)
    model.fit(training.numpy(), targets.numpy())
    return torch.from_numpy(model.predict(rows["test"].numpy())).exp(), parts["test"]


def regressed(name: str) -> dict:
    """A head on the mean of the form's vectors, trained on the logarithm: no brackets, no words."""
    metadata = LISTING | {"inputs": "row"}
    values, data = regress(metadata, epochs=1, batch_size=48)
    true = torch.tensor([each.log_price for each in data.listings], dtype=torch.float64)
    best = torch.tensor([expected_log_price(each, "row") for each in data.listings])
    return {
        "explained": round(100 * r_squared(values.log(), true), 1),
        "possible": round(100 * r_squared(best, true), 1),
    }


def regress(metadata: dict, epochs: int, batch_size: int) -> tuple[Tensor, DataSet]:
    """Train a head on forms -> (the numbers that it predicts, the test split)."""
    torch.manual_seed(0)
    training, test = (TASK.read(metadata, split, 0) for split in ("train", "test"))
    forms, tested = (
        torch.stack([data[i]["row"] for i in range(len(data))]) for data in (training, test)
    )
    logs = torch.tensor(training.values).log()
    targets = (logs - logs.mean()) / logs.std()
    encoder = TableEncoder(256, training.schema.num_categories(), num_layers=1, dropout=0.3)
    head = nn.Linear(256, 1)
    weights = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, 1e-3, weight_decay=0.05)
    steps = epochs * (len(forms) // batch_size)
    schedule = LambdaLR(optimizer, partial(warmup_and_cosine, steps=steps, warmup_fraction=0.05))
    for _ in range(epochs):
        order = torch.randperm(len(forms))
        for rows in order[: len(forms) // batch_size * batch_size].view(-1, batch_size):
            predicted = head(encoder(forms[rows]).mean()).squeeze(1)
            optimizer.zero_grad()
            F.mse_loss(predicted, targets[rows]).backward()
            optimizer.step()
            schedule.step()
    encoder.eval()
    with torch.no_grad():
        predicted = head(encoder(tested).mean()).squeeze(1)
    return (predicted * logs.std() + logs.mean()).double().exp(), test


MEASURES = {
    **{f"listings, {how}": listings for how in INPUTS},
    "listings, form, with a head": regressed,
    **{f"HAM10000, {how}": skin for how in INPUTS},
    "HAM10000, both, split by picture": skin,
    "HAM10000, form, with dx_type": skin,
    "HAM10000, both, weights": skin,
    "HAM10000, both, focal": skin,
    "HAM10000, both, fine-tuned, weights": skin,
    "lesions": look,
    "Houses, boosted trees": houses,
    "Houses, form, with a head": houses,
    **{f"Houses, {how}": houses for how in INPUTS},
}


def results() -> dict[str, dict]:
    """The measurements so far, by name."""
    return by_name(RESULTS)


def main(names: list[str]) -> None:
    """Measure these, or what is missing."""
    measure_missing(RESULTS, names, MEASURES, lambda name: MEASURES[name](name))


if __name__ == "__main__":
    main(sys.argv[1:])
