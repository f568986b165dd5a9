"""The command line: python -m mmscratch quickstart | train | evaluate | caption | translate | score | doctor"""

import argparse
import importlib
import json
import os
import platform
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

SCENES, VALIDATION_SCENES, TEST_SCENES = 100_000, 300, 1000  # of quickstart and of a translator of scenes
SCENES_WORD = Path("scenes")  # as --data of a translator: the drawn scenes
BEST = {"decoder": "lstm", "fusion": "cross_attention"}  # of the four that quickstart can train
LAYERS = {"lstm": 1, "transformer": 2}
# Of Multi30k: the tiny Transformer of Wu et al. 2021 ("Good for misconceived reasons"), with less dropout.
TRANSLATOR = {
    "decoder": "transformer", "fusion": "cross_attention", "embed_dim": 128, "feedforward_size": 256, "num_layers": 4,
    "source_layers": 4, "dropout": 0.1,
}  # fmt: skip
MERGES = 8000
CNN_SCENES = 30_000  # that teach the CNN with which a translator of scenes sees
EPOCHS_BATCH_AND_RATE = {"captioning": (8, 64, 2e-3), "translation": (16, 96, 3e-3), "translation of scenes": (1, 32, 3e-3)}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 if all is well, 2 after an error, 130 after Ctrl-C."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    try:
        return args.command(args) or 0
    except KeyboardInterrupt as stop:
        print(f"\n{stop or 'stopped'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        print(f"error: {error}: python -m pip install -r requirements.txt", file=sys.stderr)
        return 2
    except (ValueError, OSError, MemoryError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mmscratch", description="Models that look at a picture and write.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, function, text):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    def model(sub):
        sub.add_argument("--decoder", choices=tuple(LAYERS), help=f"what writes the sentence (default: {BEST['decoder']})")
        sub.add_argument("--fusion", choices=("cross_attention", "prefix"),
                         help=f"look at the picture for every word, or once at the start (default: {BEST['fusion']})")  # fmt: skip

    def loop(sub):
        sub.add_argument("--precision", choices=("auto", "float32", "bfloat16", "float16"), default="auto",
                         help="number format (default: the fastest here)")  # fmt: skip
        sub.add_argument("--compile", action="store_true", help="use torch.compile: slow at first, then faster on a GPU")
        sub.add_argument("--profile", action="store_true", help="show where the time of a step goes, and keep a trace")

    def beams(sub):
        sub.add_argument("--beams", type=int, default=1, metavar="N",
                         help="beginnings kept side by side while searching the best sentence (default: 1, greedy)")  # fmt: skip

    def data(sub, required):
        sub.add_argument("--data", type=Path, required=required, metavar="DIR", help="folder with pictures and captions")
        sub.add_argument("--layout", choices=("folder", "flickr8k"), default="folder",
                         help="folder: pictures and a captions.csv, .tsv, .json or .jsonl; flickr8k: its official files")  # fmt: skip

    sub = command("quickstart", quickstart, "Train a captioner on drawn scenes, in minutes, and show what it writes.")
    model(sub)
    sub.add_argument("--scenes", type=int, default=SCENES, help="pictures to train on (default: %(default)s)")
    sub.add_argument("--to", type=Path, dest="run", metavar="DIR", help="where to keep it (default: runs/quickstart)")
    loop(sub)

    sub = command("train", train, "Train a captioner, or a translator, on your data. Stopped and started again, it goes on.")
    data(sub, required=True)
    model(sub)
    sub.add_argument("--task", choices=("captioning", "translation"), default="captioning",
                     help="translation: --data is Multi30k in its official layout, or the word scenes (default: %(default)s)")  # fmt: skip
    sub.add_argument("--source", default="en", metavar="LANGUAGE", help="translate from it (default: %(default)s)")
    sub.add_argument("--target", default="de", metavar="LANGUAGE", help="translate into it (default: %(default)s)")
    sub.add_argument("--photographs", type=Path, metavar="DIR",
                     help="those of Multi30k's sentences: Flickr30k's pictures, or Flickr8k's, which are some of them")  # fmt: skip
    sub.add_argument("--to", type=Path, dest="run", metavar="DIR", help="where to keep it (default: runs/ and the folder's name)")
    sub.add_argument("--from", type=Path, dest="start_from", metavar="RUN",
                     help="begin with the model of this run, such as runs/quickstart, instead of random weights; or with "
                     "the CNN that torchvision publishes as resnet18, resnet50, vgg11_bn, …")  # fmt: skip
    sub.add_argument("--freeze", action="append", default=[], metavar="PATTERN",
                     help="do not train what is called so, such as encoders.image.backbone; may be given several times")  # fmt: skip
    sub.add_argument("--lora", type=int, default=0, metavar="RANK",
                     help="train, instead of the decoder's weights, a small change of this rank; the rest is frozen")  # fmt: skip
    sub.add_argument("--image-size", type=int, metavar="PIXELS", help="default: 64")
    sub.add_argument("--epochs", type=int, help="times to see every caption or sentence (default: 8; of Multi30k 16, of scenes 1)")
    sub.add_argument("--batch-size", type=int,
                     help="captions or sentences a step, of all processes (default: 64; of Multi30k 96, of drawn sentences 32)")  # fmt: skip
    sub.add_argument("--accumulate", type=int, default=1, metavar="PARTS",
                     help="compute a step in so many parts, with less memory (default: %(default)s)")  # fmt: skip
    sub.add_argument("--learning-rate", type=float, help="at its peak (default: 0.002; of translations 0.003; with --lora 0.01)")
    sub.add_argument("--workers", type=int, metavar="N", help="processes that load data (default: by the machine)")
    loop(sub)
    sub.add_argument("--seed", type=int, default=0, help="another seed, another model (default: %(default)s)")

    sub = command("evaluate", evaluate, "Caption held-out pictures and compare with what people wrote.")
    sub.add_argument("run", type=Path, metavar="RUN", help="folder of a trained model, such as runs/quickstart")
    data(sub, required=False)
    sub.add_argument("--split", help="train, validation or test (default: validation; for drawn scenes: test)")
    beams(sub)

    sub = command("caption", caption, "Write a caption for each picture.")
    sub.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="picture files, or folders of them")
    sub.add_argument("--run", type=Path, default=Path("runs/quickstart"), metavar="DIR", help="default: %(default)s")
    beams(sub)

    sub = command("score", score, "Score sentences in a text file against references in others: BLEU, ROUGE-L and CIDEr-D.")
    sub.add_argument("hypotheses", type=Path, metavar="HYPOTHESES", help="what was written, a sentence a line")
    sub.add_argument("references", type=Path, nargs="+", metavar="REFERENCES",
                     help="a reference for each, in the same line; in a second file another one, or an empty line")  # fmt: skip
    sub.add_argument("--tokenize", choices=("caption", "words", "none"), default="caption",
                     help="caption: as the COCO evaluation, without punctuation; words: with it, lower case; none: the "
                          "text is tokenized, with spaces between the tokens (default: %(default)s)")  # fmt: skip

    sub = command("translate", translate, "Translate a sentence, with a picture beside it or without.")
    sub.add_argument("sentences", nargs="*", metavar="SENTENCE", help="none: those of the standard input, one a line")
    sub.add_argument("--run", type=Path, default=Path("runs/scenes"), metavar="DIR", help="default: %(default)s")
    sub.add_argument("--image", type=Path, metavar="PICTURE", help="what the sentences speak of; [v] stands for what it shows")
    beams(sub)

    command("doctor", doctor, "Say what this machine has, and what is wrong, if anything.")
    return parser


