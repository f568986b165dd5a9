"""The training loop: the same on a laptop's CPU, on one GPU, and on many."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.parallel import DistributedDataParallel

from .batches import CaptionPairs, Feed, collate, make_loader, to_device
from .engine import distributed
from .engine.devices import Precision, pick_device, pick_precision, repeatable
from .engine.progress import Progress, profiled
from .engine.runs import read_run
from .engine.signals import StopSignals, explained
from .finetuning import adapt, fingerprint, load_change, parameter_groups, thaw, trained_state, words_state
from .model import ModelConfig, build_model
from .reliability import (
    GradScaler,
    first_not_finite,
    random_state,
    random_state_kept,
    seed_everything,
    set_random_state,
    write_atomically,
)
from .text import PAD

SAVE_SECONDS = 60  # so often the run is saved
PATIENCE = 3, 25  # so many steps in a row may have a loss that is not finite, or gradients that are not


@dataclass
class TrainConfig:
    """How a model is trained; plain values, kept in its checkpoint."""

    epochs: int = 1
    batch_size: int = 64  # captions a step, of all processes together
    accumulate: int = 1  # parts in which each process computes its share, one after the other: less memory, same gradient
    learning_rate: float = 2e-3  # at its peak
    warmup: int = 20  # the learning rate rises for one in so many of all steps, then falls as a cosine
    weight_decay: float = 0.05  # of matrices; biases, norms and single vectors keep their size
    clip_norm: float = 1.0
    label_smoothing: float = 0.0
    teacher_forcing: float = 1.0  # the share of words that the model is told while it writes the next (see `EncoderDecoder`)
    precision: str = "auto"  # or "float32", "bfloat16", "float16"
    compile: bool = False  # by torch.compile: minutes at first, then faster on a GPU
    evaluate_every: int = 0  # steps; 0 stands for every epoch
    seed: int = 0
    workers: int | None = None  # processes that load data; None: one a core, up to 8, for a GPU, and none for a CPU
    pool: int = 50  # batches' worth of captions that are sorted by length together (see `BucketSampler`)
    start_from: str = ""  # the folder of a run whose weights are the first ones
    freeze: tuple[str, ...] = ()  # names of what is not trained (see `finetuning.freeze`)
    thaw: float = 0.0  # the share of all steps in which what is frozen becomes free, layer by layer; 0 stands for never
    layer_decay: float = 1.0  # the learning rate of a layer, as a share of that of the layer behind it
    lora: int = 0  # the rank of the change that is trained instead of the decoder's weights; 0 stands for none


def warmup_and_cosine(step: int, steps: int, warmup: int) -> float:
    """The learning rate's factor: it rises to 1 for one in `warmup` of all steps, and falls as half a cosine to 0."""
    return min(warmup * (step + 1) / steps, 0.5 + 0.5 * math.cos(math.pi * step / steps))


def word_loss(model: nn.Module, batch: dict[str, Tensor], smoothing: float = 0.0, teacher_forcing: float = 1.0) -> Tensor:
    """The cross-entropy of a batch, summed over its words; padding counts for nothing.

    With s for `smoothing`, a word costs (1 - s) (-log p(word)) + s (mean over the vocabulary of -log p).
    """
    logits, target = model(batch, teacher_forcing=teacher_forcing).float(), batch["target"]  # (B, T, V), (B, T)
    logits, target = logits.flatten(0, 1), target.flatten()
    if smoothing:
        return _SmoothedCrossEntropy.apply(logits, target, smoothing)
    return F.cross_entropy(logits, target, ignore_index=PAD, reduction="sum")


