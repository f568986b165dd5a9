"""The training loop, and what it keeps on disk."""

import contextlib
import copy
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .batches import CaptionPairs, collate, make_loader
from .model import EncoderDecoder, ModelConfig, build_model
from .text import PAD, Vocabulary


@dataclass
class TrainConfig:
    """How a model is trained; plain values, kept in its checkpoint."""

    epochs: int = 1
    batch_size: int = 64
    learning_rate: float = 2e-3  # at its peak: it rises for the first `warmup` of all steps, then falls as a cosine to 0
    warmup: float = 0.05
    weight_decay: float = 0.05  # of matrices; biases, norms and single vectors keep their size
    clip_norm: float = 1.0
    evaluate_every: int = 0  # steps; 0 stands for every epoch
    seed: int = 0
    workers: int = 0
    pool: int = 50  # batches' worth of captions that are sorted by length together (see `BucketSampler`)


class Precision:
    """Number format and memory layout of the model's work: `dtype`, and `channels_last` for the convolutions."""

    def __init__(self, device: torch.device, dtype: torch.dtype, channels_last: bool):
        self.device, self.dtype, self.channels_last = device, dtype, channels_last
        self.layout = torch.channels_last if channels_last else torch.contiguous_format

    def autocast(self):
        """Within it, matrix products and convolutions compute in `dtype`; the weights stay float32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}{', channels last' if self.channels_last else ''}"


def pick_device() -> torch.device:
    """cuda where there is one, else mps, else cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_precision(model: EncoderDecoder, batch: dict[str, Tensor], device: torch.device) -> tuple[Precision, str]:
    """The fastest precision for training this model here, and why, in words.

    On a CPU it is measured, on a copy of the model: some have instructions for bfloat16 and gain a factor of two, on
    others it is slower than float32.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return Precision(device, torch.bfloat16, True), "the GPU computes in bfloat16"
    if device.type != "cpu":
        return Precision(device, torch.float32, False), f"the safe choice on {device.type}"
    choices = [(torch.float32, False), (torch.float32, True), (torch.bfloat16, True)]
    trials = [(p, copy.deepcopy(model).to(memory_format=p.layout)) for p in (Precision(device, *c) for c in choices)]
    seconds = dict.fromkeys((precision for precision, _ in trials), math.inf)
    with torch.random.fork_rng(devices=[]):
        for precision, trial in trials * 4:  # in turn, so that a moment in which the machine is busy meets all of them
            start = time.perf_counter()
            with precision.autocast():
                loss, _ = word_loss(trial, batch)
            loss.backward()
            seconds[precision] = min(seconds[precision], time.perf_counter() - start)
    fastest = min(seconds, key=seconds.get)
    return fastest, "measured: " + ", ".join(f"{p} {1000 * s:.0f} ms" for p, s in seconds.items())


def word_loss(model: EncoderDecoder, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    """The cross-entropy of a batch, summed over its words, and the number of words; padding counts for neither."""
    logits = model(batch).float()  # (B, T, V)
    loss = F.cross_entropy(logits.flatten(0, 1), batch["target"].flatten(), ignore_index=PAD, reduction="sum")
    return loss, int((batch["target"] != PAD).sum())


class Trainer:
    """Trains a model, and keeps in `folder`:

    last.pt         all that it takes to go on: weights, optimizer, step, random state
    best.pt         the weights with the lowest validation loss
    metrics.jsonl   a line each few steps

    If the folder holds an unfinished run of the same settings, `fit` goes on where that stopped. `facts` are kept in
    the checkpoint for whoever uses the model (what it was trained on).
    """

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        train: CaptionPairs,
        validation: CaptionPairs,
        folder: str | Path,
        facts: dict | None = None,
    ):
        if len(train) == 0 or len(validation) == 0:
            raise ValueError(f"{len(train)} captions to train on and {len(validation)} to validate with: both are needed")
        self.model_config, self.config, self.train, self.validation = model_config, config, train, validation
        self.folder, self.facts = Path(folder), facts or {}
        self.device = pick_device()
        self.loader = make_loader(train, config.batch_size, config.seed, config.workers, config.pool)
        self.steps = config.epochs * len(self.loader)
        self.step, self.best_loss, self.stop = 0, math.inf, False

        saved = self._saved()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = build_model(model_config).to(self.device)
        if saved:
            self.precision = Precision(self.device, getattr(torch, saved["dtype"]), saved["channels_last"])
            print(f"going on with {self.folder} at step {saved['step']} of {self.steps}")
        else:
            batch = collate([train[i] for i in range(min(config.batch_size, len(train)))])
            self.precision, why = pick_precision(self.model, self._to_device(batch), self.device)
            print(f"device: {self.device}; precision: {self.precision} ({why})")
        self.model = self.model.to(memory_format=self.precision.layout)
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        vectors = [p for p in self.model.parameters() if p.dim() <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
        )
        if saved:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step, self.best_loss = saved["step"], saved["best_loss"]
            self.random_state = saved["random_state"]
        else:
            self.random_state = torch.Generator().manual_seed(config.seed + 1).get_state()

    def fit(self) -> None:
        """Train to the end. Ctrl-C finishes the step, saves, and raises KeyboardInterrupt."""
        self.folder.mkdir(parents=True, exist_ok=True)
        progress = Progress(self.folder / "metrics.jsonl", self.step, self.steps)
        with self._ctrl_c(), torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.random_state)
            saved_at = time.monotonic()
            self.model.train()
            for batch in self._batches():
                loss = self._train_step(batch)
                self.step += 1
                progress.update(self.step, loss, len(batch["target"]), self.optimizer.param_groups[0]["lr"])
                every = self.config.evaluate_every or len(self.loader)
                if self.step % every == 0 or self.step == self.steps:
                    validation_loss = self._validate()
                    progress.validated(self.step, validation_loss)
                    if validation_loss < self.best_loss:
                        self.best_loss = validation_loss
                        self._save("best.pt")
                if self.stop or self.step == self.steps or time.monotonic() - saved_at > 60:
                    self._save("last.pt", resumable=True)
                    saved_at = time.monotonic()
                if self.stop:
                    progress.end()
                    raise KeyboardInterrupt(f"stopped at step {self.step} of {self.steps}; the same command goes on from there")

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        while self.step < self.steps:
            epoch, skip = divmod(self.step, len(self.loader))
            self.loader.batch_sampler.start(epoch, skip)
            yield from self.loader

    def _train_step(self, batch: dict[str, Tensor]) -> float:
        """One step; the mean loss a word."""
        rate = self.config.learning_rate * self._schedule(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.precision.autocast():
            loss, words = word_loss(self.model, self._to_device(batch))
        (loss / words).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item() / words

    def _schedule(self, step: int) -> float:
        """Linear warm-up from 0 to 1, then half a cosine down to 0."""
        warmup = math.ceil(self.config.warmup * self.steps)
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(self.steps - warmup, 1)
        return 0.5 * (1 + math.cos(math.pi * done))

    @torch.no_grad()
    def _validate(self) -> float:
        """The mean loss a word over all validation captions."""
        self.model.eval()
        order = sorted(range(len(self.validation)), key=self.validation.lengths.__getitem__)
        total = count = 0
        for first in range(0, len(order), self.config.batch_size):
            batch = collate([self.validation[i] for i in order[first : first + self.config.batch_size]])
            with self.precision.autocast():
                loss, words = word_loss(self.model, self._to_device(batch))
            total, count = total + loss.item(), count + words
        self.model.train()
        return total / count

    def _to_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    @contextlib.contextmanager
    def _ctrl_c(self):
        """The first Ctrl-C asks for a stop after this step, a second one stops at once."""

        def ask(*_):
            self.stop = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set signal handlers
            return
        before = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _save(self, name: str, resumable: bool = False) -> None:
        state = {
            "model": self.model.state_dict(),
            "model_config": asdict(self.model_config),
            "train_config": asdict(self.config),
            "words": self.train.vocabulary.words[4:],
            "facts": self.facts,
            "step": self.step,
            "steps": self.steps,
        }
        if resumable:
            state |= {
                "optimizer": self.optimizer.state_dict(),
                "best_loss": self.best_loss,
                "random_state": torch.get_rng_state(),
                "dtype": str(self.precision.dtype).removeprefix("torch."),
                "channels_last": self.precision.channels_last,
            }
        write_atomically(self.folder / name, state)

    def _saved(self) -> dict | None:
        """The checkpoint to go on from, if there is one."""
        path = self.folder / "last.pt"
        if not path.exists():
            return None
        saved = read_checkpoint(path)
        ours = {"words": self.train.vocabulary.words[4:], "facts": self.facts, "steps": self.steps}
        ours |= asdict(self.model_config) | asdict(self.config)
        theirs = {k: saved[k] for k in ("words", "facts", "steps")} | saved["model_config"] | saved["train_config"]
        different = [name for name in ours if ours[name] != theirs.get(name)]
        if different:
            raise ValueError(f"{path} is of another run (other {', '.join(different)}): choose another --run, or delete it")
        return saved


def write_atomically(path: Path, state: dict) -> None:
    """torch.save to a file beside, then rename: whoever reads `path` finds the old file or the new one, never half."""
    beside = path.with_name(path.name + ".writing")
    try:
        with open(beside, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def read_checkpoint(path: Path) -> dict:
    """What `Trainer` wrote: tensors and plain values only, nothing in it is executed."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises several kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: not a checkpoint that can be read: {reason}") from None


