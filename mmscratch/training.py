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
from .engine.runs import VERSION, ensure_folder, lock, read_run
from .engine.signals import StopSignals, translate_errors
from .finetuning import (
    change_of,
    fingerprint,
    gradual_unfreezing,
    load_change,
    parameter_groups,
    prepare_for_finetuning,
    trainable_state,
    vocabulary_states,
)
from .model import ModelConfig, build_model
from .reliability import (
    GradScaler,
    first_nonfinite,
    get_rng_state,
    preserve_rng_state,
    set_rng_state,
    write_atomically,
)
from .streaming import ShardSampler, StreamedExamples

SAVE_SECONDS = 60  # between two checkpoints
FIRST_SAVE_SECONDS = 5  # after the start: a mistake that shows at once costs little
MAX_BAD_STEPS = 25  # in a row, with a gradient that is not finite, before training gives up
MAX_BAD_LOSSES = 3  # in a row, with a loss that is not finite either


@dataclass
class TrainConfig:
    """How a model is trained: plain values, saved in its checkpoint."""

    epochs: int = 1
    batch_size: int = 64  # examples per step, over all processes
    accumulation_steps: int = 1  # micro-batches per process and step: less memory, same gradient
    learning_rate: float = 2e-3  # at its peak
    warmup_fraction: float = 0.05  # of all steps: a linear warmup, then the rate falls as a cosine
    weight_decay: float = 0.05  # for matrices; biases, norms and single vectors do not decay
    clip_norm: float = 1.0  # a gradient with a larger norm is scaled down to it
    precision: str = "auto"  # or "float32", "bfloat16", "float16"
    compile: bool = False  # with torch.compile: minutes at first, then faster on a GPU
    evaluate_every: int | None = None  # steps; None: once per epoch
    keep_best: bool = True  # best.pt has the lowest validation loss; False: it is the last
    seed: int = 0
    workers: int | None = None  # data-loading processes; None: up to 8 on a GPU, none on a CPU
    bucket_batches: int | None = 50  # see `BucketSampler`
    shuffle: bool = True  # False: in the order of the data
    start_from: str = ""  # the weights: a run's folder, some with commas, or a torchvision model
    weights: str = ""  # the file of that torchvision model's weights; "": they are downloaded
    decoder_from: str = ""  # a folder with GPT-2, which becomes the decoder
    freeze: tuple[str, ...] = ()  # parameters that are not trained (see `finetuning.freeze`)
    gradual_unfreezing: float = 0.0  # unfreeze all layers within this fraction of steps; 0: never
    layer_decay: float = 1.0  # learning rate of a layer, divided by that of the next layer
    # trained instead of the model (see `finetuning.prepare_for_finetuning`); at most one:
    lora: int = 0  # rank of a LoRA of the decoder
    adapters: int = 0  # size of adapters in the decoder
    prompt: int = 0  # learned positions before the memory
    biases: bool = False  # the decoder's biases


def warmup_and_cosine(step: int, steps: int, warmup_fraction: float) -> float:
    """The learning rate's factor: a linear warmup to 1, then down to 0 along half a cosine.

        min((step + 1) / (warmup_fraction · steps), ½ + ½ cos(π step / steps))

    The warmup need not be a whole number of steps.
    """
    warmup = (step + 1) / (warmup_fraction * steps)
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
    return min(warmup, cosine)