# The modules are imported where they are used, so that --help is quick, and doctor works where torch does not.


def quickstart(args) -> None:
    from .batches import CaptionPairs
    from .data.captions import SceneCaptions
    from .data.scenes import SPLITS, Scene, render
    from .engine import distributed
    from .model import ModelConfig
    from .text import Vocabulary
    from .training import TrainConfig, Trainer

    start = time.monotonic()
    distributed.start()
    if args.scenes < 1:
        raise ValueError(f"--scenes is a number of pictures to train on, not {args.scenes}")
    chosen = BEST | _given(decoder=args.decoder, fusion=args.fusion)
    folder = args.run or Path("runs/quickstart" if chosen == BEST else f"runs/quickstart-{'-'.join(chosen.values())}")
    print(f"drawing {args.scenes:,} scenes to train on; each is shown once, with one of its captions", flush=True)
    training = SceneCaptions("train", args.scenes, one_each=True)
    validation = SceneCaptions("validation", VALIDATION_SCENES)
    vocabulary = Vocabulary.build(c for data in (training, validation) for captions in data.references for c in captions)
    trainer = Trainer(
        ModelConfig(len(vocabulary), encoder_layers=1, num_layers=LAYERS[chosen["decoder"]], **chosen),
        # No bucketing: the length of a scene's caption tells how many things there are, so bucketed batches would be all
        # alike, and batch norm would learn to rely on that (after 40,000 scenes: 56 % true with it, 70 without).
        TrainConfig(batch_size=96, learning_rate=3e-3, pool=1, evaluate_every=500, **_loop(args)),
        CaptionPairs(training, vocabulary),
        CaptionPairs(validation, vocabulary),
        folder,
        facts={"data": "scenes"},
    )
    if not _fit(trainer, args.profile):
        return
    test = SceneCaptions("test", TEST_SCENES)
    written = _evaluate(folder, test, "test")
    if chosen != {"decoder": "lstm", "fusion": "prefix"}:  # which looks once, before the first word
        _show_attention(folder, test, written)

    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for i in range(8):
        render(Scene(SPLITS["test"] + TEST_SCENES + i), 256).save(pictures / f"scene{i}.png")
    print(f"\n{time.monotonic() - start:.0f} seconds. Look at {folder / 'captions-test.png'}, then try")
    print(f"  python -m mmscratch caption {shlex.quote(str(pictures))} --run {shlex.quote(str(folder))}")


