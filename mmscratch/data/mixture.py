"""Examples of many tasks in one stream; each is told by an instruction what is wanted."""

import random
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch

from .dataset import DataSet, LazyColumn, words_of

LANGUAGES = {"en": "english", "de": "german", "zh": "chinese"}


class Wordings(NamedTuple):
    """How to say what is wanted. {} stands for the example's own text.

    few     a few ways
    more    the others of training
    unseen  only for tests
    """

    few: tuple[str, ...]
    more: tuple[str, ...]
    unseen: tuple[str, ...]

    @property
    def seen(self) -> tuple[str, ...]:
        """All of training."""
        return (*self.few, *self.more)


def _captions(language: str) -> Wordings:
    article = "an" if language == "english" else "a"
    return Wordings(
        few=(
            f"describe the picture in {language}",
            f"write a caption in {language}",
            f"what does the picture show? answer in {language}",
            f"say in {language} what you see",
        ),
        more=(
            f"a caption in {language}",
            f"{article} {language} description of the picture",
            f"caption the picture in {language}",
            f"describe in {language} what the picture shows",
            f"describe what you see in {language}",
            f"in {language}: what does the picture show?",
            f"tell me in {language} what is in the picture",
            f"tell me in {language} what you see",
            f"what do you see? answer in {language}",
            f"write {article} {language} caption for the picture",
            f"write a description in {language}",
            f"write in {language} what you see",
        ),
        unseen=(f"write in {language} what the picture shows", f"{article} {language} caption"),
    )


def _translation(language: str) -> Wordings:
    return Wordings(
        few=(
            f"translate into {language}: {{}}",
            f"how do you say in {language}: {{}}",
            f"write in {language}: {{}}",
        ),
        more=(
            f"in {language}: {{}}",
            f"please translate into {language}: {{}}",
            f"put into {language}: {{}}",
            f"say this in {language}: {{}}",
            f"translate this into {language}: {{}}",
            f"what is this in {language}: {{}}",
            f"{{}}: how do you say this in {language}?",
            f"{{}}: in {language}",
            f"{{}}: say this in {language}",
            f"{{}}: what is this in {language}?",
        ),
        unseen=(f"say in {language}: {{}}", f"{{}}: translate into {language}"),
    )


INSTRUCTIONS = {f"captions-{code}": _captions(name) for code, name in LANGUAGES.items()}
for _source in LANGUAGES:
    for _target, _name in LANGUAGES.items():
        if _source != _target:
            INSTRUCTIONS[f"translation-{_source}-{_target}"] = _translation(_name)
INSTRUCTIONS["questions"] = Wordings(
    few=("{}", "answer: {}", "look at the picture: {}"),
    more=("look: {}", "please answer: {}", "question: {}", "tell me: {}", "{} look at the picture"),
    unseen=("look and answer: {}", "answer what is asked: {}"),
)
INSTRUCTIONS["spoken-questions"] = Wordings(
    few=("answer what you hear", "listen and answer", "answer the spoken question"),
    more=(
        "answer the question that you hear",
        "answer what is asked",
        "hear the question and answer",
        "listen to the question",
        "please answer what is said",
    ),
    unseen=("listen to the question and answer", "hear and answer"),
)
INSTRUCTIONS["speech"] = Wordings(
    few=("write what you hear", "write down what is said", "listen and write"),
    more=(
        "listen and write it down",
        "what do you hear?",
        "what is said?",
        "write the words that you hear",
        "write what is said",
    ),
    unseen=("write down what you hear", "listen and write what is said"),
)
INSTRUCTIONS["prices"] = Wordings(
    few=("what is the price?", "how much does it cost?", "say the price"),
    more=("how much is it?", "say how much it costs", "tell me the price", "what does this cost?"),
    unseen=("what does it cost?", "how much is the price?"),
)


