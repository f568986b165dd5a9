"""How well do the models of chapters 10 and 11 translate Multi30k? Measurements that take hours.

    python -m chapters.measured.multi30k       adds what chapters/measured/multi30k.jsonl lacks

It needs data/multi30k (python -m data_scripts.multi30k), and data/flickr8k for chapter 11
(python -m data_scripts.flickr8k).
"""

import contextlib
import io
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
from torch import Tensor

from chapters.measured import add_row, read_rows
from mmscratch.batches import Examples, collate, to_device
from mmscratch.data.dataset import DataSet, LazyColumn, Subset
from mmscratch.data.translations import Multi30k
from mmscratch.decoding import alignment, generate
from mmscratch.finetuning import load_run
from mmscratch.metrics import aligned_accuracy, bleu, bleu_interval
from mmscratch.model import EncoderDecoder
from mmscratch.pretraining import train_classifier
from mmscratch.tasks.train import sized
from mmscratch.tasks.translation import PARTS
from mmscratch.text import MASKED, BytePairEncoding, Vocabulary
from mmscratch.training import TrainConfig, Trainer
from mmscratch.vision import ResNet
from mmscratch.weights import load_matching

MULTI30K = Path("data/multi30k")
FLICKR8K = Path("data/flickr8k/Flicker8k_Dataset")
RESULTS = Path(__file__).with_suffix(".jsonl")
MERGES = 8000  # with which the rows of byte pairs were measured
LSTM = PARTS["lstm"] | {"dropout": 0.2}
TRANSFORMER = PARTS["transformer"] | {"dropout": 0.1}
STEPS = {"batch_size": 96, "learning_rate": 3e-3}
# Chapter 10: byte pairs (True) or words; the decoder; how it is trained.
TRANSLATORS = {
    "LSTM, one vector": (False, LSTM | {"fusion": "prefix"}, {"epochs": 6, **STEPS}),
    "LSTM, attention": (False, LSTM, {"epochs": 6, **STEPS}),
    "LSTM, attention, byte pairs": (True, LSTM, {"epochs": 6, **STEPS}),
    "Transformer, byte pairs": (True, TRANSFORMER, {"epochs": 16, **STEPS}),
}
LENGTHS = (1, 9, 12, 15, 19, 99)  # words of the source: the classes in which BLEU is measured
SIZE = 64  # pixels of the photographs
NUM_EXAMPLES = 12  # translations to keep, and alignments: the shortest with a verb at the end


def vocabularies(data: DataSet, byte_pairs: bool) -> dict[str, Vocabulary]:
    """Vocabularies of the translations ("target") and of the sources.

    With byte pairs it is one joint vocabulary; else two, of the words that occur twice.
    """
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
    """Settings of a translator, whose text encoder is of the decoder's kind.

    image: settings of an image encoder, for a translator that sees pictures as well.
    """
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
    """Train a translator; `folder` keeps the weights with the lowest validation loss.

    settings: of the model. data: for training and for validation. steps: of the training.
    cnn: its weights are those of the image encoder's backbone, frozen.
    """
    training, validation = data
    examples = (Examples(training, words), Examples(validation, words))
    frozen = ("encoders.image.backbone",) if cnn else ()
    config = TrainConfig(**steps, precision="float32", freeze=frozen)
    trainer = Trainer(sized(settings, words, examples), config, examples, folder)
    if cnn:
        backbone = trainer.model.encoders["image"].backbone
        load_matching(backbone, cnn.state_dict())  # without its classifier
    trainer.fit()
    return trainer


@torch.no_grad()
def perplexity(model: EncoderDecoder, examples: Examples) -> float:
    """exp of the mean loss per word, <eos> too; with byte pairs, a word's loss sums its pieces'."""
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(examples)), key=examples.lengths.__getitem__)
    total = 0.0
    for first in range(0, len(order), 100):
        batch = collate([examples[i] for i in order[first : first + 100]])
        loss, _ = model.loss(to_device(batch, device))
        total += loss.item()
    words = sum(len(translation) + 1 for (translation,) in examples.data.references)
    return math.exp(total / words)