def train(args) -> None:
    from .batches import CaptionPairs
    from .data.captions import LAYOUTS
    from .engine import distributed
    from .model import ModelConfig
    from .text import SPECIALS, Vocabulary
    from .training import TrainConfig, Trainer

    kind = args.task + (" of scenes" if args.task == "translation" and args.data == SCENES_WORD else "")
    epochs, batch_size, rate = EPOCHS_BATCH_AND_RATE[kind]
    defaults = {"epochs": epochs, "batch_size": batch_size, "learning_rate": 1e-2 if args.lora else rate}
    vars(args).update({name: value for name, value in defaults.items() if getattr(args, name) is None})
    least_values = {"image_size": 1, "epochs": 1, "batch_size": 1, "accumulate": 1, "learning_rate": 1e-9, "workers": 0, "lora": 0}
    for name, least in least_values.items():
        if getattr(args, name) is not None and not getattr(args, name) >= least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(args, name)}")
    distributed.start()
    if args.task == "translation":
        return _train_translator(args)
    folder = args.run or Path("runs", args.data.resolve().name)
    given = _given(decoder=args.decoder, fusion=args.fusion, image_size=args.image_size)
    published = re.fullmatch(r"(resnet)(\d+)|(vgg)(\d+)_bn", str(args.start_from))
    config, known = {"image_size": 64, "max_length": ModelConfig.max_length} | BEST | given, []
    if published:
        backbone, depth = filter(None, published.groups())
        config |= {"backbone": backbone, "depth": int(depth), "width": 64}
    elif args.start_from:
        base, saved = _load_as_first(args, given)
        config, known = saved["model_config"], base.words[len(SPECIALS) :]
    layout = LAYOUTS[args.layout]
    with distributed.main_first():  # the others find the pictures decoded
        training = layout(args.data, "train", config["image_size"])
        validation = layout(args.data, "validation", config["image_size"])
    for split, data in (("train", training), ("validation", validation)):
        _report(data, split, folder if distributed.rank() == 0 else None)
    sentences = [caption for captions in training.references for caption in captions]
    # a word that stands in one caption only cannot be learned; but of few captions, most words stand in one only
    vocabulary = Vocabulary.build(sentences, min_freq=2 if len(sentences) > 1000 else 1)
    if known:  # what the model could say, it still can
        vocabulary = Vocabulary([*known, *(word for word in vocabulary.words[len(SPECIALS) :] if word not in base.index)])
    pairs = CaptionPairs(training, vocabulary, augmented=True, seed=args.seed)
    held_out = CaptionPairs(validation, vocabulary)
    trainer = Trainer(
        ModelConfig(**{"num_layers": LAYERS[config["decoder"]]} | config | {
            "vocab_size": len(vocabulary),
            "max_length": max(config["max_length"], *pairs.lengths, *held_out.lengths),
            "dropout": 0.3,
        }),
        TrainConfig(**_steps(args)),
        pairs,
        held_out,
        folder,
        facts={"data": str(args.data.resolve()), "layout": args.layout},
    )
    if trainer.rank == 0 and (args.start_from or args.freeze):
        _print_parts(trainer.model)
    if not _fit(trainer, args.profile):
        return
    _evaluate(folder, validation, "validation")
    print(f"\nLook at {folder / 'captions-validation.png'}, then try")
    print(f"  python -m mmscratch caption PICTURE --run {shlex.quote(str(folder))}")


