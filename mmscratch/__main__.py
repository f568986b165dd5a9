"""The command line: python -m mmscratch quickstart | train | evaluate | caption | translate | score | doctor"""

import argparse
import os
import sys
from pathlib import Path

from .engine.doctor import doctor

DECODERS = ("lstm", "transformer")
FUSIONS = ("cross_attention", "prefix")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 if all is well, 2 after an error, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments == [
            "doctor"
        ]:  # which works where torch does not, and so comes before what imports it
            return doctor(argparse.Namespace())
        args = make_parser().parse_args(arguments)
        return int(args.command(args) or 0)
    except KeyboardInterrupt as stop:
        print(f"\n{str(stop) or 'stopped'}", file=sys.stderr)
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
    """One command for each verb, and those that are the same for all tasks."""
    from .tasks import TASKS
    from .tasks.evaluate import evaluate
    from .tasks.quickstart import quickstart
    from .tasks.scores import score
    from .tasks.task import add_beams
    from .tasks.train import train

    parser = argparse.ArgumentParser(
        prog="python -m mmscratch", description="Models that look at a picture and write."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    sub = command(
        "quickstart",
        quickstart,
        "Train a captioner on drawn scenes, in minutes, and show what it writes.",
    )
    sub.set_defaults(task="captioning", data=None, layout="scenes", start_from=None, freeze=[])
    unset = ("image_size", "epochs", "batch_size", "learning_rate", "workers", "accumulation_steps")
    sub.set_defaults(**dict.fromkeys(unset), lora=0, seed=0)
    sub.add_argument("--scenes", **TASKS["captioning"].options["--scenes"])
    add_model(sub)
    add_loop(sub)

    sub = command(
        "train",
        train,
        "Train a model for a task on your data. Stopped and started again, it goes on.",
    )
    sub.add_argument(
        "--task", choices=tuple(TASKS), default="captioning", help="default: %(default)s"
    )
    add_data(sub)
    for task in TASKS.values():
        for option, settings in task.options.items():
            sub.add_argument(option, **settings)
    add_training(sub)
    add_model(sub)
    add_loop(sub)

    sub = command(
        "evaluate", evaluate, "Measure a run on held-out examples, against what people wrote."
    )
    sub.add_argument(
        "run", type=Path, metavar="RUN", help="folder of a trained model, such as runs/quickstart"
    )
    add_data(sub)
    sub.add_argument(
        "--split", help="train, validation or test (default: validation; for drawn pictures: test)"
    )
    add_beams(sub)

    for task in TASKS.values():
        task.add_verb_options(command(task.verb, task.use, task.verb_help))

    sub = command(
        "score",
        score,
        "Score sentences in a text file against references in others: BLEU, ROUGE-L and CIDEr-D.",
    )
    add_score(sub)
    command("doctor", doctor, "Say what this machine has, and what is wrong, if anything.")
    return parser


def add_data(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with the data; or the word scenes, for drawn ones",
    )
    sub.add_argument("--layout", help="form of the data: for captioning folder (the default), flickr8k or scenes; for "
                     "translation multi30k (the default) or scenes")  # fmt: skip


def add_model(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--decoder", choices=DECODERS, help="what writes the sentence (default: by task)"
    )
    sub.add_argument("--fusion", choices=FUSIONS,
                     help="look at the memory for every word, or once at the start (default: cross_attention)")  # fmt: skip


def add_training(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--from", type=Path, dest="start_from", metavar="RUN",
                     help="start from the model of this run, such as runs/quickstart, instead of random weights; or from "
                     "the CNN that torchvision publishes as resnet18, resnet50, vgg11_bn, …")  # fmt: skip
    sub.add_argument("--freeze", action="append", default=[], metavar="PATTERN",
                     help="freeze the parameters whose name matches this pattern, such as encoders.image.backbone; may be "
                     "given several times")  # fmt: skip
    sub.add_argument("--lora", type=int, default=0, metavar="RANK",
                     help="train a small change of this rank instead of the decoder's weights; the rest is frozen")  # fmt: skip
    sub.add_argument("--image-size", type=int, metavar="PIXELS", help="default: 64")
    sub.add_argument("--epochs", type=int, help="passes over the training data (default: by task)")
    sub.add_argument(
        "--batch-size", type=int, help="examples per step, over all processes (default: by task)"
    )
    sub.add_argument("--accumulation-steps", "--accumulate", type=int, metavar="N",
                     help="micro-batches per step: less memory, the same gradient (default: 1)")  # fmt: skip
    sub.add_argument(
        "--learning-rate", type=float, help="at its peak (default: by task; with --lora 0.01)"
    )
    sub.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that load data (default: by the machine)",
    )
    sub.add_argument(
        "--seed", type=int, default=0, help="another seed, another model (default: %(default)s)"
    )


def add_loop(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--to", type=Path, dest="run", metavar="DIR", help="where to keep it (default: in runs/)"
    )
    sub.add_argument(
        "--precision", choices=PRECISIONS, help="number format (default: by the machine)"
    )
    sub.add_argument(
        "--compile",
        action="store_true",
        help="use torch.compile: slow at first, then faster on a GPU",
    )
    sub.add_argument(
        "--profile",
        action="store_true",
        help="show where the time of a step goes, and keep a trace",
    )


def add_score(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "hypotheses", type=Path, metavar="HYPOTHESES", help="what was written, a sentence a line"
    )
    sub.add_argument("references", type=Path, nargs="+", metavar="REFERENCES",
                     help="a reference for each, in the same line; in a second file another one, or an empty line")  # fmt: skip
    sub.add_argument("--tokenize", choices=("caption", "words", "none"), default="caption",
                     help="caption: as the COCO evaluation, without punctuation; words: with it, lower case; none: the "
                          "text is tokenized, with spaces between the tokens (default: %(default)s)")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
