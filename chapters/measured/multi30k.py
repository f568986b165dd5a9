"""How well do the models of chapters 10 and 11 translate Multi30k? Their measurements, which take hours.

    python -m chapters.measured.multi30k       measures what is not yet in chapters/measured/multi30k.jsonl, and adds it there

It needs data/multi30k (python -m data_scripts.multi30k), and for chapter 11 data/flickr8k (python -m data_scripts.flickr8k).
"""

import contextlib
import io
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path

import torch

from mmscratch.batches import Examples, collate, to_device
from mmscratch.data.dataset import DataSet, LazyColumn, Subset
from mmscratch.data.translations import Multi30k
from mmscratch.decoding import alignment, generate
from mmscratch.finetuning import load_run
from mmscratch.metrics import aligned_accuracy, bleu, bleu_interval
from mmscratch.model import EncoderDecoder
from mmscratch.pretraining import train_classifier
from mmscratch.tasks.train import sized
from mmscratch.tasks.translation import MERGES, PARTS
from mmscratch.text import MASKED, BytePairEncoding, Vocabulary
from mmscratch.training import TrainConfig, Trainer
from mmscratch.vision import ResNet
from mmscratch.weights import load_matching

MULTI30K, FLICKR8K = Path("data/multi30k"), Path("data/flickr8k/Flicker8k_Dataset")
RESULTS = Path(__file__).with_suffix(".jsonl")
LSTM = PARTS["lstm"] | {"dropout": 0.2}
TRANSFORMER = PARTS["transformer"] | {"dropout": 0.1}
STEPS = {"batch_size": 96, "learning_rate": 3e-3}
# Chapter 10: whether byte pairs are read and written, or words; the decoder; how it is trained.
TRANSLATORS = {
    "LSTM, one vector": (False, LSTM | {"fusion": "prefix"}, {"epochs": 6, **STEPS}),
    "LSTM, attention": (False, LSTM, {"epochs": 6, **STEPS}),
    "LSTM, attention, byte pairs": (True, LSTM, {"epochs": 6, **STEPS}),
    "Transformer, byte pairs": (True, TRANSFORMER, {"epochs": 16, **STEPS}),
}
LENGTHS = (1, 9, 12, 15, 19, 99)  # words of the source: the classes in which BLEU is measured
SIZE = 64  # pixels of the photographs
DRAWN = 12  # so many translations are kept, and the attention of so many with a verb at the end, the shortest


def vocabularies(data: DataSet, byte_pairs: bool) -> dict[str, Vocabulary]:
    """Of the translations ("target") and of the sources: of byte pairs a joint one; of words those that occur twice."""
    translations = [translation for (translation,) in data.references]
    sources = data.columns["source"]
    if byte_pairs:
        joint = BytePairEncoding.learn([*sources, *translations], MERGES)
        return {"target": joint, "source": joint}
    return {
        "target": Vocabulary.build(translations, min_freq=2),
        "source": Vocabulary.build(sources, min_freq=2),
    }


def settings_of(decoder: dict, words: dict[str, Vocabulary], image: dict | None = None) -> dict:
    """Of a translator: its encoder of sentences is of the decoder's kind; with `image` it sees pictures as well."""
    source = {name: value for name, value in decoder.items() if name != "fusion"}
    return {
        "encoders": {"image": image, "source": source} if image else {"source": source},
        "decoder": decoder,
        "embed_dim": 128,
        "joint_vocabulary": words["target"] is words["source"],
        "modality_dropout": 0.3 if image else 0.0,
        "label_smoothing": 0.1,
    }


def train(
    settings: dict,
    words: dict[str, Vocabulary],
    data: tuple[DataSet, DataSet],
    steps: dict,
    folder: Path,
    cnn: ResNet | None = None,
) -> Trainer:
    """A translator, trained to the end; the weights with the lowest validation loss are in `folder`. A `cnn` stays as it is."""
    training, validation = data
    examples = Examples(training, words), Examples(validation, words)
    frozen = ("encoders.image.backbone",) if cnn else ()
    config = TrainConfig(**steps, precision="float32", freeze=frozen)
    trainer = Trainer(sized(settings, words, examples), config, examples, folder)
    if cnn:
        load_matching(
            trainer.model.encoders["image"].backbone, cnn.state_dict()
        )  # without its classifier
    trainer.fit()
    return trainer