def _train_translator(args) -> None:
    from .batches import CaptionPairs
    from .engine import distributed
    from .finetuning import vocabularies
    from .model import ModelConfig
    from .pretraining import pretrained_cnn
    from .text import BytePairEncoding
    from .training import TrainConfig, Trainer
    from .weights import load_fitting

    scenes = args.data == SCENES_WORD
    folder = args.run or Path("runs", args.data.resolve().name)
    facts = {"task": "translation", "data": "scenes" if scenes else str(args.data.resolve())}
    photographs = str(args.photographs.resolve()) if args.photographs else ""
    facts |= {"source": args.source, "target": args.target, "photographs": photographs}
    given = _given(decoder=args.decoder, fusion=args.fusion, image_size=args.image_size)
    if args.start_from:
        vocabulary, saved = _load_as_first(args, given)
        config, source_vocabulary = saved["model_config"], vocabularies(saved)[1]
    else:
        config = {"image_size": 64, "joint_vocabulary": True, "modality_dropout": 0.3, "encoder_layers": 1}
        config |= {"backbone": "resnet" if scenes or photographs else "", **(BEST if scenes else TRANSLATOR), **given}
    cnn = None
    if scenes and not args.start_from:  # from a CNN that sees nothing yet, nothing is learned beside a sentence
        with distributed.main_first():
            cnn = pretrained_cnn(Path("runs/cnn.pt"), CNN_SCENES)
        config |= {"depth": (1, 1, 1), "width": 32}
        args.freeze.append("encoders.image.backbone")
    with distributed.main_first():
        training, validation = (_translations(facts, split, config["image_size"]) for split in ("train", "validation"))
    for split, data in (("train", training), ("validation", validation)):
        _report(data, split, folder if distributed.rank() == 0 else None)
    sees = training.pictured is None or any(training.pictured)
    if photographs and not sees:
        raise ValueError(f"{args.photographs} has none of the photographs that the sentences speak of")
    if config["backbone"] and not sees:
        args.freeze.append("encoders.image")  # there is nothing to learn for it
    if not args.start_from:
        both = [*training.sources, *(translation for (translation,) in training.references)]
        vocabulary = source_vocabulary = BytePairEncoding.learn(both, MERGES)
    pairs, held_out = (CaptionPairs(data, vocabulary, not scenes, args.seed, source_vocabulary) for data in (training, validation))
    trainer = Trainer(
        ModelConfig(**config | {
            "vocab_size": len(vocabulary),
            "source_vocab_size": len(source_vocabulary),
            "max_length": max(config.get("max_length", ModelConfig.max_length), *pairs.lengths, *held_out.lengths),
        }),
        TrainConfig(label_smoothing=0.1, pool=1 if scenes else TrainConfig.pool, **_steps(args)),
        pairs,
        held_out,
        folder,
        facts=facts,
    )
    if cnn:
        load_fitting(trainer.model.encoders["image"].backbone, cnn.state_dict())  # without its classifier
    if trainer.rank == 0 and (args.start_from or args.freeze):
        _print_parts(trainer.model)
    if not _fit(trainer, args.profile):
        return
    _evaluate_translator(folder, validation, "validation")
    example = " ".join(validation.sources[0])
    print(f"\nTry\n  python -m mmscratch translate {shlex.quote(example)} --run {shlex.quote(str(folder))}")


