"""The training loop: the same on a laptop's CPU, on one GPU, and on many."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .batches import BucketSampler, Examples, Prefetcher, collate, make_loader, to_device
from .engine import distributed
from .engine.devices import Precision, deterministic, pick_device, pick_precision
from .engine.progress import Progress, profiled
from .engine.runs import VERSION, read_run
from .engine.signals import StopSignals, translate_errors
from .finetuning import (
    fingerprint,
    gradual_unfreezing,
    load_lora,
    parameter_groups,
    prepare_for_finetuning,
    trainable_state,
    vocabulary_states,
)  # fmt: skip
from .model import ModelConfig, build_model
from .reliability import (
    GradScaler,
    first_nonfinite,
    get_rng_state,
    preserve_rng_state,
    set_rng_state,
    write_atomically,
)  # fmt: skip

SAVE_SECONDS = 60  # the time between two checkpoints
MAX_BAD_STEPS = 25  # in a row, without finite gradients, before training gives up
MAX_BAD_LOSSES = 3  # in a row, without a finite loss


@dataclass
class TrainConfig:
    """How a model is trained; plain values, kept in its checkpoint."""

    epochs: int = 1
    batch_size: int = 64  # examples per step, over all processes
    accumulation_steps: int = 1  # micro-batches in which each process computes its share, in turn: less memory, same gradient
    learning_rate: float = 2e-3  # at its peak
    warmup_fraction: float = (
        0.05  # of all steps: the learning rate rises linearly, then falls as a cosine
    )
    weight_decay: float = 0.05  # of matrices; biases, norms and single vectors do not decay
    clip_norm: float = 1.0
    precision: str = "auto"  # or "float32", "bfloat16", "float16"
    compile: bool = False  # by torch.compile: minutes at first, then faster on a GPU
    evaluate_every: int | None = None  # steps; None: once per epoch
    seed: int = 0
    workers: int | None = (
        None  # processes that load data; None: one per core, up to 8, for a GPU, and none for a CPU
    )
    bucket_batches: int | None = 50  # see `BucketSampler`
    start_from: str = ""  # the folder of a run whose weights are the first ones
    freeze: tuple[
        str, ...
    ] = ()  # names of parameters that are not trained (see `finetuning.freeze`)
    gradual_unfreezing: float = 0.0  # the fraction of all steps during which frozen layers become free, one by one; 0: they never do
    layer_decay: float = (
        1.0  # the learning rate of a layer, as a fraction of that of the layer after it
    )
    lora: int = 0  # the rank of the change that is trained instead of the decoder's weights; 0: the weights are trained


def warmup_and_cosine(step: int, steps: int, warmup_fraction: float) -> float:
    """The learning rate's factor: a linear warmup to 1 in the fraction `warmup_fraction` of all steps, then half a cosine to 0."""
    return min((step + 1) / (warmup_fraction * steps), 0.5 + 0.5 * math.cos(math.pi * step / steps))


class Step(NamedTuple):
    """What is known after a step, over all processes together."""

    loss: float  # the sum over what the model counts, its words
    count: float  # how many these are
    examples: float
    norm: float  # of the gradient, before clipping
    stop: float  # how many processes were asked to stop
    save: float  # above 0 when it is time to save