def translator(name: str, folder: Path) -> dict:
    """One row of chapter 10's table."""
    byte_pairs, decoder, steps = TRANSLATORS[name]
    training = Multi30k(MULTI30K, "train")
    validation = Multi30k(MULTI30K, "validation")
    words = vocabularies(training, byte_pairs)
    start = time.monotonic()
    trainer = train(settings_of(decoder, words), words, (training, validation), steps, folder)
    seconds = round(time.monotonic() - start)
    model, _, _ = load_run(folder)
    greedy = generate(model, words, validation, max_length=64)
    beam = generate(model, words, validation, num_beams=5, max_length=64)
    sources = validation.columns["source"]
    alignments = []
    if decoder.get("fusion") != "prefix":
        for source, written in zip(sources, greedy):
            if source and written:
                alignments.append(word_alignment(model, words, source, written))
    score, low, high = bleu_interval(beam, validation.references)[-1]
    return {
        "BLEU": score,
        "low": low,
        "high": high,
        "greedy": bleu(greedy, validation.references).score,
        "perplexity": perplexity(model, trainer.validation),
        "by length": bleu_by_length(beam, validation),
        "parameters": sum(p.numel() for p in model.parameters()),
        "words": [len(words["target"]), len(words["source"])],
        "epochs": steps["epochs"],
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "jumps": jumps(alignments),
        "alignments": shortest_alignments(alignments),
        "examples": first_examples(beam, validation),
    }


def bleu_by_length(hypotheses: list[list[str]], data: DataSet) -> list[list]:
    """For each class of LENGTHS: its least and its greatest length, how many sentences, BLEU."""
    lengths = [len(source) for source in data.columns["source"]]
    rows = []
    for low, high in zip(LENGTHS, LENGTHS[1:]):
        chosen = [i for i, length in enumerate(lengths) if low <= length < high]
        texts = [hypotheses[i] for i in chosen]
        references = [data.references[i] for i in chosen]
        rows.append([low, high - 1, len(chosen), bleu(texts, references).score])
    return rows


def shortest_alignments(alignments: list[tuple]) -> list[dict]:
    """The shortest sentences with a verb at the end; their weights in percent."""
    kept = []
    for source, written, weights in alignments:
        if last_verbs(written):
            percents = (100 * weights).round().int().tolist()
            kept.append({"source": source, "written": written, "weights": percents})
    kept.sort(key=lambda row: len(row["source"]) + len(row["written"]))
    return kept[:NUM_EXAMPLES]


def first_examples(hypotheses: list[list[str]], data: DataSet) -> list[list[str]]:
    """The source, the reference and the translation of the first sentences."""
    rows = []
    for i in range(NUM_EXAMPLES):
        (reference,) = data.references[i]
        sentences = (data.columns["source"][i], reference, hypotheses[i])
        rows.append([" ".join(tokens) for tokens in sentences])
    return rows


def word_alignment(
    model: EncoderDecoder, words: dict[str, Vocabulary], source: list[str], written: list[str]
) -> tuple[list[str], list[str], Tensor]:
    """(source, written, weights): where each layer looks for each word that it writes.

    weights (layers, T, S). For a word of several pieces, it is the mean over the pieces that are
    written, and the sum over the pieces that are looked at.
    """
    weights = alignment(model, words, source, written)
    for tokens, vocabulary, combine in (
        (written, words["target"], torch.mean),
        (source, words["source"], torch.sum),
    ):
        ends = list(accumulate(len(vocabulary.encode([token])) for token in tokens))
        starts = [0, *ends]
        columns = [combine(weights[:, a:b], dim=1) for a, b in zip(starts, ends)]
        weights = torch.stack(columns, dim=1).transpose(1, 2)  # the other axis is next
    return source, written, weights


OPENING = set(
    "der die das dem den denen deren dessen während als wie wo um wobei dass damit wenn bevor "
    "nachdem weil".split()
)
PREFIXES = set(
    "ab an auf aus ein entlang herum herunter hinunter hoch um vor vorbei zu zurück".split()
)


def last_verbs(words: Sequence[str]) -> list[int]:
    """Positions of verbs that German puts at the end of a clause, by a rule that is mostly right.

    The last word of a clause that starts, after a comma, with a word such as "der", "während" or
    "um"; and the prefix that is split off a verb and put last ("bauen … auf").
    """
    ends = [t for t, word in enumerate([*words, "."]) if word in (",", ".")]
    starts = [-1, *ends]
    found = []
    for start, end in zip(starts, ends):
        clause = words[start + 1 : end]
        if len(clause) > 2:
            opened = start >= 0 and words[start] == "," and clause[0] in OPENING
            if opened or clause[-1] in PREFIXES:
                found.append(end - 1)
    return found