def _translations(facts: dict, split: str, size: int, data: Path | None = None):
    """The sentences that a translator learns from, or is measured on."""
    from .data.translations import Multi30k, SceneTranslation

    languages = facts["source"], facts["target"]
    if (data or Path(facts["data"])) != SCENES_WORD:
        return Multi30k(data or facts["data"], split, *languages, facts["photographs"] or None, size)
    return SceneTranslation(split, SCENES if split == "train" else TEST_SCENES, *languages, size, "some")


def _evaluate_translator(run: Path, data, split: str, beams: int = 1) -> None:
    """Translate the sentences, print how good that is, with pictures and without, and keep what was written."""
    from functools import partial

    from .data.language import colour_of
    from .decoding import write_translations
    from .finetuning import vocabularies
    from .metrics import bleu_estimates, exact_match, words_right
    from .text import detokenize

    model, vocabulary, saved = _load(run)
    translate = partial(
        write_translations, model, vocabulary, vocabularies(saved)[1], data.sources, num_beams=beams,
        max_length=saved["model_config"]["max_length"],
    )  # fmt: skip
    print(f"\n{run}, {len(data):,} sentences of the {split} split; in brackets, what 95 % of a thousand resamples give")
    sees = "image" in model.encoders and (data.pictured is None or any(data.pictured))
    there = data.pictured or [True] * len(data)
    ways = {"with pictures": lambda i: data.picture(i) if there[i] else None, "without": None} if sees else {"": None}
    for way, picture in ways.items():
        written = translate(picture)
        score, low, high = bleu_estimates(written, data.references)[-1]
        exact = 100 * exact_match(written, data.references)
        print(f"  {way:14} BLEU {score:.1f}  ({low:.1f} to {high:.1f}); exactly the reference {_share(exact, len(data))}", end="")
        if hasattr(data, "scenes"):
            right = words_right(written, data.references, partial(colour_of, language=saved["facts"]["target"]))
            print(f"; colours right {_share(100 * sum(right) / len(right), len(right))}", end="")
        print()
        name = "-".join(filter(None, ("translations", split, way.replace(" ", "-"))))
        with (run / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for source, tokens, (reference,) in zip(data.sources, written, data.captions):
                entry = {"source": detokenize(source), "translation": detokenize(tokens), "reference": reference}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def translate(args) -> None:
    from .decoding import write_translations
    from .finetuning import vocabularies
    from .images import open_image, to_tensor
    from .text import detokenize, tokenize

    model, vocabulary, saved = _load(args.run)
    source_vocabulary = vocabularies(saved)[1]
    if source_vocabulary is None:
        raise ValueError(f"{args.run} is not a translator: python -m mmscratch train --task translation makes one")
    picture = None
    if args.image:
        if "image" not in model.encoders:
            raise ValueError(f"{args.run} translates without pictures: leave out --image")
        picture = to_tensor(open_image(args.image), saved["model_config"]["image_size"])
    longest = saved["model_config"]["max_length"]
    for sentence in args.sentences or map(str.strip, sys.stdin):
        if not sentence.strip():
            print(flush=True)
            continue
        (tokens,) = write_translations(
            model, vocabulary, source_vocabulary, [tokenize(sentence)], lambda _: picture, 1, longest, args.beams
        )
        print(*detokenize(tokens).split(), flush=True)  # on one line, whatever bytes a model that has learned little writes


def evaluate(args) -> None:
    from .data.captions import LAYOUTS, SceneCaptions

    _, _, saved = _load(args.run)
    facts, size = saved["facts"], saved["model_config"]["image_size"]
    if facts.get("task") == "translation":
        split = args.split or "validation"
        return _evaluate_translator(args.run, _translations(facts, split, size, args.data), split, args.beams)
    if args.data is None and facts["data"] == "scenes":
        split = args.split or "test"
        data = SceneCaptions(split, TEST_SCENES, size=size)
    else:
        split = args.split or "validation"
        data = LAYOUTS[args.layout if args.data else facts["layout"]](args.data or facts["data"], split, size)
        _report(data, split, args.run)
    _evaluate(args.run, data, split, args.beams)


def caption(args) -> int:
    from .data.photographs import PICTURE_SUFFIXES
    from .decoding import write_captions
    from .images import open_image, to_tensor
    from .text import detokenize

    model, vocabulary, saved = _load(args.run)
    if saved["facts"].get("task") == "translation":
        raise ValueError(f"{args.run} is a translator, which needs a sentence: python -m mmscratch translate SENTENCE --image PICTURE")
    paths = []
    for path in args.pictures:
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path}: no pictures in this folder")
        paths += inside
    failed = 0
    for path in paths:
        try:
            picture = to_tensor(open_image(path), saved["model_config"]["image_size"])
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            failed = 2
            continue
        print(f"{path}: {detokenize(write_captions(model, vocabulary, [picture], num_beams=args.beams)[0])}", flush=True)
    return failed


