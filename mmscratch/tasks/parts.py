"""The parts of the mixture that a program makes: their examples, and what counts as right."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from ..batches import Examples, collate, to_device
from ..classification import number_of_brackets
from ..data.answers import SceneQuestions
from ..data.captions import SceneCaptions
from ..data.dataset import DataSet
from ..data.judge import judge
from ..data.listings import Listings
from ..data.speech import SpokenCaptions
from ..data.translations import SceneTranslation
from ..decoding import candidate_log_probs, generate
from ..metrics import word_error_rate
from ..mixture import MixtureLoss
from ..text import detokenize
from ..training import Trainer
from .spoken import speak_sentences
from .task import Metadata


class Part(NamedTuple):
    """One of the mixture's tasks.

    size   the number of its training examples; 0: it is not in the mixture, only for fine-tuning
    read   (split, count, image_size) -> its examples
    score  (model, vocabularies, examples, the part's own data) -> how right each output is, 0 to 1
    """

    size: int
    read: Callable[[str, int, int], DataSet]
    score: Callable[..., list[float]]


def _captions(language: str, split: str, count: int, size: int) -> DataSet:
    return SceneCaptions(split, count, language, size, one_caption_each=True)


def _translations(languages: tuple[str, str], split: str, count: int, size: int) -> DataSet:
    return SceneTranslation(split, count, languages, size, "some")


def _questions(language: str, split: str, count: int, size: int) -> DataSet:
    return SceneQuestions(split, (count + 1) // 2, language, size)


def _spoken_questions(language: str, split: str, count: int, size: int) -> DataSet:
    data = _questions(language, split, count, size)
    return speak_sentences(data, data.questions, split, language)


def _speech(language: str, split: str, count: int, size: int) -> DataSet:
    return SpokenCaptions(split, count, language=language)


def _true(language: str, model, vocabularies: dict, examples: DataSet, data: DataSet) -> list:
    """1 where the caption is true of the scene."""
    captions = [detokenize(words) for words in generate(model, vocabularies, examples)]
    return [float(judge(c, scene, language).true) for c, scene in zip(captions, data.scenes)]


def _exact(model, vocabularies: dict, examples: DataSet, data: DataSet) -> list:
    """1 where the output is a reference, word for word."""
    outputs = generate(model, vocabularies, examples)
    return [float(out in references) for out, references in zip(outputs, data.references)]


def _words_right(model, vocabularies: dict, examples: DataSet, data: DataSet) -> list:
    """1 - the word error rate of each transcript, and at least 0."""
    outputs = generate(model, vocabularies, examples)
    scores = []
    for output, references in zip(outputs, data.references):
        scores.append(max(0.0, 1 - word_error_rate([output], [references]).score))
    return scores


def _explained(model, vocabularies: dict, examples: DataSet, data: DataSet) -> list:
    """1 - error² / variance of the logarithm of each price: their mean is R²."""
    candidates = [[label] for label in data.target.classes]
    log_probs = candidate_log_probs(model, vocabularies, examples, candidates)
    predicted = number_of_brackets(log_probs.softmax(-1), data.target.medians).log()  # (M,)
    true = torch.tensor(data.values, dtype=torch.float64).log()
    variance = (true - true.mean()).square().mean()
    return (1 - (true - predicted).square() / variance).tolist()


PARTS = {
    "captions-en": Part(20_000, partial(_captions, "en"), partial(_true, "en")),
    "captions-de": Part(25_000, partial(_captions, "de"), partial(_true, "de")),
    "captions-zh": Part(25_000, partial(_captions, "zh"), partial(_true, "zh")),
    "translation-en-de": Part(20_000, partial(_translations, ("en", "de")), _exact),
    "translation-de-en": Part(7_000, partial(_translations, ("de", "en")), _exact),
    "translation-en-zh": Part(7_000, partial(_translations, ("en", "zh")), _exact),
    "translation-zh-en": Part(7_000, partial(_translations, ("zh", "en")), _exact),
    "questions": Part(55_000, partial(_questions, "en"), _exact),
    "spoken-questions": Part(16_000, partial(_spoken_questions, "en"), _exact),
    "speech-en": Part(16_000, partial(_speech, "en"), _words_right),
    "speech-de": Part(4_000, partial(_speech, "de"), _words_right),
    "prices": Part(12_000, Listings, _explained),
    "translation-de-zh": Part(0, partial(_translations, ("de", "zh")), _exact),
    "translation-zh-de": Part(0, partial(_translations, ("zh", "de")), _exact),
    "questions-de": Part(0, partial(_questions, "de"), _exact),
    "spoken-questions-de": Part(0, partial(_spoken_questions, "de"), _exact),
}
MIXED = ",".join(name for name, part in PARTS.items() if part.size)
OPTIONS = {
    "--parts": {
        "default": MIXED,
        "metavar": "PART,…",
        "help": f"of {', '.join(PARTS)} (default: the first {MIXED.count(',') + 1})",
    },
    "--examples": {
        "type": int,
        "metavar": "N",
        "help": "training examples of all parts together (default: the sum of their sizes)",
    },
    "--temperature": {
        "type": float,
        "default": 1.0,
        "metavar": "T",
        "help": "the higher, the more equal are the shares of the parts (default: 1)",
    },
    "--count-by": {
        "choices": ("word", "example"),
        "default": "word",
        "help": "what counts the same in the loss: then long outputs count more, or not",
    },
}


def parts_of(metadata: Metadata) -> list[str]:
    """The names of the parts. Raises ValueError for one that there is not."""
    names = [name.strip() for name in metadata["parts"].split(",") if name.strip()]
    for name in names:
        if name not in PARTS:
            raise ValueError(f"--parts: there is no {name!r}: choose among {', '.join(PARTS)}")
    if not names:
        raise ValueError("--parts names none")
    return names


def modalities_of(metadata: Metadata) -> set[str]:
    """The modalities that the parts have: "image", "source", …"""
    found = {"source"}  # the instruction
    for name in parts_of(metadata):
        found |= PARTS[name].read("validation", 1, 64).columns.keys()
    return found


def count_by_example(trainer: Trainer) -> None:
    """Let every example count the same in the loss, however many words its output has.

    The weight of a part is 1 / (the mean number of its words), times what makes the weights' mean
    over all examples 1.
    """
    data = trainer.train.data
    names = list(data.parts)
    lengths = torch.zeros(len(names), dtype=torch.double)
    counts = torch.zeros(len(names), dtype=torch.double)
    for name, target in zip(data.part_of, trainer.train.targets):
        lengths[names.index(name)] += len(target)
        counts[names.index(name)] += 1
    weights = counts / lengths.clamp(min=1)
    weights *= lengths.sum() / counts.sum()
    for examples in (trainer.train, trainer.validation):
        examples.data.number_parts(names)
    trainer.model.objective = MixtureLoss(weights.float())


@torch.no_grad()
def mean_loss(model, vocabularies: dict, data: DataSet, batch_size: int = 100) -> float:
    """The mean cross-entropy of a word of the references."""
    model.eval()
    examples = Examples(data, vocabularies)
    device = next(model.parameters()).device
    loss = count = 0.0
    for first in range(0, len(examples), batch_size):
        indices = range(first, min(first + batch_size, len(examples)))
        batch = to_device(collate([examples[i] for i in indices]), device)
        batch_loss, words = model.loss(batch)
        loss += batch_loss.item()
        count += words.item()
    return loss / count
