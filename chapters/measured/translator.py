"""How well does the default of `train --task translation` translate Multi30k? Three trainings.

    python -m chapters.measured.translator ["seed 0" …]

adds what chapters/measured/translator.jsonl lacks, and tries on the way what costs no training: the
mean of the last epochs' weights (Vaswani et al. 2017, section 6.1), and other length penalties.
It needs data/multi30k (python -m data_scripts.multi30k).
"""

import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from chapters.measured import measure_missing, read_rows, train
from chapters.measured.multi30k import MULTI30K, perplexity
from mmscratch.batches import Examples
from mmscratch.data.dataset import DataSet
from mmscratch.data.translations import Multi30k
from mmscratch.decoding import SearchOptions, generate
from mmscratch.finetuning import load_run
from mmscratch.metrics import ConfidenceInterval, bleu, bleu_interval
from mmscratch.model import EncoderDecoder
from mmscratch.tasks.translation import Translation
from mmscratch.training import Trainer

RESULTS = Path(__file__).with_suffix(".jsonl")
METADATA = {
    "task": "translation",
    "layout": "multi30k",
    "data": str(MULTI30K),
    "source": "en",
    "target": "de",
    "photographs": None,
}
SEEDS = {f"seed {seed}": seed for seed in range(3)}
LAST = 5  # epochs whose weights are averaged
PENALTIES = (0.0, 0.5, 1.5)  # instead of 1
WAYS = (
    *(f"length penalty {penalty}" for penalty in PENALTIES),
    "last epoch",
    f"mean of {LAST} epochs",
)


class KeepingTheLast(Translation):
    """The task; the weights after each of the last epochs are kept in memory."""

    def prepare(self, trainer: Trainer, metadata: dict) -> None:
        super().prepare(trainer, metadata)
        self.kept = deque(maxlen=LAST)

        def keep() -> dict:
            state = trainer.model.state_dict()
            self.kept.append({name: value.clone() for name, value in state.items()})
            return {}

        trainer.watch = keep


def mean_of(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each weight."""
    mean = {}
    for name in states[0]:
        mean[name] = sum(state[name] for state in states) / len(states)
    return mean


def score(
    model: EncoderDecoder, words: dict, data: DataSet, penalty: float = 1.0
) -> ConfidenceInterval:
    """BLEU with five beams and this length penalty, and the ends of its interval."""
    options = SearchOptions(length_penalty=penalty)
    texts = generate(model, words, data, num_beams=5, max_length=64, options=options)
    return bleu_interval(texts, data.references)[-1]


def results() -> list[dict]:
    """The rows of translator.jsonl; none if it does not exist."""
    return read_rows(RESULTS)


def measure(name: str) -> dict:
    """Train with this seed; BLEU on the validation sentences, of several weights and searches."""
    task = KeepingTheLast()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        row = train(task, METADATA, task.model(METADATA, {}, None), run, seed=SEEDS[name])
        model, words, _ = load_run(run)
    data = Multi30k(MULTI30K, "validation")
    row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    row["pieces"] = len(words["target"])
    row["perplexity"] = perplexity(model, Examples(data, words))
    row["greedy"] = bleu(generate(model, words, data, max_length=64), data.references).score
    row["BLEU"] = list(score(model, words, data))
    for penalty in PENALTIES:
        row[f"length penalty {penalty}"] = score(model, words, data, penalty)[0]
    for way, states in (("last epoch", [task.kept[-1]]), (f"mean of {LAST} epochs", task.kept)):
        model.load_state_dict(mean_of(states))
        row[way] = score(model, words, data)[0]
    return row


if __name__ == "__main__":
    measure_missing(RESULTS, sys.argv[1:], SEEDS, measure)
