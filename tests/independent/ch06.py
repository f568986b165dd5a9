"""Right solutions of chapter 6's exercises, in other styles than the library's (see test_proofs.py)."""

# %% 6 warmup_and_cosine
from math import cos, pi


def warmup_and_cosine(step, steps, warmup_fraction):
    progress = step / steps
    falling = (1 + cos(pi * progress)) / 2
    warmup_steps = warmup_fraction * steps
    if warmup_steps == 0:
        return falling
    rising = (step + 1) / warmup_steps
    return rising if rising < falling else falling


# %% 6 EncoderDecoder.loss
class EncoderDecoder(nn.Module):
    def loss(self, batch):
        if self.objective is not None:
            return self.objective(self, batch)
        s, ratio = 0.0, 1.0
        if self.training:
            s, ratio = self.label_smoothing, self.teacher_forcing_ratio
        words = batch["target"].reshape(-1)
        logits = self(batch, teacher_forcing_ratio=ratio).to(torch.float32)
        log_p = F.log_softmax(logits.reshape(len(words), -1), dim=1)
        real = words != PAD
        log_p, words = log_p[real], words[real]
        of_the_word = log_p[torch.arange(len(words), device=words.device), words]
        losses = (s - 1) * of_the_word - s * log_p.mean(dim=1)
        return losses.sum(), real.sum()


# %% 6 GradScaler.update
PATIENCE = 2_000


class GradScaler:
    def unscale(self, parameters):
        if self.enabled:
            with torch.no_grad():
                for p in parameters:
                    if p.grad is None:
                        continue
                    p.grad.mul_(1 / self.scale)

    def update(self, finite):
        if self.enabled and finite:
            self.good_steps = (self.good_steps + 1) % PATIENCE
            self.scale *= 1 if self.good_steps else 2
        elif self.enabled:
            self.good_steps, self.scale = 0, 0.5 * self.scale


# %% 6 Trainer._micro_batches
class Trainer:
    def _micro_batches(self, batch):
        examples = min(len(tensor) for tensor in batch.values())
        hands = min(examples, self.config.accumulation_steps)
        for hand in range(hands):
            cards = torch.arange(hand, examples, hands)
            dealt = {}
            for name in batch:
                dealt[name] = batch[name][cards.to(batch[name].device)]
            if self.world_size > 1 and hand < hands - 1:
                with self.forward.no_sync():
                    yield dealt
            else:
                yield dealt

    def _scaled(self, loss, first_count):
        factor = self.world_size * self.scaler.scale / first_count
        return factor * loss


# %% 6 Trainer._train_step
class Trainer:
    def _train_step(self, batch):
        model = self.model
        weights = [p for p in model.parameters() if p.requires_grad]
        kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
        losses, counts, divisor = [], [], None
        for part in self._micro_batches(batch):
            with self.precision.autocast():
                loss, count = self.forward(part)
            losses.append(loss.detach())
            counts.append(count.detach().float())
            if divisor is None:
                divisor = distributed.all_reduce(counts[0].clone())
                if divisor == 0:
                    divisor = torch.ones_like(divisor)
            self._scaled(loss, divisor).backward()
        self.prefetcher.prefetch()
        sums = self._sum_over_processes(batch, torch.stack(losses).sum(), torch.stack(counts).sum())
        loss_sum, count_sum, examples, stop, save = sums

        self.scaler.unscale(weights)
        if self.config.accumulation_steps != 1:
            self._rescale(divisor / count_sum)
        norm = torch.nn.utils.clip_grad_norm_(weights, max_norm=self.config.clip_norm)
        step = Step(*[float(x) for x in (loss_sum, count_sum, examples, norm, stop, save)])

        good = math.isfinite(step.norm)
        if good:
            self._set_learning_rates()
            self.optimizer.step()
            self.skipped_in_a_row = 0
        else:
            with torch.no_grad():
                for name, buffer in model.named_buffers():
                    buffer.copy_(kept[name])
            self._skip(batch, divisor, math.isfinite(step.loss))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.update(good)
        return step

    def _set_learning_rates(self):
        made = self.step - self.skipped
        peak = self.config.learning_rate
        now = peak * warmup_and_cosine(made, self.steps, self.config.warmup_fraction)
        for group in self.optimizer.param_groups:
            if "factor" in group:
                group["lr"] = now * group["factor"]
            else:
                group["lr"] = now


# %% 6 write_atomically
from contextlib import suppress


def _write_and_flush(path, state):
    with path.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())


def write_atomically(path, state):
    beside = path.parent / f"{path.name}.writing"
    problem = None
    try:
        os.makedirs(path.parent, exist_ok=True)
        _write_and_flush(beside, state)
        os.replace(beside, path)
        return
    except (OSError, RuntimeError) as error:
        problem = " ".join(_reason(error).split())
    finally:
        with suppress(OSError):
            os.remove(beside)
    raise OSError(f"could not save {path} ({problem})")


# %% 6 BucketSampler.__iter__
import random

import numpy as np


class BucketSampler:
    def __iter__(self):
        yield from self._shards()

    def _shards(self):
        draw = random.Random(seed_of(self.seed, self.epoch))
        order = np.arange(len(self.lengths)).tolist()
        if self.shuffle:
            draw.shuffle(order)
        batches = []
        while order:
            bucket, order = order[: self.bucket_size], order[self.bucket_size :]
            bucket = sorted(bucket, key=lambda example: self.lengths[example])
            while bucket:
                batches.append(bucket[: self.batch_size])
                bucket = bucket[self.batch_size :]
        if self.shuffle:
            draw.shuffle(batches)
        del batches[: self.skip]
        for batch in batches:
            if self.rank < len(batch):
                mine = range(self.rank, len(batch), self.world_size)
                yield [(batch[k], self.epoch) for k in mine]
            else:
                yield [(batch[-1], None)]


# %% 6 first_nonfinite
from dataclasses import dataclass


@dataclass
class Watch:
    """A forward hook that notes the name of its module if the output is not finite."""

    name: str
    noted: list

    def __call__(self, module, inputs, output):
        if not _is_finite(output):
            self.noted.append(self.name)


def first_nonfinite(model, batch):
    parameters = list(model.named_parameters())
    for name, weight in parameters:
        if not torch.isfinite(weight).all():
            return f"the weight {name}"
    noted, handles = [], []
    try:
        for name, module in model.named_modules():
            watch = Watch(name if name else "the model", noted)
            handles.append(module.register_forward_hook(watch))
        with torch.no_grad():
            model(batch)
    finally:
        while handles:
            handles.pop().remove()
    if noted:
        return f"the output of {noted[0]}"
    for name, weight in parameters[::-1]:
        if weight.grad is None or torch.isfinite(weight.grad).all():
            continue
        return f"the gradient of {name}"
    return "the loss"


def _is_finite(output):
    waiting = [output]
    while waiting:
        value = waiting.pop()
        if isinstance(value, tuple):
            waiting.extend(value)
        elif torch.is_tensor(value) and not torch.isfinite(value).all():
            return False
    return True