class Step(NamedTuple):
    """The numbers of one step, over all processes."""

    loss: float  # the sum over what the model counts, usually words
    count: float  # how many of those
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

    last.pt         all it takes to resume exactly: weights, optimizer, position, random states
    best.pt         the weights with the lowest validation loss, or the last (`keep_best`)
    metrics.jsonl   a line every second or every few steps (see `Progress`)

    Parameters:

    model_config    the model to build
    config          how to train it
    data            examples to train on, and examples to validate with
    folder          if it holds an unfinished run with the same settings, `fit` resumes it
    metadata        the model's task and data, saved in the checkpoint for later use

    A model has `loss(batch) -> (sum, count)`. A step follows the gradient of sum / count, where
    both are added up over the micro-batches of all processes.

    Several processes (see engine/distributed.py) train on the same batches as one process would;
    only rank 0 writes. Batch norm is not shared: each process normalizes each of its micro-batches
    separately, and the running statistics of rank 0 are saved. So keep micro-batches of 16 or more.
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
        self.small_change = change_of(asdict(config))
        self._check()
        self.rank = distributed.rank()
        self.world_size = distributed.world_size()
        self.device = pick_device()
        self.prefetcher = self._make_prefetcher()
        self.epoch_steps = len(self.prefetcher.loader)
        self.steps = config.epochs * self.epoch_steps
        self.step = 0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.best_loss = math.inf
        self.history = []
        self.watch = None  # () -> {name: what the model writes now about this example}
        self.signals = StopSignals()
        self.digest = self.train.data.digest()
        self.saved_at = time.monotonic()
        self._build(self._read_checkpoint())

    def _check(self) -> None:
        training, validation = len(self.train), len(self.validation)
        if training == 0 or validation == 0:
            numbers = f"{training} examples to train on and {validation} to validate with"
            raise ValueError(f"{numbers}: both are needed")
        if self.config.accumulation_steps > 1 and not self.model_config.decoder:
            raise ValueError(
                "accumulation_steps must be 1 for a DualEncoder: its negatives are the other pairs "
                "of the batch, and a part of the batch has fewer"
            )
        if self.small_change and self.config.gradual_unfreezing:
            raise ValueError(
                "a small change, such as a LoRA, keeps the model frozen, gradual_unfreezing does "
                "not: choose one"
            )

    def _make_prefetcher(self) -> Prefetcher:
        config = self.config
        workers = config.workers
        if workers is None and self.device.type == "cuda":
            workers = min(8, (os.cpu_count() or 1) // self.world_size)
        share = (self.rank, self.world_size)
        if isinstance(self.train, StreamedExamples):
            sizes = self.train.data.shard_sizes
            sampler = ShardSampler(sizes, config.batch_size, config.seed, share)
        else:
            sampler = BucketSampler(
                self.train.sizes,
                config.batch_size,
                config.seed,
                config.bucket_batches,
                share,
                config.shuffle,
            )
        return Prefetcher(make_loader(self.train, sampler, workers or 0), self.device)

    def _build(self, saved: dict | None) -> None:
        """Build the model and its optimizer: new, or as `saved` in a checkpoint."""
        config = self.config
        with preserve_rng_state():
            torch.manual_seed(config.seed)
            self.model = build_model(self.model_config)
            self._prepare(saved)
            self.model.to(self.device)
            torch.manual_seed(config.seed + 1 + self.rank)  # dropout differs between processes
            self.rng_state = get_rng_state()
        self.precision = self._choose_precision(saved)
        self.scaler = GradScaler(self.precision.dtype)
        self.model = self.model.to(memory_format=self.precision.layout)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, config.weight_decay, config.layer_decay),
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            fused=self.device.type == "cuda" or None,
        )
        parameters = self.model.named_parameters()
        self.frozen = [name for name, parameter in parameters if not parameter.requires_grad]
        self.base = fingerprint(self.model) if self.small_change else None
        if saved:
            self._restore(saved)
        self._wrap()

    def _prepare(self, saved: dict | None) -> None:
        """Load the weights to start from, add the small change, freeze parameters."""
        config = self.config
        start_from = config.start_from
        decoder_from = config.decoder_from
        if saved and not self.small_change:
            start_from = decoder_from = ""  # the checkpoint has all weights
        dropout = self.model_config.decoder.get("dropout", 0.0)
        vocabularies = self.train.vocabularies
        prepare_for_finetuning(
            self.model,
            vocabularies,
            start_from,
            frozen=config.freeze,
            dropout=dropout,
            weights=config.weights,
            decoder_from=decoder_from,
            **self.small_change,
        )

    def fit(self, profile: bool = False) -> None:
        """Train to the end. Ctrl-C and SIGTERM finish the step, save, and raise KeyboardInterrupt.

        Raises MemoryError (which batch, and what to lower), FloatingPointError (which layer),
        ChildProcessError (a data worker), ConnectionError (another process ended) and OSError
        (cannot write), each with a message of one line.
        """
        with (
            lock(self.folder) if self.rank == 0 else nullcontext(),
            closing(self._start_progress()) as progress,
            self.signals,
            translate_errors(self._describe_step, can_accumulate=bool(self.model_config.decoder)),
            self.prefetcher.worker_errors(),
            preserve_rng_state(),
            deterministic(self.device),
        ):
            set_rng_state(self.rng_state)
            self.saved_at = time.monotonic() - SAVE_SECONDS + FIRST_SAVE_SECONDS
            self.model.train()
            batches = self._batches()
            if profile and self.rank == 0:
                batches = profiled(batches, self.folder)
            for batch in batches:
                self._unfreeze_layers()
                stats = self._train_step(batch)
                self.step += 1
                rate = max(group["lr"] for group in self.optimizer.param_groups)
                progress.update(self.step, stats, rate, self.skipped)
                is_last = self.step == self.steps
                if self.step % (self.config.evaluate_every or self.epoch_steps) == 0 or is_last:
                    self._evaluate(progress)
                if stats.stop or stats.save or is_last:
                    self._save("last.pt", resumable=True)
                if stats.stop:
                    break
            if self.signals.requested or self.step < self.steps:
                raise KeyboardInterrupt(
                    f"stopped at step {self.step} of {self.steps}; "
                    "the same command resumes from there"
                )

    def _start_progress(self) -> Progress:
        path = self.folder / "metrics.jsonl" if self.rank == 0 else None
        steps = (self.step, self.steps)
        data_time = self.prefetcher.data_time
        return Progress(path, steps, data_time, self.device, self.model.loss_unit)

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        while self.step < self.steps:
            epoch, skip = divmod(self.step, self.epoch_steps)
            yield from self.prefetcher.batches(epoch, skip)

    def _wrap(self) -> None:
        """Make `forward`: the model's loss, with the same weights, compiled and distributed."""
        self.forward = _Loss(self.model)
        if self.config.compile:
            self.forward = torch.compile(self.forward)
        if self.world_size > 1:  # an encoder is unused if no example of a batch has its modality
            self.forward = DistributedDataParallel(self.forward, find_unused_parameters=True)

    def _unfreeze_layers(self) -> None:
        """Unfreeze the layers whose time has come; `forward` must then be wrapped again."""
        if not self.config.gradual_unfreezing:
            return
        fraction = self.step / (self.config.gradual_unfreezing * self.steps)
        if gradual_unfreezing(self.model, self.frozen, fraction):
            self._wrap()

    def _train_step(self, batch: dict[str, Tensor]) -> Step:
        """One step down the gradient of loss / count, both summed over all micro-batches.

        The count is known only after the last micro-batch. Until then each loss is divided by
        `first_count`, the count of all processes' first micro-batches; any number would do, and
        this one keeps gradients at their usual size. If the gradient is not finite, the step is
        skipped: weights, batch-norm statistics and schedule stay as they were.
        """
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        loss_sum = torch.zeros((), device=self.device)
        count_sum = torch.zeros((), device=self.device)
        first_count = None
        for micro_batch in self._micro_batches(batch):
            # forward
            with self.precision.autocast():
                loss, count = self.forward(micro_batch)
            loss_sum += loss.detach()
            count_sum += count
            if first_count is None:
                first_count = distributed.all_reduce(count_sum.clone())
                first_count[first_count == 0] = 1  # later micro-batches may have words
            # backward: the gradients of the micro-batches add up
            self._scaled(loss, first_count).backward()
        self.prefetcher.prefetch()  # while a GPU is still busy with the gradient
        loss, count, examples, *flags = self._sum_over_processes(batch, loss_sum, count_sum)

        # clip
        self.scaler.unscale(self.model.parameters())
        if self.config.accumulation_steps > 1:
            self._rescale(first_count / count)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        stats = torch.stack([loss, count, examples, norm, *flags])
        stats = Step(*stats.tolist())  # here the CPU waits for the GPU

        # step, or skip
        is_finite = math.isfinite(stats.norm)
        if is_finite:
            self._set_learning_rates()
            self.optimizer.step()
            self.skipped_in_a_row = 0
        else:
            for buffer, before in zip(self.model.buffers(), buffers):
                buffer.copy_(before)
            self._skip(batch, first_count, math.isfinite(stats.loss))

        # zero
        self.optimizer.zero_grad()
        self.scaler.update(is_finite)
        return stats

    def _micro_batches(self, batch: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Deal the examples of a batch out to `accumulation_steps` micro-batches, like cards.

        So each has short and long examples. A smaller batch gives one micro-batch per example.
        Processes exchange gradients only in the last backward pass: others run within `no_sync`.
        """
        size = len(next(iter(batch.values())))
        number = min(self.config.accumulation_steps, size)
        for i in range(number):
            is_last = i == number - 1
            sync = nullcontext() if self.world_size == 1 or is_last else self.forward.no_sync()
            with sync:
                yield {name: value[i::number] for name, value in batch.items()}

    def _scaled(self, loss: Tensor, first_count: Tensor) -> Tensor:
        """What to call backward() on: loss / first_count, times the float16 scale.

        DistributedDataParallel averages gradients over processes. Times `world_size`, it sums them.
        """
        return loss * self.scaler.scale * self.world_size / first_count

    def _sum_over_processes(self, batch: dict[str, Tensor], loss: Tensor, count: Tensor) -> Tensor:
        """-> (5,): loss, count, examples, requests to stop, and whether it is time to save."""
        examples = len(next(iter(batch.values())))
        late = self.rank == 0 and time.monotonic() - self.saved_at > SAVE_SECONDS
        others = loss.new_tensor([examples, self.signals.requested, late])
        return distributed.all_reduce(torch.stack([loss, count, *others]))

    def _rescale(self, factor: Tensor) -> None:
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad *= factor

    def _set_learning_rates(self) -> None:
        """Give each parameter group its learning rate; skipped steps do not move the schedule."""
        step = self.step - self.skipped
        factor = warmup_and_cosine(step, self.steps, self.config.warmup_fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * factor * group.get("factor", 1.0)

    def _skip(self, batch: dict[str, Tensor], first_count: Tensor, loss_is_finite: bool) -> None:
        """Count a step whose gradient was not finite.

        Raises FloatingPointError after too many in a row.
        """
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row < (MAX_BAD_STEPS if loss_is_finite else MAX_BAD_LOSSES):
            return
        self.model.zero_grad()
        for micro_batch in self._micro_batches(batch):  # again: clipping has spoilt the gradients
            with self.precision.autocast():
                loss, _ = self.forward(micro_batch)
            self._scaled(loss, first_count).backward()
        with self.precision.autocast():
            culprit = first_nonfinite(self.model, batch)
        raise FloatingPointError(
            f"{self.skipped_in_a_row} steps in a row had no finite gradient in {self.precision}, "
            f"up to {self._describe_step()}; the first value that is not finite is in {culprit}. "
            "Try a lower --learning-rate or another --precision, with another --to"
        )

    def _evaluate(self, progress: Progress) -> None:
        """Validate, and keep the weights if they are the best so far, or without `keep_best`."""
        loss = self._validate()
        outputs = {}
        if self.watch and self.rank == 0:
            outputs = self.watch()
            self.model.train()
        progress.validated(self.step, loss, outputs)
        self.history.append([self.step, loss])
        is_best = loss < self.best_loss
        if is_best:
            self.best_loss = loss
        if is_best or not self.config.keep_best:
            self._save("best.pt")

    @torch.no_grad()
    def _validate(self) -> float:
        """The mean loss over all validation examples; the processes share the batches out.

        The batches do not depend on the number of processes: a contrastive loss depends on them.
        """
        self.model.eval()
        batch_size = self.config.batch_size
        order = sorted(range(len(self.validation)), key=self.validation.sizes.__getitem__)
        loss_sum = 0.0
        count_sum = 0
        first_batch = self.rank * batch_size
        for first in range(first_batch, len(order), self.world_size * batch_size):
            examples = [self.validation[i] for i in order[first : first + batch_size]]
            batch = to_device(collate(examples), self.device)
            with self.precision.autocast():
                loss, count = self.model.loss(batch)
            loss_sum += loss.item()
            count_sum += count.item()
        self.model.train()
        sums = torch.tensor([loss_sum, count_sum], dtype=torch.double)
        loss_sum, count_sum = distributed.all_reduce(sums).tolist()
        return loss_sum / count_sum

    def _choose_precision(self, saved: dict | None) -> Precision:
        """The precision of the run to resume, or the one asked for, or the fastest."""
        if saved:
            print(f"resuming {self.folder} at step {saved['step']} of {self.steps}")
            dtype = getattr(torch, saved["dtype"])
            return Precision(self.device, dtype, saved["channels_last"])
        precision, why = pick_precision(self.device, self.config.precision)
        options = distributed.broadcast((precision.dtype, precision.channels_last))
        precision = Precision(self.device, *options)
        print(f"device: {self.device}; precision: {precision} ({why})")
        return precision

    def _describe_step(self) -> str:
        parts = self.world_size * self.config.accumulation_steps
        at_once = math.ceil(self.config.batch_size / parts)
        return f"step {self.step + 1} ({at_once} examples at once, on {self.device})"

    def _settings(self) -> dict:
        """All that must be the same when a run is resumed."""
        settings = {
            "examples": len(self.train),
            "vocabularies": vocabulary_states(self.train.vocabularies),
        }
        settings |= self.metadata
        settings["data"] = f"with contents {self.digest}"  # wherever it lies
        settings |= asdict(self.model_config)
        settings |= asdict(self.config)
        del settings["workers"]  # their number changes nothing
        return settings

    def _save(self, name: str, resumable: bool = False) -> None:
        """Write a checkpoint: rank 0 writes, with the random states of all processes."""
        small = self.small_change  # its checkpoint leaves out the weights that stay as they are
        state = {
            "version": VERSION,
            "model": trainable_state(self.model) if small else self.model.state_dict(),
            "base": self.base,
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
            ensure_folder(self.folder)
            write_atomically(self.folder / name, state)

    def _resumable_state(self) -> dict:
        """What a checkpoint needs, apart from the model, to resume training exactly."""
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

    def _read_checkpoint(self) -> dict | None:
        """The checkpoint to resume from, or None; rank 0 reads it for all processes."""
        path = self.folder / "last.pt"
        saved = None
        if self.rank == 0 and path.exists():
            saved = read_run(path, self._settings())
        saved = distributed.broadcast(saved)
        if saved and len(saved["rng_states"]) != self.world_size:
            print(
                f"saved by {len(saved['rng_states'])} processes, resuming with {self.world_size}: "
                "the run continues but is not bit-identical"
            )
        return saved

    def _restore(self, saved: dict) -> None:
        """Continue from a checkpoint."""
        if self.small_change:
            load_change(self.folder / "last.pt", self.model, saved)
        else:
            self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        vars(self.scaler).update(saved["scaler"])
        for name in ("step", "skipped", "skipped_in_a_row", "best_loss", "history"):
            setattr(self, name, saved[name])
        if len(saved["rng_states"]) == self.world_size:
            self.rng_state = saved["rng_states"][self.rank]