def jumps(alignments: list[tuple]) -> list[dict]:
    """For each layer: how the position with the most attention moves from word to word.

    "verbs", at the end of a clause, and "others": [words, jumps back, sum of all moves].
    """
    num_layers = len(alignments[0][2]) if alignments else 0
    layers = []
    for layer in range(num_layers):
        moves: dict[str, list[int]] = {"verbs": [], "others": []}
        for _, written, weights in alignments:
            positions = weights[layer].argmax(-1).tolist()  # (T)
            verbs = last_verbs(written)
            for t in range(1, len(positions)):
                kind = "verbs" if t in verbs else "others"
                moves[kind].append(positions[t] - positions[t - 1])
        counts = {}
        for kind, steps in moves.items():
            back = sum(step < 0 for step in steps)
            counts[kind] = [len(steps), back, sum(steps)]
        layers.append(counts)
    return layers


# ---------------------------------------------------------------------------------------------
# Chapter 11: with the photographs. Words to hide, and what their translations look like.

COLOURS = {
    "black": "schwarz", "white": "weiß", "red": "rot", "blue": "blau", "green": "grün",
    "yellow": "gelb", "orange": "orange", "purple": "lila|violett", "pink": "rosa|pink",
    "brown": "braun", "gray": "grau", "grey": "grau",
}  # fmt: skip
NOUNS = {
    "man": "mann", "men": "männern?", "woman": "frau", "women": "frauen", "boy": "jungen?",
    "boys": "jungen|jungs", "girl": "mädchen", "girls": "mädchen", "child": "kind",
    "children": "kindern?", "baby": "baby", "people": "leuten?|menschen|personen",
    "dog": "hund", "dogs": "hunden?", "horse": "pferd", "bird": "vogel", "ball": "ball",
    "water": "wasser", "snow": "schnee", "grass": "gras", "beach": "strand", "street": "straße",
    "field": "feld", "rock": "felsen?", "mountain": "berg", "car": "auto", "bike": "fahrrad",
    "bicycle": "fahrrad", "boat": "boot", "shirt": "hemd|t-shirt|oberteil|shirt",
    "hat": "hut|mütze", "jacket": "jacke", "dress": "kleid", "pool": "pool|schwimmbecken",
    "swing": "schaukel", "skateboard": "skateboard",
}  # fmt: skip
WITH_PHOTOGRAPHS, TEXT_ALONE = "with photographs", "text alone"
KINDS = {"nothing": {}, "colours": COLOURS, "noun": NOUNS}


def colour_of(token: str) -> str | None:
    """The colour that a German word names, whatever its ending: "rot" for "roten"."""
    stems = "|".join(COLOURS.values())
    match = re.fullmatch(rf"(?:hell|dunkel)?({stems})(?:e[rsnm]?|farbene[rsnm]?)?", token)
    return match and match[1]


class Hidden(Subset):
    """The sentences of a data set with words hidden, "a [v] dog": all colours, or one noun.

    For each of the `kinds`, those sentences that have such words. `rows[i]` is the index of
    sentence i in the other data set, and `nouns[i]` the noun that is hidden in it.
    """

    def __init__(self, data: DataSet, kinds: Sequence[str]):
        self.rows = []
        self.nouns = []
        sources = []
        for kind in kinds:
            for i, source in enumerate(data.columns["source"]):
                hidden = [t for t, token in enumerate(source) if token in KINDS[kind]]
                if kind == "noun" and hidden:
                    hidden = [hidden[i % len(hidden)]]
                if hidden or kind == "nothing":
                    self.rows.append(i)
                    self.nouns.append(source[hidden[0]] if kind == "noun" else None)
                    sources.append(mask_words(source, hidden))
        super().__init__(data, self.rows)
        self.columns["source"] = sources


def mask_words(source: Sequence[str], hidden: list[int]) -> list[str]:
    """The sentence with these positions masked; "an" before one becomes "a"."""
    masked = list(source)
    for t in hidden:
        masked[t] = MASKED
        if t > 0 and masked[t - 1] == "an":
            masked[t - 1] = "a"
    return masked


