"""How soon does a captioner write 97 % true captions, on two CPU cores, from a clean start?

    python -m chapters.measured.speedrun               pairs quickstart with the baseline
    python -m chapters.measured.speedrun NAME          pairs another entry of ENTRIES with it
    python -m chapters.measured.speedrun table         prints the table of chapters/README.md

To compete, add an entry, and measure it. An entry trains in a process of its own, as `mmscratch
train` does; its time is that of the whole process, from the start of Python to the saved weights.
In turn with it runs the baseline, quickstart as it was in the commit BASELINE: what counts is the
ratio of the two times, since machines differ and have other things to do. Afterwards the captions
of 2,000 scenes that nobody has seen before are judged, and an entry below 97 % does not count.
"""

import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from chapters.measured import add_row, percent, read_rows, train
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.judge import judge
from mmscratch.data.scenes import SPLITS, Scene
from mmscratch.decoding import generate
from mmscratch.finetuning import load_run
from mmscratch.tasks.captioning import SCENES, Captioning
from mmscratch.text import detokenize

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_suffix(".jsonl")
TARGET = 97.0  # % of the captions that must be true
PAIRS = 2
THREADS = 2
BASELINE = "a41d8d6"  # the commit
TRAIN_BASELINE = """
import sys
from pathlib import Path
from chapters.measured import train
from mmscratch.tasks.captioning import SCENES, Captioning
metadata = {"task": "captioning", "layout": "scenes", "data": "scenes", "reward": None}
metadata["scenes"] = SCENES
train(Captioning(), metadata, Captioning().model(metadata, {}, None), Path(sys.argv[1]))
"""
FRESH = SPLITS["test"] + 500_000  # the first scene that judges
FRESH_SCENES = 2000
TASK = Captioning()
ENTRIES = {  # name: what differs from quickstart: "scenes", "model", "image", "decoder", or options of TrainConfig
    "quickstart": {},
    "batches of 16": {"scenes": 44_000, "batch_size": 16, "learning_rate": 2e-3},
}


def train_entry(name: str, folder: Path) -> None:
    """Train an entry in a folder."""
    entry = dict(ENTRIES[name])
    metadata = {"task": TASK.name, "layout": "scenes", "data": "scenes", "reward": None}
    metadata["scenes"] = entry.pop("scenes", SCENES)
    model = TASK.model(metadata, {}, None)
    model["encoders"]["image"] |= entry.pop("image", {})
    model["decoder"] |= entry.pop("decoder", {})
    model |= entry.pop("model", {})
    train(TASK, metadata, model, folder, **entry)


def time_of(command: list[str], home: Path) -> float:
    """The seconds that a new process of Python takes, in this folder."""
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": str(home)}
    start = time.monotonic()
    subprocess.run([sys.executable, *command], env=environment, cwd=home, check=True)
    return time.monotonic() - start


def check_out_baseline(folder: Path) -> None:
    """Write the files of the commit BASELINE to a folder."""
    archive = subprocess.run(["git", "archive", BASELINE], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")


def truth_of(folder: Path) -> list[float]:
    """The percentage of true captions of fresh scenes, with its interval."""
    model, vocabularies, _ = load_run(folder)
    data = SceneCaptions("test", 0)
    data.set_scenes([Scene(FRESH + i) for i in range(FRESH_SCENES)])
    captions = generate(model, vocabularies, data)
    verdicts = [judge(detokenize(words), scene) for words, scene in zip(captions, data.scenes)]
    return percent([float(verdict.true) for verdict in verdicts])


def measure(name: str) -> dict:
    """Train an entry and the baseline in turn -> seconds, their ratio, and what is true."""
    seconds = {"baseline": [], name: []}
    true = {}
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder, "old")
        check_out_baseline(old)
        for _ in range(PAIRS):
            for each in seconds:
                run = Path(folder, each)
                command = ["-m", "chapters.measured.speedrun", "train", each, str(run)]
                home = ROOT
                if each == "baseline":
                    command = ["-c", TRAIN_BASELINE, str(run)]
                    home = old
                seconds[each].append(round(time_of(command, home), 1))
                true[each] = truth_of(run)
                print(f"{each}: {seconds[each][-1]} s, {true[each]} % true", flush=True)
    ratios = [ours / theirs for ours, theirs in zip(seconds[name], seconds["baseline"])]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "name": name,
        "ratio": round(statistics.median(ratios), 2),
        "seconds": seconds[name],
        "baseline": seconds["baseline"],
        "true": true[name],
        "commit": commit.stdout.strip(),
    }


def table() -> str:
    """The table of all measurements that reached the target, the fastest first."""
    lines = ["| time, baseline = 1 | true | what changed | commit |", "|---|---|---|---|"]
    for row in sorted(read_rows(RESULTS), key=lambda row: row["ratio"]):
        value, low, high = row["true"]
        if value >= TARGET:
            true = f"{value} % ({low} to {high})"
            lines.append(f"| {row['ratio']:.2f} | {true} | {row['name']} | {row['commit']} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Measure an entry, or print the table."""
    name, *others = arguments or ["quickstart"]
    if name == "train":
        return train_entry(others[0], Path(others[1]))
    if name == "table":
        return print(table())
    if name not in ENTRIES:
        sys.exit(f"error: there is no entry {name!r}; choose among: {', '.join(ENTRIES)}")
    row = measure(name)
    add_row(RESULTS, row)
    print(row)
    if row["true"][0] < TARGET:
        print(f"{row['true'][0]} % are true, fewer than {TARGET}: this does not count")


if __name__ == "__main__":
    main(sys.argv[1:])