def score(args) -> None:
    from .data.translations import read_lines
    from .metrics import caption_tokenize
    from .text import tokenize

    split = {"caption": caption_tokenize, "words": tokenize, "none": str.split}[args.tokenize]
    hypotheses, *columns = map(read_lines, (args.hypotheses, *args.references))
    for path, column in zip(args.references, columns):
        if len(column) != len(hypotheses):
            raise ValueError(f"{args.hypotheses} has {len(hypotheses):,} lines, but {path} {len(column):,}")
    references = [[split(line) for line in lines if line.strip()] for lines in zip(*columns)]
    if [] in references:
        raise ValueError(f"line {references.index([]) + 1} has no reference: it is empty in {', '.join(map(str, args.references))}")
    print(f"{args.hypotheses}, {len(hypotheses):,} sentences; in brackets, what 95 % of a thousand resamples give")
    _print_scores(list(map(split, hypotheses)), references)


def doctor(args) -> int:
    problems = []
    print(f"Python       {platform.python_version()} on {platform.system()} {platform.machine()}")
    if sys.version_info < (3, 10):
        problems.append("Python 3.10 or newer is needed")
    print(f"cores        {os.cpu_count()}")
    if hasattr(os, "sysconf"):
        print(f"memory       {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB")
    for name in ("torch", "torchvision", "numpy", "PIL", "matplotlib", "pytest"):
        try:
            module = importlib.import_module(name)
            print(f"{name:12} {module.__version__}")
        except Exception as error:  # whatever keeps a package from being imported is what doctor is asked about
            print(f"{name:12} -")
            problems.append(f"{name} cannot be imported ({error}): python -m pip install -r requirements.txt")
    if not problems:
        import torch

        from .engine.devices import pick_device

        device = pick_device()
        print(f"device       {torch.cuda.get_device_name() if device.type == 'cuda' else device}")
        if device.type == "cpu" and shutil.which("nvidia-smi"):
            problems.append("there is an NVIDIA driver, but this torch finds no GPU: see pytorch.org for one that fits it")
    try:
        Path("runs").mkdir(exist_ok=True)
        Path("runs/.doctor").touch()
        Path("runs/.doctor").unlink()
    except OSError as error:
        problems.append(f"the folder runs/ cannot be written to: {error}")
    print("\n".join(f"wrong        {problem}" for problem in problems) or "nothing is wrong")
    return 2 if problems else 0