def wordings_of(part: str) -> Wordings:
    """The wordings of a part: its own, or those of its kind: "speech-de" is told what "speech" is."""
    while part not in INSTRUCTIONS:
        if "-" not in part:
            known = ", ".join(INSTRUCTIONS)
            raise ValueError(f"no instruction for {part!r}: there are some for {known}")
        part = part.rpartition("-")[0]
    return INSTRUCTIONS[part]


def instruct(wording: str, words: Sequence[str]) -> list[str]:
    """The words of an instruction, with an example's own ones in it."""
    before, _, after = wording.partition("{}")
    return [*words_of(before), *words, *words_of(after)]


class Mixture(DataSet):
    """Examples of several data sets, each with an instruction in its "source".

    parts     the data sets by name; the name finds the instruction (`wordings_of`)
    order     the part of each example: a name for each. A part's examples come in their order; once
              it has none left, they come again, shuffled.
    wordings  "seen", in training; "few" of them; "unseen"; "none", to leave the instruction out; or
              "wrong", those of another part with the same inputs in `parts`: the last four to see what
              instructions do

    What an example lacks, a picture or a sound, is not there. `part_of[i]` is the name of an
    example's part, and `origin[i]` its index there. Raises ValueError for a part without examples.
    """

    def __init__(
        self,
        parts: dict[str, DataSet],
        order: Sequence[str],
        wordings: str = "seen",
    ):
        super().__init__()
        self.parts = parts
        self.part_of = list(order)
        self.origin = []
        indices = {name: _endlessly(name, len(data)) for name, data in parts.items()}
        for name in self.part_of:
            self.origin.append(next(indices[name]))
        keys = list(zip(self.part_of, self.origin))
        modalities = dict.fromkeys(name for data in parts.values() for name in data.columns)
        for modality in modalities:
            if modality != "source":
                held = [key if _has(parts[key[0]], modality, key[1]) else None for key in keys]
                self.columns[modality] = LazyColumn(partial(_value, parts, modality), held)
        sources = self.columns["source"] = []
        for i, (name, index) in enumerate(keys):
            data = parts[name]
            own = data.columns["source"][index] if "source" in data.columns else []
            sources.append(_instruction(name, i, own, wordings, parts))
            self.texts.append(data.texts[index])
            self.references.append(data.references[index])
            self.names.append(f"{name}, {data.names[index]}")
        for name, data in parts.items():
            self.problems += data.problems
            self.sources += data.sources
            self.schema = self.schema or data.schema

    def number_parts(self, names: Sequence[str]) -> None:
        """Add the column "part": the number of each example's part among the names."""
        numbers = [names.index(name) for name in self.part_of]
        self.columns["part"] = LazyColumn(torch.tensor, numbers)


def _endlessly(name: str, count: int):
    """0 to count - 1 in this order, then again and again in others."""
    if count == 0:
        raise ValueError(f"{name} has no examples to mix")
    yield from range(count)
    rng = random.Random(f"mixture {name}")
    while True:
        yield from rng.sample(range(count), count)


def _has(data: DataSet, modality: str, index: int) -> bool:
    column = data.columns.get(modality)
    if column is None:
        return False
    keys = column.keys if isinstance(column, LazyColumn) else column
    return keys[index] is not None


def _value(parts: dict[str, DataSet], modality: str, key: tuple[str, int]):
    name, index = key
    return parts[name].columns[modality][index]


def _instruction(
    name: str, i: int, own: Sequence[str], wordings: str, parts: dict[str, DataSet]
) -> list[str]:
    """The source of example i of the mixture, which belongs to the part `name`."""
    if wordings == "none":
        return list(own) or ["?"]
    if wordings == "wrong":
        modalities = parts[name].columns.keys()
        others = [other for other, data in parts.items() if data.columns.keys() == modalities]
        name = others[(others.index(name) + 1) % len(others)]
    known = wordings_of(name)
    choices = {"few": known.few, "unseen": known.unseen}.get(wordings, known.seen)
    rng = random.Random(f"wording {i}")
    return instruct(rng.choice(choices), own)
