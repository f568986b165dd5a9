"""How well do the models of chapter 14 hear?

    python -m chapters.measured.sound            adds what chapters/measured/sound.jsonl lacks
    python -m chapters.measured.sound NAME …     measures only these
    torchrun --nproc_per_node=2 -m chapters.measured.sound speech      trains one on two cores

It needs data/fsdd (python -m data_scripts.fsdd) and runs/quickstart. With OMP_NUM_THREADS=1, two
can run side by side.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from chapters.measured import by_kind, by_name, measure_missing, percent, train
from chapters.measured.retrieval import search_scores
from mmscratch.attention import Memory
from mmscratch.batches import BucketSampler, Examples, collate, inputs_of, make_loader
from mmscratch.data.answers import SceneQuestions
from mmscratch.data.dataset import DataSet
from mmscratch.data.sounds import list_recordings
from mmscratch.data.speech import SpokenCaptions, spoken_column
from mmscratch.decoding import generate
from mmscratch.engine import distributed
from mmscratch.finetuning import load_run, prepare_for_finetuning, save_run
from mmscratch.metrics import pair_accuracy, transcript_scores, vqa_accuracy
from mmscratch.model import EncoderDecoder, ModelConfig, build_model
from mmscratch.tasks.answering import Answering
from mmscratch.tasks.controls import answers_of
from mmscratch.tasks.retrieval import Retrieval
from mmscratch.tasks.spoken import LISTENER
from mmscratch.tasks.task import Task, load
from mmscratch.tasks.train import model_settings
from mmscratch.tasks.transcription import TEST_UTTERANCES, UTTERANCES, Transcription
from mmscratch.text import detokenize
from mmscratch.training import warmup_and_cosine

RESULTS = Path(__file__).with_suffix(".jsonl")
RUNS = Path("runs/sound-measured")
QUICKSTART = Path("runs/quickstart")
FSDD = Path("data/fsdd")
SPEECH = {"layout": "speech", "data": "speech", "utterances": UTTERANCES, "held-out": None}
SCENES = {"layout": "scenes", "data": "scenes"}


def speech(name: str) -> dict:
    """Word error rates on unheard voices, and on voices that training has heard."""
    task = Transcription()
    row = _train(task, SPEECH, name)
    if distributed.rank() == 0:
        row["unheard voices"] = _error_rates(name, SpokenCaptions("test", TEST_UTTERANCES))
        heard = SpokenCaptions("test", TEST_UTTERANCES, voices_of="train")
        row["voices of the training set"] = _error_rates(name, heard)
    return row


def digits(name: str) -> dict:
    """The accuracy of spoken digits: split by number of the recording, or one speaker held out."""
    task = Transcription()
    _, _, held_out = name.partition(", without ")
    metadata = {"layout": "fsdd", "data": str(FSDD), "held-out": held_out}
    row = _train(task, metadata, name)
    if distributed.rank() == 0:
        data = task.read(metadata, "test", 0)
        row["accuracy"] = percent(_right(name, data))
    return row


def imitation(name: str) -> dict:
    """Teach an encoder of sounds what a reader makes of the same question, without any picture.

    The loss is the squared distance between the mean vectors of the two memories: the vector that
    steers the eyes. The encoder starts from that of the transcriber. The row says how far apart
    they are in the end, as a fraction of the variance over questions.
    """
    written, vocabularies, checkpoint = load_run(_folder("written questions"))
    reader = written.encoders["source"]
    config = ModelConfig(**checkpoint["model_config"])
    config = replace(config, encoders={"sound": dict(LISTENER)}, joint_vocabulary=False)
    torch.manual_seed(0)
    model = build_model(config)
    prepare_for_finetuning(model, vocabularies, str(_folder("speech")))
    start = time.monotonic()
    data = SceneQuestions("train", HEARD // 2, size=0)
    data.columns["sound"] = spoken_column(data.questions, "train")
    examples = Examples(data, vocabularies)
    loader = make_loader(examples, BucketSampler(examples.sizes, 16), workers=1)
    optimizer = torch.optim.AdamW(model.encoders.parameters(), 2e-3, weight_decay=0.05)
    factor = partial(warmup_and_cosine, steps=len(loader), warmup_fraction=0.05)
    schedule = LambdaLR(optimizer, factor)
    model.train()
    for batch in loader:
        heard, read = _mean_vectors(model.encoders["sound"], reader, batch)
        loss = (heard - read).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.encoders.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    save_run(_folder(name), model, config, {"target": vocabularies["target"]}, {"task": name})
    row = {"seconds": round(time.monotonic() - start), "examples": len(examples)}
    return row | {"distance": round(_distance(model.eval(), reader, vocabularies), 3)}


@torch.no_grad()
def _distance(model: EncoderDecoder, reader: nn.Module, vocabularies: dict) -> float:
    """The mean squared distance on new questions and voices, divided by the questions' variance."""
    data = SceneQuestions("validation", 300, size=0)
    data.columns["sound"] = spoken_column(data.questions, "validation")
    examples = Examples(data, vocabularies)
    batch = collate([examples[i] for i in range(len(examples))])
    heard, read = _mean_vectors(model.encoders["sound"], reader, batch)
    return ((heard - read).square().sum() / (read - read.mean(0)).square().sum()).item()