def load_run(folder: str | Path) -> tuple[EncoderDecoder, Vocabulary, dict]:
    """The best model of a run in eval mode, its vocabulary, and its checkpoint."""
    saved = read_checkpoint(Path(folder) / "best.pt")
    model = build_model(ModelConfig(**saved["model_config"]))
    model.load_state_dict(saved["model"])
    return model.to(pick_device()).eval(), Vocabulary(saved["words"]), saved


class Progress:
    """A line on the screen that renews itself, or a plain line now and then where there is no screen; and JSON lines."""

    def __init__(self, path: Path, step: int, steps: int):
        self.path, self.steps, self.first = path, steps, step
        self.screen = sys.stdout.isatty()
        lines = path.read_text().splitlines() if path.exists() and step else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept))  # not what a killed run did after its last checkpoint
        self.start = self.shown = self.logged = time.monotonic()
        self.losses, self.pictures = [], 0

    def update(self, step: int, loss: float, pictures: int, rate: float) -> None:
        self.losses.append(loss)
        self.pictures += pictures
        now = time.monotonic()
        if now - self.logged < 1 and step < self.steps:
            return
        loss, speed = sum(self.losses) / len(self.losses), self.pictures / (now - self.logged)
        self._write(step=step, loss=round(loss, 4), learning_rate=rate, pictures_per_second=round(speed, 1))
        if self.screen or now - self.shown >= 15 or step == self.steps:
            left = (now - self.start) / (step - self.first) * (self.steps - step)
            time_left = f"{left // 60:.0f}:{left % 60:02.0f} left"
            line = f"step {step}/{self.steps}  loss {loss:.3f}  {speed:.0f} pictures/s  {time_left}"
            print(("\r" if self.screen else "") + line, end="   " if self.screen else "\n", flush=True)
            self.shown = now
        self.logged = now
        self.losses, self.pictures = [], 0

    def validated(self, step: int, loss: float) -> None:
        self.end()
        print(f"step {step}/{self.steps}  validation loss {loss:.3f}", flush=True)
        self._write(step=step, validation_loss=round(loss, 4))

    def end(self) -> None:
        if self.screen:
            print()

    def _write(self, **values) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")
