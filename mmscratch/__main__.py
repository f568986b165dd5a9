"""The command line: python -m mmscratch COMMAND; --help lists the commands."""

import argparse
import os
import sys
from pathlib import Path

from .engine.doctor import doctor, show_anything
from .text import printable


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Returns 0 if all is well, 2 after an error, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    show_anything()
    try:
        if arguments == ["doctor"] and doctor():  # it works even if the imports below do not
            return 2
        args = make_parser().parse_args(arguments, argparse.Namespace(arguments=arguments))
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
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2


def make_parser() -> argparse.ArgumentParser:
    """One command for each task's verb, and those that all tasks share."""
    from .tasks import TASKS
    from .tasks.evaluate import evaluate
    from .tasks.quickstart import SETTINGS, print_estimate, quickstart
    from .tasks.report import report
    from .tasks.scores import TOKENIZERS, score
    from .tasks.task import add_beams
    from .tasks.train import SMALL_CHANGES, train

    text = "Models that look, listen and read; and write, or find a picture."
    parser = argparse.ArgumentParser(prog="python -m mmscratch", description=text)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    text = "Train a captioner on drawn scenes, in minutes, and show what it writes."
    sub = command("quickstart", quickstart, text)
    sub.set_defaults(**SETTINGS)
    add_quickstart(sub, TASKS)
    text = "Train a model for a task on your data. Run it again to resume a stopped training."
    add_train(command("train", train, text), TASKS, SMALL_CHANGES)
    text = "Measure a run on held-out examples, against what people wrote."
    sub = command("evaluate", evaluate, text)
    add_evaluate(sub, TASKS)
    add_beams(sub)
    for task in TASKS.values():
        task.add_verb_options(command(task.verb, task.use, task.verb_help))
    text = "Write a page about a run: what it wrote, how sure it was, and where it looked."
    command("report", report, text).add_argument("run", type=Path, metavar="RUN")
    text = "Score the sentences in a text file against references: BLEU, ROUGE-L and CIDEr-D."
    add_score(command("score", score, text), TOKENIZERS)
    command("doctor", print_estimate, "Report what this machine has, and what is wrong, if anything.")
    return parser


def add_quickstart(sub: argparse.ArgumentParser, tasks: dict) -> None:
    sub.add_argument("--scenes", **tasks["captioning"].options["--scenes"])
    add_model(sub)
    add_loop(sub)


def add_train(sub: argparse.ArgumentParser, tasks: dict, small_changes: tuple) -> None:
    text = "default: %(default)s"
    sub.add_argument("--task", choices=tuple(tasks), default="captioning", help=text)
    add_data(sub, tasks)
    options = {name: each for task in tasks.values() for name, each in task.options.items()}
    for name, settings in options.items():  # two tasks may have the same one
        sub.add_argument(name, **settings | {"default": None})  # that of the task
    text = "start from a run, parts of several (RUN,RUN), or a CNN of torchvision: resnet18, …"
    sub.add_argument("--from", dest="start_from", metavar="RUN", help=text)
    sub.add_argument("--weights", type=Path, metavar="FILE", help="that CNN's weights, on disk")
    text = "folder with GPT-2, which becomes the decoder"
    sub.add_argument("--decoder-from", type=Path, metavar="FOLDER", help=text)
    text = "freeze parameters by name, such as encoders.image.backbone; may be repeated"
    sub.add_argument("--freeze", action="append", default=[], metavar="PATTERN", help=text)
    small = sub.add_mutually_exclusive_group()
    for name, unit, text in small_changes:
        small.add_argument(name, type=int, default=0, metavar=unit, help=text)
    small.add_argument("--biases", action="store_true", help="or the decoder's biases")
    sub.add_argument("--image-size", type=int, metavar="PIXELS", help="default: 64")
    sub.add_argument("--epochs", type=int, help="passes over the training data (default: by task)")
    sub.add_argument("--batch-size", type=int, help="examples per step (default: by task)")
    text = "micro-batches per step: less memory, the same gradient (default: 1)"
    sub.add_argument("--accumulation-steps", "--accumulate", type=int, metavar="N", help=text)
    text = "peak value (default: by task; 0.01 for a small change)"
    sub.add_argument("--learning-rate", type=float, help=text)
    sub.add_argument("--workers", type=int, help="processes that load data (default: by machine)")
    sub.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    add_model(sub)
    add_loop(sub)


def add_evaluate(sub: argparse.ArgumentParser, tasks: dict) -> None:
    sub.add_argument("run", type=Path, metavar="RUN", help="folder of a trained model")
    add_data(sub, tasks)
    sub.add_argument("--split", help="train, validation or test (default: by task)")


def add_data(sub: argparse.ArgumentParser, tasks: dict) -> None:
    text = "folder with the data; or scenes, speech or listings, for data that a program makes"
    sub.add_argument("--data", type=Path, metavar="DIR", help=text)
    layouts = [f"for {task.name}: {', '.join(task.layouts)}" for task in tasks.values()]
    text = f"form of the data; {'; '.join(layouts)} (the first is the default)"
    sub.add_argument("--layout", help=text)


def add_model(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--decoder", choices=("lstm", "transformer"), help="default: by task")
    text = "attend to the memory at every word, or only at the start (default: cross_attention)"
    sub.add_argument("--fusion", choices=("cross_attention", "prefix"), help=text)


def add_loop(sub: argparse.ArgumentParser) -> None:
    text = "folder of the run (default: in runs/)"
    sub.add_argument("--to", type=Path, dest="run", metavar="DIR", help=text)
    choices = ("auto", "float32", "bfloat16", "float16")
    sub.add_argument("--precision", choices=choices, help="number format (default: by machine)")
    sub.add_argument("--compile", action="store_true", help="torch.compile: later faster on a GPU")
    sub.add_argument("--profile", action="store_true", help="show where the time of a step goes")


def add_score(sub: argparse.ArgumentParser, tokenizers: dict) -> None:
    text = "generated sentences, one per line"
    sub.add_argument("hypotheses", type=Path, metavar="HYPOTHESES", help=text)
    text = "one reference on each line; more files hold further references or empty lines"
    sub.add_argument("references", type=Path, nargs="+", metavar="REFERENCES", help=text)
    text = "caption: as COCO's; words: with punctuation; none: tokens already (default: %(default)s)"
    sub.add_argument("--tokenize", choices=tuple(tokenizers), default="caption", help=text)


if __name__ == "__main__":
    sys.exit(main())