class _Loss(nn.Module):
    """model.loss as a forward pass, which torch.compile and DistributedDataParallel can wrap."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.model.loss(batch)


class Trainer:
    """Trains a model, and keeps in `folder`:

    last.pt         all that it takes to resume exactly: weights, optimizer, place, random states
    best.pt         the weights with the lowest validation loss
    metrics.jsonl   a line each second or few steps (see `Progress`)

    A model has `loss(batch) -> (sum, count)`; a step goes down the gradient of (sum / count), added up over the micro-batches
    of all processes. If the folder holds an unfinished run of the same settings, `fit` resumes it. `metadata` are kept in the
    checkpoint for whoever uses the model: its task and its data.

    With several processes (see engine/distributed.py) the batch, and so the training, is that of one process; only rank 0
    writes. Batch norm is not shared: each process normalizes by its own part of a batch (of accumulated ones, by each
    micro-batch), and the running statistics that are kept are those of rank 0. So keep micro-batches of 16 or more.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        data: tuple[Examples, Examples],
        folder: str | Path,
        metadata: dict | None = None,
    ):
        self.model_config = model_config
        self.config = config
        self.train, self.validation = data
        self.folder = Path(folder)
        self.metadata = metadata or {}
        self._check()
        self.rank = distributed.rank()
        self.processes = distributed.world_size()
        self.device = pick_device()
        self.prefetcher = self._make_feed()
        self.epoch_steps = len(self.prefetcher.loader)
        self.steps = config.epochs * self.epoch_steps
        self.step = self.skipped = self.skipped_in_a_row = 0
        self.best_loss = math.inf
        self.history = []
        self.signals = StopSignals()
        self.saved_at = time.monotonic()
        self._build(self._saved())

    def _check(self) -> None:
        if len(self.train) == 0 or len(self.validation) == 0:
            numbers = f"{len(self.train)} examples to train on and {len(self.validation)} to validate with"
            raise ValueError(f"{numbers}: both are needed")
        if self.config.lora and self.config.gradual_unfreezing:
            raise ValueError(
                "thaw frees what is frozen, but with a LoRA the rest of the model is to stay as it was: choose one"
            )

    def _make_feed(self) -> Prefetcher:
        workers = self.config.workers
        if workers is None:
            workers = (
                min(8, (os.cpu_count() or 1) // self.processes) if self.device.type == "cuda" else 0
            )
        sampler = BucketSampler(
            self.train.lengths,
            self.config.batch_size,
            self.config.seed,
            self.config.bucket_batches,
            (self.rank, self.processes),
        )
        return Prefetcher(make_loader(self.train, sampler, workers), self.device)

    def _build(self, saved: dict | None) -> None:
        """Make the model and its optimizer, as they begin, or as a checkpoint has them."""
        config = self.config
        with preserve_rng_state():
            torch.manual_seed(config.seed)
            self.model = build_model(self.model_config)
            start_from = (
                "" if saved and not config.lora else config.start_from
            )  # a saved run has no more need of it
            dropout = self.model_config.decoder.get("dropout", 0.0)
            prepare_for_finetuning(
                self.model, self.train.vocabularies, start_from, config.lora, config.freeze, dropout
            )
            self.model.to(self.device)
            torch.manual_seed(
                config.seed + 1 + self.rank
            )  # for dropout: another seed in each process
            self.get_rng_state = get_rng_state()
        self.precision = self._precision(saved)
        self.scaler = GradScaler(self.precision.dtype)
        self.model = self.model.to(memory_format=self.precision.layout)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, config.weight_decay, config.layer_decay),
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            fused=self.device.type == "cuda" or None,
        )
        self.frozen = [
            name for name, parameter in self.model.named_parameters() if not parameter.requires_grad
        ]
        self.base = fingerprint(self.model) if config.lora else None
        if saved:
            self._restore(saved)
        self._wrap()

    def fit(self, profile: bool = False) -> None:
        """Train to the end. Ctrl-C and SIGTERM finish the step, save, and raise KeyboardInterrupt.

        Raises MemoryError (which batch, and what to lower), FloatingPointError (which layer), ChildProcessError (a data
        worker), ConnectionError (another process ended), OSError (cannot write), each with one clear line.
        """
        path = self.folder / "metrics.jsonl" if self.rank == 0 else None
        progress = Progress(
            path,
            (self.step, self.steps),
            self.prefetcher.data_time,
            self.device,
            self.model.loss_unit,
        )
        with (
            closing(progress), self.signals, translate_errors(self._where), self.prefetcher.worker_errors(),
            preserve_rng_state(), deterministic(self.device),
        ):  # fmt: skip
            set_rng_state(self.get_rng_state)
            self.saved_at = time.monotonic()
            self.model.train()
            batches = self._batches()
            for batch in profiled(batches, self.folder) if profile and self.rank == 0 else batches:
                if self.config.gradual_unfreezing and gradual_unfreezing(
                    self.model,
                    self.frozen,
                    self.step / (self.config.gradual_unfreezing * self.steps),
                ):
                    self._wrap()
                stats = self._train_step(batch)
                self.step += 1
                rate = max(group["lr"] for group in self.optimizer.param_groups)
                progress.update(self.step, stats, rate, self.skipped)
                every = self.config.evaluate_every or self.epoch_steps
                if self.step % every == 0 or self.step == self.steps:
                    self._evaluate(progress)
                if stats.stop or stats.save or self.step == self.steps:
                    self._save("last.pt", resumable=True)
                if stats.stop:
                    break
            if self.signals.requested or self.step < self.steps:
                raise KeyboardInterrupt(
                    f"stopped at step {self.step} of {self.steps}; the same command goes on from there"
                )

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        while self.step < self.steps:
            yield from self.prefetcher.batches(*divmod(self.step, self.epoch_steps))

    def _wrap(self) -> None:
        """`forward` is the model's loss with the same weights, compiled and shared between processes."""
        self.forward = _Loss(self.model)
        if self.config.compile:
            self.forward = torch.compile(self.forward)
        if self.processes > 1:  # an encoder is unused where no example of a batch has its modality
            self.forward = DistributedDataParallel(self.forward, find_unused_parameters=True)

    def _train_step(self, batch: dict[str, Tensor]) -> Step:
        """One step down the gradient of the mean loss of a batch, over all its micro-batches in all processes."""
        buffers = [buffer.clone() for buffer in self.model.buffers()]

        # forward and backward
        loss, count, examples, unit = self._gradient(batch)
        self.prefetcher.prefetch()  # while a GPU is still busy with the gradient

        # add up over the processes
        late = self.rank == 0 and time.monotonic() - self.saved_at > SAVE_SECONDS
        flags = [loss.new_tensor(float(flag)) for flag in (self.signals.requested, late)]
        loss, count, examples, stop, save = distributed.all_reduce(
            torch.stack([loss, count, examples, *flags])
        )

        # clip
        self.scaler.unscale(self.model.parameters())
        if self.config.accumulation_steps > 1:
            self._rescale(unit / count)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        stats = Step(
            *torch.stack([loss, count, examples, norm, stop, save]).tolist()
        )  # here the CPU waits, once a step

        # step, or skip it: then weights, batch-norm statistics and schedule stay as they were
        is_finite = math.isfinite(stats.norm)
        if is_finite:
            self._set_learning_rates()
            self.optimizer.step()
            self.skipped_in_a_row = 0
        else:
            for buffer, before in zip(self.model.buffers(), buffers):
                buffer.copy_(before)
            self._skip(batch, math.isfinite(stats.loss))

        # zero
        self.optimizer.zero_grad()
        self.scaler.update(is_finite)
        return stats

    def _gradient(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Leaves in the parameters the gradient of (loss over all micro-batches and processes) / unit.

        -> this process' loss, count and examples, and `unit`, the count of the first micro-batch in all processes: the
        count of them all is known only at the end.
        """
        B = len(next(iter(batch.values())))
        loss = torch.zeros((), device=self.device)
        count = torch.zeros((), device=self.device)
        unit = None
        micro_batches = min(self.config.accumulation_steps, B)
        for i in range(micro_batches):
            micro_batch = {
                name: value[i::micro_batches] for name, value in batch.items()
            }  # short and long ones in each
            is_last = i == micro_batches - 1  # only then do processes exchange gradients
            with nullcontext() if self.processes == 1 or is_last else self.forward.no_sync():
                with self.precision.autocast():
                    part, part_count = self.forward(micro_batch)
                if unit is None:
                    unit = distributed.all_reduce(part_count.float().clone())
                    unit[unit == 0] = 1  # the others may have what the first micro-batch lacks
                # DistributedDataParallel takes the mean over processes: times their number, it is the sum
                (part * self.scaler.scale * self.processes / unit).backward()
            loss += part.detach()
            count += part_count
        return loss, count, loss.new_tensor(float(B)), unit

    def _rescale(self, factor: Tensor) -> None:
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad *= factor

    def _set_learning_rates(self) -> None:
        factor = warmup_and_cosine(
            self.step - self.skipped, self.steps, self.config.warmup_fraction
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * factor * group.get("factor", 1.0)

    def _skip(self, batch: dict[str, Tensor], loss_is_finite: bool) -> None:
        """Count a step whose gradient was not finite. After too many in a row, raise FloatingPointError."""
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row < (MAX_BAD_STEPS if loss_is_finite else MAX_BAD_LOSSES):
            return
        self.model.zero_grad()
        self._gradient(batch)  # once more: clipping has spoilt what was finite
        with self.precision.autocast():
            culprit = first_nonfinite(self.model, batch)
        raise FloatingPointError(
            f"{self.skipped_in_a_row} steps in a row had no finite gradient in {self.precision}, up to {self._where()}; what is "
            f"not finite first is {culprit}. Try a lower --learning-rate or another --precision, with another --to"
        )

    def _evaluate(self, progress: Progress) -> None:
        """Validate, and keep the weights if they are the best so far."""
        loss = self._validate()
        progress.validated(self.step, loss)
        self.history.append([self.step, loss])
        if loss < self.best_loss:
            self.best_loss = loss
            self._save("best.pt")

    @torch.no_grad()
    def _validate(self) -> float:
        """The mean loss over all validation examples, each counted once, by one of the processes."""
        self.model.eval()
        order = sorted(range(len(self.validation)), key=self.validation.lengths.__getitem__)
        order = order[self.rank :: self.processes]
        total = count = 0
        for first in range(0, len(order), self.config.batch_size):
            batch = collate(
                [self.validation[i] for i in order[first : first + self.config.batch_size]]
            )
            with self.precision.autocast():
                part, part_count = self.model.loss(to_device(batch, self.device))
            total += part.item()
            count += part_count.item()
        self.model.train()
        total, count = distributed.all_reduce(
            torch.tensor([total, count], dtype=torch.double)
        ).tolist()
        return total / count

    def _precision(self, saved: dict | None) -> Precision:
        """That of the run to resume, or the one asked for, or the fastest."""
        if saved:
            print(f"going on with {self.folder} at step {saved['step']} of {self.steps}")
            return Precision(self.device, getattr(torch, saved["dtype"]), saved["channels_last"])
        precision, why = pick_precision(self.device, self.config.precision)
        precision = Precision(
            self.device, *distributed.broadcast((precision.dtype, precision.channels_last))
        )
        print(f"device: {self.device}; precision: {precision} ({why})")
        return precision

    def _where(self) -> str:
        at_once = math.ceil(
            self.config.batch_size / (self.processes * self.config.accumulation_steps)
        )
        return f"step {self.step + 1} ({at_once} examples at once, on {self.device})"

    def _settings(self) -> dict:
        """What must be the same to resume a run."""
        settings = {
            "examples": len(self.train),
            "vocabularies": vocabulary_states(self.train.vocabularies),
        }
        settings |= self.metadata
        settings |= asdict(self.model_config)
        settings |= asdict(self.config)
        del settings["workers"]  # which change nothing
        return settings

    def _save(self, name: str, resumable: bool = False) -> None:
        """Write a checkpoint: rank 0 writes, with the random states of all."""
        state = {
            "version": VERSION,
            "model": trainable_state(self.model) if self.base else self.model.state_dict(),
            "base": self.base,  # a LoRA is kept without the weights that it changes
            "model_config": asdict(self.model_config),
            "train_config": asdict(self.config),
            "vocabularies": vocabulary_states(self.train.vocabularies),
            "metadata": self.metadata,
            "step": self.step,
            "history": self.history,
        }
        if resumable:
            state |= self._resumable_state()
            self.saved_at = time.monotonic()
        if self.rank == 0:
            write_atomically(self.folder / name, state)

    def _resumable_state(self) -> dict:
        """What a checkpoint needs besides the model, so that training can resume exactly."""
        epoch, place = divmod(self.step, self.epoch_steps)
        return {
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
            "rng_states": distributed.all_gather(get_rng_state()),
        }

    def _saved(self) -> dict | None:
        """The checkpoint to resume, if there is one; rank 0 reads it for all."""
        path = self.folder / "last.pt"
        saved = distributed.broadcast(
            read_run(path, self._settings()) if self.rank == 0 and path.exists() else None
        )
        if saved and len(saved["rng_states"]) != self.processes:
            before = len(saved["rng_states"])
            print(
                f"saved by {before} processes, gone on with by {self.processes}: the same, but not to the bit"
            )
        return saved

    def _restore(self, saved: dict) -> None:
        if self.base:
            load_lora(self.folder / "last.pt", self.model, saved)
        else:
            self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        vars(self.scaler).update(saved["scaler"])
        for name in ("step", "skipped", "skipped_in_a_row", "best_loss", "history"):
            setattr(self, name, saved[name])
        if len(saved["rng_states"]) == self.processes:
            self.get_rng_state = saved["rng_states"][self.rank]