def with_photograph(split: str) -> Subset:
    """The pairs of Multi30k whose photographs are in Flickr8k."""
    data = Multi30k(MULTI30K, split, photographs=FLICKR8K, size=SIZE)
    keys = data.columns["image"].keys
    return Subset(data, [i for i, key in enumerate(keys) if key is not None])


def photograph_words(data: DataSet) -> tuple[Tensor, Tensor]:
    """Photographs (N, 3, S, S), and which colours and nouns their English sentences name (N, L)."""
    words = [*COLOURS, *NOUNS]
    images = torch.stack([data[i]["image"] for i in range(len(data))])
    labels = torch.tensor([[word in source for word in words] for source in data.columns["source"]])
    return images, labels


def other_pictures(data: DataSet) -> DataSet:
    """The same sentences, each with another one's picture, half of the data set away."""
    half = len(data) // 2
    others = [(i + half) % len(data) for i in range(len(data))]
    shuffled = data.without("image")
    shuffled.columns["image"] = LazyColumn(data.columns["image"].__getitem__, others)
    return shuffled


def with_hidden_words(has_images: bool, folder: Path) -> dict:
    """How well a model translates hidden words: with the right picture, with another, with none.

    has_images: whether it is trained with photographs; without, it sees none in the test either.
    """
    pairs = [with_photograph("train"), with_photograph("validation")]
    training, validation = pairs
    words = vocabularies(training, byte_pairs=False)
    cnn = None
    image = None
    if has_images:
        image = {"name": "resnet", "depth": (1, 1, 1), "image_size": SIZE, "num_layers": 1}
        cnn = ResNet((1, 1, 1), num_classes=len(COLOURS) + len(NOUNS), width=32)
        train_classifier(cnn, *photograph_words(training), epochs=8)
    else:
        pairs = [split.without("image") for split in pairs]
    data = tuple(Hidden(split, list(KINDS)) for split in pairs)
    steps = {"epochs": 8, "batch_size": 32, "learning_rate": 2e-3}
    train(settings_of(LSTM, words, image), words, data, steps, folder, cnn)
    model, _, _ = load_run(folder)
    scores = {}
    for kind in KINDS:
        data = Hidden(validation, [kind])
        ways = {"none": data.without("image")}
        if has_images:
            ways = {"right": data, "shuffled": other_pictures(data)} | ways
        for way, shown in ways.items():
            written = generate(model, words, shown, num_beams=5, max_length=64)
            scores[f"{kind}, {way}"] = score_hidden(kind, data, written)
    parameters = sum(p.numel() for p in model.parameters())
    return {"pairs": [len(training), len(validation)], "parameters": parameters, **scores}


def score_hidden(kind: str, data: Hidden, written: list[list[str]]) -> dict:
    """BLEU, and how many hidden words are right; if nothing is hidden, how many colours."""
    if kind == "noun":
        right = []
        for noun, (reference,), text in zip(data.nouns, data.references, written):
            form = NOUNS[noun]
            if any(re.fullmatch(form, token) for token in reference):
                right.append(any(re.fullmatch(form, token) for token in text))
    else:
        right = aligned_accuracy(written, data.references, colour_of)
    score = bleu_interval(written, data.references)[-1]
    return {"sentences": len(data), "BLEU": score, "right": sum(right), "of": len(right)}


def results() -> list[dict]:
    """The rows of multi30k.jsonl; none if it does not exist."""
    return read_rows(RESULTS)


def measure(name: str) -> dict:
    """One of the measurements, on one core."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        if name in TRANSLATORS:
            row = translator(name, Path(folder))
        else:
            row = with_hidden_words(name == WITH_PHOTOGRAPHS, Path(folder))
    return {"name": name} | row


def main() -> None:
    """Measure what is missing, one measurement per core at a time."""
    names = list(TRANSLATORS)
    if FLICKR8K.exists():
        names += [WITH_PHOTOGRAPHS, TEXT_ALONE]
    done = {row["name"] for row in results()}
    missing = [name for name in names if name not in done]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for future in as_completed([pool.submit(measure, name) for name in missing]):
            print(str(future.result())[:300], flush=True)
            add_row(RESULTS, future.result())


if __name__ == "__main__":
    main()