def _load(run: Path):
    from .finetuning import load_run

    if not (run / "best.pt").exists():
        first = "python -m mmscratch quickstart" if run == Path("runs/quickstart") else "python -m mmscratch train"
        raise FileNotFoundError(f"{run} holds no trained model: run {first} first, or name another run")
    return load_run(run)


def _load_as_first(args, given: dict):
    """The vocabulary and the checkpoint of the run that a training begins with, if it is of the same task and sizes."""
    _, vocabulary, saved = _load(args.start_from)
    task = saved["facts"].get("task", "captioning")
    for name, value in {"task": args.task, **given}.items():
        there = task if name == "task" else saved["model_config"][name]
        if there != value:
            raise ValueError(f"--{name.replace('_', '-')} is {there} in {args.start_from}, and cannot become {value}")
    return vocabulary, saved


def _given(**options) -> dict:
    """Those that were given on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def _print_parts(model) -> None:
    """What is trained of a model, and what is frozen."""
    from .finetuning import trained_parts

    parts = trained_parts(model)
    parts.append(("all", sum(part[1] for part in parts), sum(part[2] for part in parts)))
    width = max(len(part) for part, _, _ in parts)
    print(f"{'part':{width}}  parameters   trained")
    for part, count, trained in parts:
        print(f"{part:{width}}  {count:10,}  {100 * trained / count:6.1f} %")


def _steps(args) -> dict:
    """The settings of a training that `train` offers."""
    return {
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "accumulate": args.accumulate,
        "learning_rate": args.learning_rate,
        "seed": args.seed,
        "workers": args.workers,
        "start_from": str(args.start_from or ""),
        "freeze": tuple(args.freeze),
        "lora": args.lora,
        **_loop(args),
    }


def _loop(args) -> dict:
    """The settings of the loop that every training command has."""
    return {"precision": args.precision, "compile": args.compile}


def _fit(trainer, profile: bool) -> bool:
    """Train, in all processes; what follows is for the first alone."""
    from .engine import distributed
    from .plots import learning_curves

    trainer.fit(profile)
    distributed.finish()
    if trainer.rank == 0:
        learning_curves(trainer.folder / "metrics.jsonl").savefig(trainer.folder / "learning_curves.png")
    return trainer.rank == 0


def _report(data, split: str, folder: Path | None) -> None:
    """Say what was read, and what was skipped; and keep it in the folder."""
    captions = sum(len(refs) for refs in data.references)
    what = f"{len(data):,} pictures with {captions:,} captions"
    if data.sources is not None:
        pictures = len(data) if data.pictured is None else sum(data.pictured)
        what = f"{len(data):,} sentences with their translations, {pictures:,} of them with pictures"
    print(f"{split}: {what}; {len(data.problems)} problems", flush=True)
    if data.problems and folder:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"problems-{split}.txt"
        path.write_text("\n".join(data.problems) + "\n")
        print("\n".join(f"  skipped: {problem}" for problem in data.problems[:5]))
        if len(data.problems) > 5:
            print(f"  and {len(data.problems) - 5} more, all in {path}")


def _evaluate(run: Path, data, split: str, beams: int = 1) -> list[list[str]]:
    """Caption the pictures, print how good that is, and keep the captions and a sheet of the first twelve."""
    from .data.judge import truth
    from .decoding import write_captions
    from .metrics import caption_tokenize
    from .plots import caption_sheet
    from .text import detokenize

    if len(data) == 0:
        raise ValueError(f"no pictures with captions in the split {split}")
    model, vocabulary, _ = _load(run)
    written = write_captions(model, vocabulary, (data.picture(i) for i in range(len(data))), num_beams=beams)
    print(f"\n{run}, {len(data):,} pictures of the {split} split; in brackets, what 95 % of a thousand resamples give")
    if hasattr(data, "scene"):
        (one, two, three, all_of_them), faults = truth(written, [data.scene(i) for i in range(len(data))])
        print(f"  true by judge        {_share(all_of_them, len(data))}; one thing {one:.0f} %, two {two:.0f} %, three {three:.0f} %")
        print(f"  wrong in the others  {', '.join(f'{fault} {n}' for fault, n in faults.most_common()) or 'nothing'}")
    hypotheses = [caption_tokenize(detokenize(tokens)) for tokens in written]
    _print_scores(hypotheses, [list(map(caption_tokenize, captions)) for captions in data.captions])
    with (run / f"captions-{split}.jsonl").open("w", encoding="utf-8") as file:
        for name, tokens, captions in zip(data.names, written, data.captions):
            entry = {"picture": name, "caption": detokenize(tokens), "references": captions}
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    first = range(min(12, len(data)))
    sheet = caption_sheet([data.picture(i) for i in first], written[:12], data.references[:12])
    sheet.savefig(run / f"captions-{split}.png")
    return written


def _print_scores(hypotheses: list[list[str]], references: list[list[list[str]]]) -> None:
    """What the field reports of sentences, each with its interval."""
    from .metrics import bleu, caption_scores, exact_match

    for name, (value, low, high) in caption_scores(hypotheses, references).items():
        digits = 1 if name.startswith("BLEU") else 3
        print(f"  {name:20} {value:.{digits}f}  ({low:.{digits}f} to {high:.{digits}f})")
    whole, count = bleu(hypotheses, references), len(hypotheses)
    print(f"  words a sentence     {whole.sys_len / count:.1f}, closest references {whole.ref_len / count:.1f}", end="")
    print(f"; brevity penalty {whole.bp:.3f}")
    print(f"  a reference exactly  {_share(100 * exact_match(hypotheses, references), count)}")


def _share(percent: float, count: int) -> str:
    """A share of `count` examples, with its interval."""
    from .metrics import bootstrap

    right = round(percent * count / 100)
    low, high = bootstrap([100] * right + [0] * (count - right))
    return f"{percent:.1f} %  ({low:.1f} to {high:.1f})"


def _show_attention(run: Path, data, written: list[list[str]]) -> None:
    """Print how much of the attention lies within the thing that a word names, and draw it for two captions."""
    from .data.language import named_things
    from .data.scenes import box
    from .decoding import attention_maps
    from .metrics import attention_inside
    from .plots import attention_sheet

    model, vocabulary, _ = _load(run)
    maps = [attention_maps(model, vocabulary, data.picture(i), written[i]) for i in range(min(300, len(data)))]
    shares = [
        attention_inside(of_picture[t], box(thing, data.size), data.size)
        for i, of_picture in enumerate(maps)
        for t, thing in named_things(written[i], data.scene(i))
    ]
    if shares:  # a model that has hardly learned anything may name nothing that is there
        inside, area = (100 * sum(column) / len(shares) for column in zip(*shares))
        print(f"  attention            {inside:.0f} % within the thing that a noun or colour names, {area:.0f} % of the area")
    chosen = [i for i in range(len(maps)) if len(data.scene(i).things) > 1][:2]
    sheet = attention_sheet([data.picture(i) for i in chosen], [written[i] for i in chosen], [maps[i] for i in chosen])
    sheet.savefig(run / "attention.png")


if __name__ == "__main__":
    sys.exit(main())