@torch.no_grad()
def perplexity(model: EncoderDecoder, examples: Examples) -> float:
    """exp of the mean loss a word, <eos> too; of byte pairs, a word's loss is that of all its pieces."""
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(examples)), key=examples.lengths.__getitem__)
    total = 0.0
    for first in range(0, len(order), 100):
        batch = collate([examples[i] for i in order[first : first + 100]])
        loss, _ = model.loss(to_device(batch, device))
        total += loss.item()
    return math.exp(
        total / sum(len(translation) + 1 for (translation,) in examples.data.references)
    )


def translator(name: str, folder: Path) -> dict:
    """One row of chapter 10's table."""
    byte_pairs, decoder, steps = TRANSLATORS[name]
    training, validation = (Multi30k(MULTI30K, split) for split in ("train", "validation"))
    words, start = vocabularies(training, byte_pairs), time.monotonic()
    trainer = train(settings_of(decoder, words), words, (training, validation), steps, folder)
    seconds = time.monotonic() - start
    model, _, _ = load_run(folder)
    greedy, beam = (
        generate(model, words, validation, num_beams, max_length=64) for num_beams in (1, 5)
    )
    sources = validation.columns["source"]
    score, low, high = bleu_interval(beam, validation.references)[-1]
    by_length = []
    for shortest, longest in zip(LENGTHS, LENGTHS[1:]):
        chosen = [i for i, source in enumerate(sources) if shortest <= len(source) < longest]
        of_length = bleu(
            [beam[i] for i in chosen], [validation.references[i] for i in chosen]
        ).score
        by_length.append([shortest, longest - 1, len(chosen), of_length])
    looked = []
    if decoder.get("fusion") != "prefix":
        looked = [word_alignment(model, words, *pair) for pair in zip(sources, greedy) if all(pair)]
    kept = [
        {
            "source": source,
            "written": written,
            "weights": (100 * weights).round().int().tolist(),
        }  # in percent
        for source, written, weights in looked
        if last_verbs(written)
    ]
    found = {
        "BLEU": score,
        "low": low,
        "high": high,
        "greedy": bleu(greedy, validation.references).score,
    }
    found |= {"perplexity": perplexity(model, trainer.validation), "by length": by_length}
    found |= {
        "parameters": sum(p.numel() for p in model.parameters()),
        "words": [len(words["target"]), len(words["source"])],
    }
    found |= {
        "epochs": steps["epochs"],
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
    }
    found |= {
        "jumps": jumps(looked),
        "alignments": sorted(kept, key=lambda one: len(one["source"]) + len(one["written"]))[
            :DRAWN
        ],
    }
    examples = zip(sources[:DRAWN], (reference for (reference,) in validation.references), beam)
    return found | {"examples": [[" ".join(tokens) for tokens in example] for example in examples]}


def word_alignment(
    model: EncoderDecoder, words: dict[str, Vocabulary], source: list[str], written: list[str]
):
    """(source, written, where each layer looks for each word that it writes, (layers, T, S)).

    Where a word is of several pieces, the mean of where they look, and the sum of what its pieces in the source get.
    """
    weights = alignment(model, words, source, written)
    for tokens, vocabulary, together in (
        (written, words["target"], torch.mean),
        (source, words["source"], torch.sum),
    ):
        ends = list(accumulate(len(vocabulary.encode([token])) for token in tokens))
        parts = [together(weights[:, start:end], dim=1) for start, end in zip([0, *ends], ends)]
        weights = torch.stack(parts, dim=1).transpose(1, 2)  # the other axis next
    return source, written, weights


OPENING = set(
    "der die das dem den denen deren dessen während als wie wo um wobei dass damit wenn bevor nachdem weil".split()
)
PREFIXES = set(
    "ab an auf aus ein entlang herum herunter hinunter hoch um vor vorbei zu zurück".split()
)