def _mean_vectors(hearing: nn.Module, reader: nn.Module, batch: dict) -> tuple[Tensor, Tensor]:
    """The mean of a memory of each question, as `EncoderDecoder` uses it, heard and read: (B, D)."""
    with torch.autocast("cpu", torch.bfloat16):
        heard = hearing(*inputs_of(batch, "sound"))
    with torch.no_grad():
        read = reader(*inputs_of(batch, "source"))
    vectors = []
    for memory in (heard, read):
        tokens = memory.tokens.float()
        vectors.append(Memory(F.layer_norm(tokens, tokens.shape[-1:]), memory.mask).mean())
    return tuple(vectors)


def questions(name: str) -> dict:
    """The accuracy of answers to questions that are read, or heard from unheard voices."""
    task = Answering()
    metadata = SCENES | {"spoken": name.startswith("spoken")}
    bases = [QUICKSTART]
    options = {"freeze": task.freezes}
    if metadata["spoken"]:
        metadata["pairs"] = PAIRS
        bases = [_folder("written questions"), _folder("imitation")]
        options["learning_rate"] = 6e-4  # half of the default: the ears need little more
    row = _train(task, metadata, name, bases, **options)
    if distributed.rank() == 0:
        data = task.read(metadata, "test", 64)
        scores = _right(name, data)
        row["accuracy"] = percent(scores)
        row["pairs"] = percent(pair_accuracy(scores, data.pairs).scores)
        kinds = by_kind(scores, data.kinds)
        row["kinds"] = {kind: percent(each)[0] for kind, each in kinds.items()}
    return row


def captions(name: str) -> dict:
    """Recall of pictures by spoken captions, among 1,000."""
    task = Retrieval()
    metadata = SCENES | {"scenes": CAPTIONS, "spoken": True}
    row = _train(task, metadata, name, [QUICKSTART, _folder("speech")])
    if distributed.rank() == 0:
        row |= search_scores(_folder(name), task.read(metadata, "test", 64))
    return row


PAIRS = 40_000
HEARD = 120_000  # questions to imitate
CAPTIONS = 30_000
MEASURES = {
    "speech": speech,
    "FSDD": digits,
    "spoken captions": captions,
    "written questions": questions,
    "imitation": imitation,
    "spoken questions": questions,
}


def _folder(name: str) -> Path:
    return RUNS / name.replace(" ", "-").replace(",", "")


def _train(task: Task, metadata: dict, name: str, bases: Sequence[Path] = (), **options) -> dict:
    """Train a run, from parts of others."""
    metadata = {"task": task.name} | metadata
    checkpoint = None
    if bases:
        checkpoint = load(bases[0])[2]
        options["start_from"] = ",".join(map(str, bases))
    settings = model_settings(task, metadata, {}, checkpoint)
    return train(task, metadata, settings, _folder(name), **options)


def _error_rates(name: str, data: DataSet) -> dict:
    """WER and CER in %, each with its interval."""
    model, vocabularies, _ = load_run(_folder(name))
    hypotheses = generate(model, vocabularies, data)
    rates = transcript_scores(hypotheses, data.references)
    return {kind: [round(100 * value, 2) for value in rate] for kind, rate in rates.items()}


def _right(name: str, data: DataSet) -> list[float]:
    """1 for each right answer, else 0."""
    model, vocabularies, _ = load_run(_folder(name))
    answers = [detokenize(words) for words in generate(model, vocabularies, data)]
    return vqa_accuracy(answers, answers_of(data)).scores


def results() -> dict[str, dict]:
    """The measurements so far, by name."""
    return by_name(RESULTS)


def main(names: list[str]) -> None:
    """Measure these, or what is missing."""
    measures = dict(MEASURES)
    if FSDD.exists():
        speakers = sorted({recording.speaker for recording in list_recordings(FSDD, [])})
        for speaker in speakers:
            measures[f"FSDD, without {speaker}"] = digits
    measure_missing(RESULTS, names, measures, lambda name: measures[name](name))


if __name__ == "__main__":
    main(sys.argv[1:])