class _SmoothedCrossEntropy(torch.autograd.Function):
    """Cross-entropy with label smoothing, as F.cross_entropy has it, with fewer passes over the logits, which are large.

        loss = logΣexp z - (1 - s) z_word - s mean(z);    δz = softmax(z) - (1 - s) onehot(word) - s / V

    The gradient is ready with the loss, since only its sum is asked for. Source: Szegedy et al. 2016, section 7.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
        """logits (N, V), target (N,), those that are <pad> count for nothing -> the sum of the losses."""
        target, real = target.unsqueeze(1), (target != PAD).unsqueeze(1)  # (N, 1), and so is all that has no V
        probabilities = logits.softmax(-1)  # (N, V)
        highest, word = logits.max(-1, keepdim=True)
        log_sum = highest - probabilities.gather(1, word).log()
        loss = log_sum - (1 - smoothing) * logits.gather(1, target) - smoothing * logits.mean(-1, keepdim=True)
        gradient = probabilities.sub_(smoothing / logits.size(-1))
        gradient.scatter_add_(1, target, torch.full_like(log_sum, smoothing - 1)).mul_(real)
        ctx.save_for_backward(gradient)
        return loss.masked_fill(~real, 0.0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, d_loss: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * d_loss, None, None


class Step(NamedTuple):
    """What a step tells, of all processes together."""

    loss: float  # the sum over its words
    words: float
    pictures: float
    norm: float  # of the gradient, before clipping
    stop: float  # how many processes were asked to stop
    save: float  # is it time to save?


class Trainer:
    """Trains a model, and keeps in `folder`:

    last.pt         all that it takes to go on, to the bit: weights, optimizer, place, random states
    best.pt         the weights with the lowest validation loss
    metrics.jsonl   a line each second or few steps (see `Progress`)

    If the folder holds an unfinished run of the same settings, `fit` goes on where that stopped. `facts` are kept in
    the checkpoint for whoever uses the model (what it was trained on).

    With several processes (see distributed.py) the batch, and so the training, is that of one process; only rank 0
    writes. Batch norm is not shared: each process normalizes by its own part of a batch (of accumulated ones, by each
    part), and the running statistics that are kept are those of rank 0. So keep parts of 16 pictures or more.
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
        if config.lora and config.thaw:
            raise ValueError("thaw frees what is frozen, but with a LoRA the rest of the model is to stay as it was: choose one")
        self.model_config, self.config, self.train, self.validation = model_config, config, train, validation
        self.folder, self.facts = Path(folder), facts or {}
        self.words = words_state(train.vocabulary, train.source_vocabulary)
        self.rank, self.processes, self.device = distributed.rank(), distributed.size(), pick_device()
        workers = config.workers
        if workers is None:
            workers = min(8, (os.cpu_count() or 1) // self.processes) if self.device.type == "cuda" else 0
        loader = make_loader(train, config.batch_size, config.seed, workers, config.pool, self.rank, self.processes)
        self.feed, self.epoch_steps = Feed(loader, self.device), len(loader)
        self.steps = config.epochs * self.epoch_steps
        self.step = self.skipped = self.skipped_in_a_row = 0
        self.best_loss, self.history = math.inf, []
        self.signals, self.saved_at = StopSignals(), time.monotonic()

        saved = self._saved()
        with random_state_kept():
            seed_everything(config.seed)
            self.model = build_model(model_config)
            start_from = "" if saved and not config.lora else config.start_from  # a saved run has no more need of it
            words, source_words = train.vocabulary, train.source_vocabulary
            adapt(self.model, words, start_from, config.lora, config.freeze, model_config.dropout, source_words)
            self.model.to(self.device)
            seed_everything(config.seed + 1 + self.rank)  # of dropout, another for each process
            self.random_state = random_state()
        with explained(self._where):
            self.precision = self._precision(saved)
        self.scaler = GradScaler(self.precision.dtype)
        self.model = self.model.to(memory_format=self.precision.layout)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, config.weight_decay, config.layer_decay),
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            fused=self.device.type == "cuda" or None,
        )
        self.frozen = [name for name, parameter in self.model.named_parameters() if not parameter.requires_grad]
        self.base = fingerprint(self.model) if config.lora else None
        if saved:
            self._restore(saved)
        self._wrap()

    def fit(self, profile: bool = False) -> None:
        """Train to the end. Ctrl-C and SIGTERM finish the step, save, and raise KeyboardInterrupt.

        Raises MemoryError (which batch, and what to lower), FloatingPointError (which layer), ChildProcessError (a data
        worker, and its file), ConnectionError (another process ended), OSError (cannot write), each with one clear line.
        """
        path = self.folder / "metrics.jsonl" if self.rank == 0 else None
        progress = Progress(path, self.step, self.steps, self.feed.waiting, self.device)
        with (
            closing(progress), self.signals, explained(self._where), self.feed.explained(),
            random_state_kept(), repeatable(self.device),
        ):  # fmt: skip
            set_random_state(self.random_state)
            self.saved_at = time.monotonic()
            self.model.train()
            batches = self._batches()
            for batch in profiled(batches, self.folder) if profile and self.rank == 0 else batches:
                if self.config.thaw and thaw(self.model, self.frozen, self.step / (self.config.thaw * self.steps)):
                    self._wrap()
                told = self._train_step(batch)
                self.step += 1
                rate = max(group["lr"] for group in self.optimizer.param_groups)
                progress.update(self.step, told.loss, told.words, told.pictures, told.norm, rate, self.skipped)
                every = self.config.evaluate_every or self.epoch_steps
                if self.step % every == 0 or self.step == self.steps:
                    loss = self._validate()
                    progress.validated(self.step, loss)
                    self.history.append([self.step, loss])
                    if loss < self.best_loss:
                        self.best_loss = loss
                        self._save("best.pt")
                if told.stop or told.save or self.step == self.steps:
                    self._save("last.pt", resumable=True)
                if told.stop:
                    break
            if self.signals.asked or self.step < self.steps:
                raise KeyboardInterrupt(f"stopped at step {self.step} of {self.steps}; the same command goes on from there")

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        while self.step < self.steps:
            yield from self.feed.batches(*divmod(self.step, self.epoch_steps))

    def _wrap(self) -> None:
        """`forward` is the model with the same weights, compiled and shared between processes."""
        self.forward = torch.compile(self.model) if self.config.compile else self.model
        if self.processes > 1:
            self.forward = DistributedDataParallel(self.forward)
            self._settle()

    def _settle(self) -> None:
        """One gradient for nothing. By the first, DistributedDataParallel chooses in which order it adds up from then on;
        so a run that goes on, too, has chosen before its first step, and adds up like the one that was not stopped."""
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        with random_state_kept():
            self._gradient(to_device(collate([self.train[0]]), self.device))
        self.model.zero_grad()
        for buffer, before in zip(self.model.buffers(), buffers):
            buffer.copy_(before)

    def _train_step(self, batch: dict[str, Tensor]) -> Step:
        """One step down the mean loss over all words of a batch, of all its parts in all processes."""
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        loss, words, pictures = self._gradient(batch)
        self.feed.prefetch()  # while a GPU is still busy with the gradient
        self.scaler.unscale(self.model.parameters())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        asked, late = self.signals.asked, self.rank == 0 and time.monotonic() - self.saved_at > SAVE_SECONDS
        loss, stop, save = distributed.total(torch.stack([loss, loss.new_tensor(float(asked)), loss.new_tensor(float(late))]))
        told = Step(*torch.stack([loss, words, pictures, norm, stop, save]).tolist())  # here the CPU waits, once a step

        finite = math.isfinite(told.norm)
        if finite:
            factor = warmup_and_cosine(self.step - self.skipped, self.steps, self.config.warmup)
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * factor * group.get("factor", 1.0)
            self.optimizer.step()
            self.skipped_in_a_row = 0
        else:  # the step is skipped: weights, the statistics of batch norm, and schedule stay as they were
            for buffer, before in zip(self.model.buffers(), buffers):
                buffer.copy_(before)
            self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1
            if self.skipped_in_a_row >= PATIENCE[math.isfinite(told.loss)]:
                self._give_up(batch)
        self.optimizer.zero_grad()
        self.scaler.update(finite)
        return told

    def _gradient(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Leaves the gradient of (loss of all parts in all processes / their words); own loss, all words, all pictures."""
        real = batch["target"] != PAD  # (B, T)
        words, pictures = distributed.total(torch.stack([real.sum(), real.any(1).sum()]).float())
        loss, count = torch.zeros((), device=self.device), min(self.config.accumulate, len(real))
        for i in range(count):
            part = {name: value[i::count] for name, value in batch.items()}  # short and long sentences in each
            apart = self.processes > 1 and i < count - 1  # only with the last part do processes exchange gradients
            with self.forward.no_sync() if apart else nullcontext():
                with self.precision.autocast():
                    part_loss = word_loss(self.forward, part, self.config.label_smoothing, self.config.teacher_forcing)
                # DistributedDataParallel takes the mean over processes: times their number, it is the sum
                (part_loss * self.scaler.scale * self.processes / words).backward()
            loss += part_loss.detach()
        return loss, words, pictures

    @torch.no_grad()
    def _validate(self) -> float:
        """The mean loss a word over all validation captions, each counted once, by one of the processes."""
        self.model.eval()
        order = sorted(range(len(self.validation)), key=self.validation.lengths.__getitem__)[self.rank :: self.processes]
        total = count = 0
        for first in range(0, len(order), self.config.batch_size):
            batch = collate([self.validation[i] for i in order[first : first + self.config.batch_size]])
            count += (batch["target"] != PAD).sum().item()
            batch = to_device(batch, self.device)
            with self.precision.autocast():
                total += word_loss(self.model, batch).item()
        self.model.train()
        total, count = distributed.total(torch.tensor([total, count], dtype=torch.double)).tolist()
        return total / count

    def _precision(self, saved: dict | None) -> Precision:
        """That of the run to go on with; or the one asked for, or the fastest."""
        if saved:
            print(f"going on with {self.folder} at step {saved['step']} of {self.steps}")
            return Precision(self.device, getattr(torch, saved["dtype"]), saved["channels_last"])
        batch = to_device(collate([self.train[i] for i in range(min(self._part(), len(self.train)))]), self.device)
        loss = partial(word_loss, batch=batch)
        precision, why = pick_precision(self.model, loss, self.device, self.config.precision)
        precision = Precision(self.device, *distributed.from_main((precision.dtype, precision.channels_last)))
        print(f"device: {self.device}; precision: {precision} ({why})")
        return precision

    def _part(self) -> int:
        """How many captions a process computes with at once."""
        return -(-self.config.batch_size // (self.processes * self.config.accumulate))

    def _where(self) -> str:
        size = self.model_config.image_size
        return f"step {self.step + 1} ({self._part()} captions and pictures of {size} pixels at once, on {self.device})"

    def _give_up(self, batch: dict[str, Tensor]) -> None:
        self.model.zero_grad()
        self._gradient(batch)  # once more: clipping has spoilt what was finite
        with self.precision.autocast():
            culprit = first_not_finite(self.model, batch)
        raise FloatingPointError(
            f"{self.skipped_in_a_row} steps in a row had no finite gradient in {self.precision}, up to {self._where()}; what is "
            f"not finite first is {culprit}. Try a lower --learning-rate or another --precision, with another --to"
        )

    def _settings(self) -> dict:
        """What must be the same to go on with a run."""
        settings = {"captions": len(self.train), **self.words, **self.facts}
        settings |= asdict(self.model_config) | asdict(self.config)
        del settings["workers"]  # which change nothing
        return settings

    def _save(self, name: str, resumable: bool = False) -> None:
        """Write a checkpoint: rank 0 writes, with the random states of all."""
        state = {
            "model": trained_state(self.model) if self.base else self.model.state_dict(),
            "base": self.base,  # a LoRA is kept without the weights that it changes
            "model_config": asdict(self.model_config),
            "train_config": asdict(self.config),
            **self.words,
            "facts": self.facts,
            "step": self.step,
            "history": self.history,
        }
        if resumable:
            epoch, place = divmod(self.step, self.epoch_steps)
            state |= {
                "settings": self._settings(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": vars(self.scaler),
                "epoch": epoch,
                "place": place,  # in the epoch, in batches
                "skipped": self.skipped,
                "skipped_in_a_row": self.skipped_in_a_row,
                "best_loss": self.best_loss,
                "dtype": str(self.precision.dtype).removeprefix("torch."),
                "channels_last": self.precision.channels_last,
                "random_states": distributed.gather(random_state()),
            }
            self.saved_at = time.monotonic()
        if self.rank == 0:
            write_atomically(self.folder / name, state)

    def _saved(self) -> dict | None:
        """The checkpoint to go on from, if there is one; rank 0 reads it for all."""
        path = self.folder / "last.pt"
        saved = distributed.from_main(read_run(path, self._settings()) if self.rank == 0 and path.exists() else None)
        if saved and len(saved["random_states"]) != self.processes:
            print(f"saved by {len(saved['random_states'])} processes, gone on with by {self.processes}: the same, but not to the bit")
        return saved

    def _restore(self, saved: dict) -> None:
        if self.base:
            load_change(self.folder / "last.pt", self.model, saved)
        else:
            self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        vars(self.scaler).update(saved["scaler"])
        for name in ("step", "skipped", "skipped_in_a_row", "best_loss", "history"):
            setattr(self, name, saved[name])
        if len(saved["random_states"]) == self.processes:
            self.random_state = saved["random_states"][self.rank]