def last_verbs(words: Sequence[str]) -> list[int]:
    """The places of what German puts at the end of a clause, by a rule that is mostly right.

    It is the last word of a clause that begins, after a comma, with a word such as "der", "während" or "um", and the
    prefix that is split off a verb and put last ("bauen … auf").
    """
    ends, found = [t for t, word in enumerate([*words, "."]) if word in (",", ".")], []
    for start, end in zip([-1, *ends], ends):
        clause = words[start + 1 : end]
        opened = start >= 0 and words[start] == "," and clause[:1] and clause[0] in OPENING
        if len(clause) > 2 and (opened or clause[-1] in PREFIXES):
            found.append(end - 1)
    return found


def jumps(looked: list[tuple]) -> list[dict]:
    """Of each layer: from a word to the next, does what is looked at most jump back? Of verbs at the end, and of all others."""
    found = []
    for layer in range(len(looked[0][2]) if looked else 0):
        steps: dict[str, list[int]] = {"verbs": [], "others": []}
        for _, written, weights in looked:
            at, last = weights[layer].argmax(-1).tolist(), last_verbs(written)
            for t in range(1, len(at)):
                steps["verbs" if t in last else "others"].append(at[t] - at[t - 1])
        found.append(
            {kind: [len(of), sum(step < 0 for step in of), sum(of)] for kind, of in steps.items()}
        )
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Chapter 11: with the photographs. What is hidden of a sentence, and how its translation may read.

COLOURS = {
    "black": "schwarz", "white": "weiß", "red": "rot", "blue": "blau", "green": "grün", "yellow": "gelb", "orange": "orange",
    "purple": "lila|violett", "pink": "rosa|pink", "brown": "braun", "gray": "grau", "grey": "grau",
}  # fmt: skip
NOUNS = {
    "man": "mann", "men": "männern?", "woman": "frau", "women": "frauen", "boy": "jungen?", "boys": "jungen|jungs", "girl": "mädchen",
    "girls": "mädchen", "child": "kind", "children": "kindern?", "baby": "baby", "people": "leuten?|menschen|personen",
    "dog": "hund", "dogs": "hunden?", "horse": "pferd", "bird": "vogel", "ball": "ball", "water": "wasser", "snow": "schnee",
    "grass": "gras", "beach": "strand", "street": "straße", "field": "feld", "rock": "felsen?", "mountain": "berg", "car": "auto",
    "bike": "fahrrad", "bicycle": "fahrrad", "boat": "boot", "shirt": "hemd|t-shirt|oberteil|shirt", "hat": "hut|mütze",
    "jacket": "jacke", "dress": "kleid", "pool": "pool|schwimmbecken", "swing": "schaukel", "skateboard": "skateboard",
}  # fmt: skip
WITH_PHOTOGRAPHS, TEXT_ALONE = "with photographs", "text alone"
KINDS = {"nothing": {}, "colours": COLOURS, "noun": NOUNS}


def colour_of(token: str) -> str | None:
    """The colour that a German word names, with whatever ending: "rot" for "roten"."""
    stems = "|".join(COLOURS.values())
    found = re.fullmatch(rf"(?:hell|dunkel)?({stems})(?:e[rsnm]?|farbene[rsnm]?)?", token)
    return found and found[1]


class Hidden(Subset):
    """The sentences of another data set with words hidden, "a [v] dog": all of its colours, or one of its nouns.

    Of each kind those that have such words; `rows[i]` is the place of sentence i in the other data set, and `nouns[i]` the
    noun that is hidden in it.
    """

    def __init__(self, data: DataSet, kinds: Sequence[str]):
        self.rows, self.nouns, sources = [], [], []
        for kind in kinds:
            for i, source in enumerate(data.columns["source"]):
                places = [t for t, token in enumerate(source) if token in KINDS[kind]]
                if kind == "noun":
                    places = places[i % len(places) :][:1] if places else []
                if places or kind == "nothing":
                    self.rows.append(i)
                    self.nouns.append(source[places[0]] if kind == "noun" else None)
                    masked = [MASKED if t in places else token for t, token in enumerate(source)]
                    sources.append(
                        [
                            "a" if pair == ("an", MASKED) else pair[0]
                            for pair in zip(masked, [*masked[1:], ""])
                        ]
                    )
        super().__init__(data, self.rows)
        self.columns["source"] = sources


def with_photograph(split: str) -> Subset:
    """The pairs of Multi30k whose photographs are in Flickr8k."""
    data = Multi30k(MULTI30K, split, photographs=FLICKR8K, size=SIZE)
    return Subset(data, [i for i, key in enumerate(data.columns["image"].keys) if key is not None])


def photograph_words(data: DataSet) -> tuple[torch.Tensor, torch.Tensor]:
    """For `train_classifier`: the photographs (N, 3, S, S), and which colours and nouns their English sentences name, (N, L)."""
    words = [*COLOURS, *NOUNS]
    images = torch.stack([data[i]["image"] for i in range(len(data))])
    labels = torch.tensor([[word in source for word in words] for source in data.columns["source"]])
    return images, labels


def other_pictures(data: DataSet) -> DataSet:
    """The same sentences, each with the picture of another one, half of the data set away."""
    half = len(data) // 2
    others = [(i + half) % len(data) for i in range(len(data))]
    shown = data.without("image")
    shown.columns["image"] = LazyColumn(data.columns["image"].__getitem__, others)
    return shown


def helped(sees: bool, folder: Path) -> dict:
    """How well a model that sees, or one that does not, translates what is hidden, with which picture beside it."""
    training, validation = (with_photograph(split) for split in ("train", "validation"))
    words, cnn, image = vocabularies(training, False), None, None
    if sees:
        image = {"name": "resnet", "depth": (1, 1, 1), "image_size": SIZE, "num_layers": 1}
        cnn = ResNet((1, 1, 1), num_classes=len(COLOURS) + len(NOUNS), width=32)
        train_classifier(cnn, *photograph_words(training), epochs=8)
    data = [
        Hidden(pairs if sees else pairs.without("image"), list(KINDS))
        for pairs in (training, validation)
    ]
    steps = {"epochs": 8, "batch_size": 32, "learning_rate": 2e-3}
    train(settings_of(LSTM, words, image), words, data, steps, folder, cnn)
    model, _, _ = load_run(folder)
    found = {}
    for kind in KINDS:
        data = Hidden(validation, [kind])
        ways = {"none": data.without("image")}
        if sees:
            ways = {"right": data, "shuffled": other_pictures(data)} | ways
        for way, shown in ways.items():
            written = generate(model, words, shown, num_beams=5, max_length=64)
            found[f"{kind}, {way}"] = score_hidden(kind, data, written)
    parameters = sum(p.numel() for p in model.parameters())
    return {"pairs": [len(training), len(validation)], "parameters": parameters, **found}


def score_hidden(kind: str, data: Hidden, written: list[list[str]]) -> dict:
    """BLEU, and how many of the hidden words are right, or of the colours where nothing is hidden."""
    if kind == "noun":
        tried = [(i, NOUNS[noun]) for i, noun in enumerate(data.nouns)]
        tried = [
            (i, form)
            for i, form in tried
            if any(re.fullmatch(form, token) for token in data.references[i][0])
        ]
        right = [any(re.fullmatch(form, token) for token in written[i]) for i, form in tried]
    else:
        right = aligned_accuracy(written, data.references, colour_of)
    score = bleu_interval(written, data.references)[-1]
    return {"sentences": len(data), "BLEU": score, "right": sum(right), "of": len(right)}


def results() -> list[dict]:
    """What has been measured."""
    return (
        [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    )


def one(name: str) -> dict:
    """One of the measurements, on one core."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        found = (
            translator(name, Path(folder))
            if name in TRANSLATORS
            else helped(name == WITH_PHOTOGRAPHS, Path(folder))
        )
    return {"name": name} | found


def main() -> None:
    """Measure what is missing, one measurement a core at a time."""
    names = [*TRANSLATORS, *((WITH_PHOTOGRAPHS, TEXT_ALONE) if FLICKR8K.exists() else ())]
    missing = [name for name in names if name not in [result["name"] for result in results()]]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for future in as_completed([pool.submit(one, name) for name in missing]):
            line = json.dumps(future.result(), ensure_ascii=False)
            print(line[:300], flush=True)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
