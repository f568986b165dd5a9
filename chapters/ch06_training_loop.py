# %% [markdown]
# # 6 · The training loop
#
# **Adds** the loop that trains the same model on a laptop, one GPU or many: device, batches, clipping, accumulation, precision, prefetching, checkpoints, processes. **Takes** 2.7 min on two cores.
#
# Five lines train a network; they fit on a slide. But a run that takes a night meets what a slide
# does not show: a batch too large for the memory, a gradient a hundred times too long, a full disk,
# a power cut, a second GPU that should help. What does it take to make the five lines reliable? We
# make each addition by hand, read it in the library, and then **measure**: what does it cost, what
# does it gain, and does the training stay the same?

# %%
import io
import multiprocessing
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stdout
from functools import partial
from itertools import islice
from statistics import mean, median
from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

# %%
from chapters.chapter import Chapter, show
from chapters.drawings import ch06 as drawings
from mmscratch import training
from mmscratch.batches import BucketSampler, Examples, Prefetcher, collate, make_loader
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.dataset import LazyColumn
from mmscratch.data.scenes import render
from mmscratch.engine.devices import pick_precision
from mmscratch.engine.runs import read_checkpoint
from mmscratch.images import open_image, to_tensor
from mmscratch.model import EncoderDecoder, ModelConfig
from mmscratch.reliability import GradScaler, get_rng_state, write_atomically
from mmscratch.text import PAD, Vocabulary
from mmscratch.training import TrainConfig, Trainer, warmup_and_cosine

chapter = Chapter(6)
BLUE, PALE, RED, GREEN = "#2171b5", "#9ecae1", "#d94801", "#238b45"

# %% [markdown]
# ## The idea

# %%
chapter.draw(drawings.five_lines(), "five lines and what this chapter adds to them")

# %% [markdown]
# Blue is the slide, brown is this chapter, and the line at the bottom is the promise that it has to
# keep.
#
# ## By hand
#
# The data are scenes. The model is a small captioner: a ResNet, and an LSTM that attends to the
# picture for each word. Everything in this chapter is measured on the **CPU**, even on a machine
# with a GPU.


# %%
def pick_cpu():
    return torch.device("cpu")


training.pick_device = pick_cpu
TRAIN_SCENES = chapter.choose(4_000, fast=160)
VALIDATION_SCENES = chapter.choose(40, fast=2)
train_set = SceneCaptions("train", TRAIN_SCENES, one_caption_each=True)
validation_set = SceneCaptions("validation", VALIDATION_SCENES)
captions = []
for references in train_set.references + validation_set.references:
    captions += references
vocabulary = Vocabulary.build(captions)
VOCABULARIES = {"target": vocabulary}
examples = Examples(train_set, VOCABULARIES)
held_out = Examples(validation_set, VOCABULARIES)

RESNET = {"name": "resnet", "width": 16}
LSTM = {"name": "lstm", "hidden_size": 128}
MODEL = ModelConfig(len(vocabulary), {"image": RESNET}, LSTM, embed_dim=128)

# %% [markdown]
# Model and optimizer come from a `Trainer`; the loop does not. The same seed gives the same initial
# weights and the same batches. There are no buckets, so each batch is a random sample (chapter 1).


# %%
def new_trainer(examples=examples, **settings):
    """The library's Trainer; 32 captions a step in float32 unless changed."""
    defaults = {"batch_size": 32, "bucket_batches": None, "precision": "float32"}
    config = TrainConfig(**(defaults | settings))
    folder = chapter.folder / "never-written"
    with redirect_stdout(io.StringIO()):  # it prints its device each time
        return Trainer(MODEL, config, (examples, held_out), folder)


def new_loader(examples, workers=0):
    """Shuffled batches of 32."""
    sampler = BucketSampler(examples.lengths, 32, bucket_batches=None)
    return make_loader(examples, sampler, workers)


def mean_loss(model, batch):
    logits = model(batch).flatten(0, 1)  # (B T, V)
    return F.cross_entropy(logits, batch["target"].flatten(), ignore_index=PAD)


# %% [markdown]
# The plain loop has the five lines of the slide, and two more from chapters 3 to 5: clipping and
# the schedule.


# %%
class History(NamedTuple):
    """For each step: the loss, the length of the gradient, and the time."""

    losses: list
    norms: list
    seconds: list

    def milliseconds(self):
        """The median time per step."""
        return 1000 * median(self.seconds)


# %%
def plain_loop(trainer, steps, loss_function=mean_loss):
    """Train for `steps` steps."""
    model = trainer.model.train()
    optimizer = trainer.optimizer
    rate = partial(warmup_and_cosine, steps=trainer.steps, warmup_fraction=0.05)
    history = History([], [], [])
    before = time.perf_counter()
    schedule = LambdaLR(optimizer, rate)
    for batch in islice(new_loader(examples), steps):  # 1
        loss = loss_function(model, batch)  # 2
        loss.backward()  # 3
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()  # 4
        schedule.step()
        optimizer.zero_grad()  # 5
        history.losses.append(loss.item())
        history.norms.append(norm.item())
        history.seconds.append(time.perf_counter() - before)
        before = time.perf_counter()
    return history


# %% [markdown]
# **Clipping.** The gradients of all parameters form one long vector. If it is longer than a limit,
# it is shortened to the limit, and keeps its direction.


# %%
def gradient(model, loss):
    """The gradients of all parameters, as one vector."""
    grads = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([grad.flatten() for grad in grads])


batch = next(iter(new_loader(examples)))
# In eval mode batch norm uses fixed statistics; what it does in training comes below.
model = new_trainer().model.eval()
whole = gradient(model, mean_loss(model, batch))
length = sum(g**2 for g in whole.tolist()) ** 0.5
by_hand = whole * min(1, 0.5 / length)

mean_loss(model, batch).backward()
nn.utils.clip_grad_norm_(model.parameters(), 0.5)
clipped = torch.cat([p.grad.flatten() for p in model.parameters()])
assert torch.allclose(clipped, by_hand, atol=1e-6)
print(f"{len(whole):,} gradients, together of length {length:.3f}; ", end="")
print(f"clipped at 0.5: {by_hand.norm():.3f}")

# %% [markdown]
# **Accumulation.** A batch that does not fit into memory is split into **micro-batches**. They are
# computed one after another, and their gradients add up. But the loss is a mean over words, and
# here is the trap: the mean of the micro-batches' means is a different number. Two sentences show
# it:

# %%
short = [4.0, 2.0]  # the loss of each word
long = [1.0] * 6
mean_of_both = (mean(short) + mean(long)) / 2
mean_of_words = mean(short + long)
print(f"mean of the two means {mean_of_both}, mean over the words {mean_of_words}")

# %% [markdown]
# A word of the short sentence would count three times as much as a word of the long one. That is
# why a model's `loss(batch)` does not return a mean. It returns two numbers, the **sum** of its
# losses and the **count** of its words, and the loop divides: the sum over all micro-batches and
# processes by the count over all micro-batches and processes. In code, the right way and the wrong
# one:


# %%
def split(batch, parts):
    """The batch as a list of micro-batches."""
    micro_batches = [{} for _ in range(parts)]
    for name, value in batch.items():
        for micro_batch, part in zip(micro_batches, value.tensor_split(parts)):
            micro_batch[name] = part
    return micro_batches


def mean_over_words(model, batch, parts=4):
    total = 0
    words = 0
    for micro_batch in split(batch, parts):
        loss, count = model.loss(micro_batch)
        total = total + loss
        words = words + count
    return total / words


def mean_of_means(model, batch, parts=4):
    means = [mean_loss(model, micro_batch) for micro_batch in split(batch, parts)]
    return sum(means) / parts


# %% [markdown]
# **Processes.** Two processes, each with its own copy of the model, compute the gradients of half a
# batch each, at the same time. Then an **all-reduce** gives both the sum of their gradients: both
# make the same step, so the copies stay identical. Here are two processes, simulated in one:

# %%
halves = []
for rank in (0, 1):
    halves.append({name: value[rank::2] for name, value in batch.items()})
losses, counts = zip(*[model.loss(half) for half in halves])
count = sum(counts)  # the first all-reduce
reduced = sum(gradient(model, loss / count) for loss in losses)  # the second
assert torch.allclose(reduced, whole, atol=1e-6)
print(f"{[n.item() for n in counts]} words; ", end="")
print(f"two processes and one differ by {(reduced - whole).abs().max():.0e}")

# %% [markdown]
# **The loss scale.** float16 has 16 bits, half of float32's, and nothing between 0 and 6e-8: a
# gradient of 1e-8 becomes 0. So we multiply the loss by 65,536. By the chain rule every gradient is
# then 65,536 times as large. Before it is used, it is divided by 65,536 again, in float32.

# %%
print("gradient   as float16   with the loss times 65,536")
for value in (1e-3, 1e-6, 1e-8):
    plain = torch.tensor(value).half().item()
    scaled = torch.tensor(value * 65536).half().float() / 65536
    print(f"{value:8.0e}   {plain:10.3g}   {scaled.item():10.3g}")
overflow = torch.tensor(2.0 * 65536).half().item()
print(f"but a gradient of 2, times 65,536, is {overflow}: float16 ends at 65,504")

# %% [markdown]
# ## The piece
#
# The loop knows only one thing about a model, its `loss(batch)`. This is the loss of all models in
# this book that generate text. Another model may count something other than words; the loop does
# not change.

# %%
show(EncoderDecoder.loss)

# %% [markdown]
# Here is one step of the library with all of that: forward, backward, clip, step, zero.
# `distributed.all_reduce` is the all-reduce; with only one process it does nothing. The count over
# all micro-batches is known only after the last one, and by then their gradients have been added
# up. So each loss is divided by `first_count`, the number of words in the first micro-batches of
# all processes. Any number would do; this one keeps the gradients at their usual size, which
# matters in float16. Before clipping, the gradient is multiplied by `first_count / count`.

# %%
show(Trainer._train_step)
show(Trainer._micro_batches)
show(Trainer._scaled)

# %% [markdown]
# `fit` is the loop around the step. It validates, saves, and stops between two steps, never within
# one.

# %%
show(Trainer.fit)

# %%
show(GradScaler)
show(Prefetcher)
show(write_atomically)

# %% [markdown]
# In one micro-batch or many, the `Trainer` steps with the same gradient as ours:


# %%
def trainers_gradient(micro_batches):
    """The gradient at the moment when the optimizer takes its step."""
    trainer = new_trainer(accumulation_steps=micro_batches, clip_norm=1e9)
    trainer.model.eval()
    grads = []

    def note(*_):
        for parameter in trainer.model.parameters():
            grads.append(parameter.grad.flatten())

    trainer.optimizer.register_step_pre_hook(note)
    trainer._train_step(batch)
    return torch.cat(grads)


for micro_batches in (1, 4, 32):
    difference = (trainers_gradient(micro_batches) - whole).abs().max()
    assert difference < 1e-6
    print(f"micro-batches {micro_batches:2}: differs from ours by {difference:.0e}")

# %% [markdown]
# ## Train it
#
# Same weights, same batches: once through the plain loop and once through the library's. We
# alternate the two and run each twice, so that a busy moment of the machine does not decide the
# comparison.


# %%
def train(trainer, steps=10**9):
    """Like `Trainer.fit`, for at most `steps` steps, without checkpoints."""
    history = History([], [], [])
    before = time.perf_counter()
    trainer.model.train()
    for batch in islice(trainer._batches(), steps):
        step = trainer._train_step(batch)
        trainer.step += 1
        history.losses.append(step.loss / step.count)
        history.norms.append(step.norm)
        history.seconds.append(time.perf_counter() - before)
        before = time.perf_counter()
    return history


# %%
steps = chapter.choose(60, fast=3)
plain, library = [], []
for _ in range(2):
    plain.append(plain_loop(new_trainer(), steps))
    library.append(train(new_trainer(), steps))
losses = plain[0].losses
largest = max(abs(a - b) for a, b in zip(losses, library[0].losses))
assert largest < 1e-5
plain_time = min(history.milliseconds() for history in plain)
library_time = min(history.milliseconds() for history in library)
print(f"plain loop {plain_time:.1f} ms a step, Trainer {library_time:.1f} ms")
print(f"first loss {losses[0]:.3f}, last {losses[-1]:.3f}; ", end="")
print(f"the two loops differ by {largest:.0e} at most")

# %% [markdown]
# 24.9 against 23.6 ms: everything that the library's step does in addition is lost in the noise of
# this measurement.
#
# ## Look
#
# ### Batches
#
# How many captions should a step look at? Every run below sees the same pictures once, in batches
# of 1 to 64, at two learning rates, since the best rate depends on the batch size. (Chapter 1
# measured what sorting by length saves.)


# %%
@torch.no_grad()
def one_at_a_time(trainer):
    """The held-out loss per word with batch norm in train mode, picture by picture."""
    trainer.model.train()
    losses = [trainer.model.loss(collate([example]))[0].item() for example in held_out]
    return sum(losses) / sum(held_out.lengths)


# %%
SIZES = (1, 4, 16, 64)
FEW = chapter.choose(1024, fast=32)
few_scenes = SceneCaptions("train", FEW, one_caption_each=True)
few_examples = Examples(few_scenes, VOCABULARIES)
times, held_out_losses, training_losses = {}, {}, {}
for rate in (8e-3, 2e-3):
    for size in SIZES:
        trainer = new_trainer(few_examples, batch_size=size, learning_rate=rate)
        history = train(trainer)
        times[rate, size] = history.milliseconds() / size
        held_out_losses[rate, size] = trainer._validate()
        last_quarter = history.losses[-max(1, len(history.losses) // 4) :]
        training_losses[rate, size] = mean(last_quarter)
        if size == 1:
            print(f"one caption a step, rate {rate:g}: ", end="")
            print(f"training {training_losses[rate, 1]:.2f}, ", end="")
            print(f"held out {held_out_losses[rate, 1]:.2f}, ", end="")
            print(f"with batch norm as in training {one_at_a_time(trainer):.2f}")


# %%
def panels(rows, columns, height, **shared):
    figure = Figure(figsize=(7.6, height), dpi=100, layout="constrained")
    return figure, figure.subplots(rows, columns, **shared)


figure, (left, right) = panels(1, 2, 3)
heights = [times[2e-3, size] for size in SIZES]
left.bar_label(left.bar(range(4), heights, 0.6, color=PALE), fmt="%.1f", fontsize=8)
left.set(ylabel="ms a picture", title="time")
left.margins(y=0.15)
for rate, colour in ((8e-3, BLUE), (2e-3, PALE)):
    y = [held_out_losses[rate, size] for size in SIZES]
    right.plot(y, "o-", color=colour, label=f"held out, rate {rate:g}")
    y = [training_losses[rate, size] for size in SIZES]
    label = f"training, rate {rate:g}"
    right.plot(y, "o:", color=colour, markerfacecolor="white", label=label)
right.set(ylabel="loss per word", title=f"after {len(few_examples):,} pictures")
right.legend(fontsize=7.5)
for axis in (left, right):
    axis.set_xticks(range(4), SIZES)
    axis.set(xlabel="captions a step")
chapter.draw(figure, "what a batch size costs and gains")

# %% [markdown]
# In a batch of 64 a picture costs 0.7 ms, alone 6.4 ms: a large computation uses the machine
# better. But a larger batch means fewer steps over the same pictures, and it needs a higher
# learning rate.
#
# The dotted lines are the training loss over the last quarter of the steps. With one caption a step
# it is below the loss of held-out pictures, though no picture came twice. That is not overfitting:
# in training, **batch norm** saw one picture at a time, and measured that way, held-out pictures
# are as good. But at test time it uses its running averages, and the model was never trained with
# those.
#
# ### Clipping
#
# Here is what a learning rate that is too high does, without warm-up, to plain gradient descent
# (SGD) and to AdamW.

# %%
RATES = {"SGD": 1.5, "AdamW": 0.03}
CLIP_NORMS = {"not clipped": 1e9, "clipped at 1": 1.0}
steps = chapter.choose(100, fast=2)
seeds = chapter.choose(3, fast=1)
histories = {}
for name, rate in RATES.items():
    for label, clip_norm in CLIP_NORMS.items():
        settings = {"learning_rate": rate, "clip_norm": clip_norm}
        histories[name, label] = []
        for seed in range(seeds):
            trainer = new_trainer(warmup_fraction=1e-9, seed=seed, **settings)
            if name == "SGD":
                trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=rate)
            histories[name, label].append(train(trainer, steps))
        ends = [mean(history.losses[-20:]) for history in histories[name, label]]
        highest = max(max(history.losses) for history in histories[name, label])
        print(f"{name:5} {label:12} mean of the last 20 losses ", end="")
        print(", ".join(f"{end:.2f}" for end in ends), end="")
        print(f"; highest {highest:.1f}")

# %%
figure, axes = panels(2, 2, 4.2, sharex=True, sharey="row")
for (above, below), name in zip(axes.T, RATES):
    for label, colour in (("not clipped", RED), ("clipped at 1", BLUE)):
        for seed, history in enumerate(histories[name, label]):
            style = {"color": colour, "lw": 1, "label": None if seed else label}
            above.plot(history.losses, **style)
            below.plot(history.norms, color=colour, lw=0.8)
    above.set(title=f"{name}, learning rate {RATES[name]:g}", yscale="log")
    above.set_yticks([1, 2, 5, 10, 20, 50], [1, 2, 5, 10, 20, 50])
    below.axhline(1, color="#555555", lw=0.8, ls="--")
    below.set(xlabel="step", yscale="log")
    below.set_yticks([0.5, 1, 2, 5, 10, 20, 50], [0.5, 1, 2, 5, 10, 20, 50])
    above.minorticks_off()
    below.minorticks_off()
axes[0, 0].set_ylabel("loss per word")
axes[1, 0].set_ylabel("length of the gradient\nbefore clipping")
axes[0, 1].legend(fontsize=8)
chapter.draw(figure, "a learning rate too high with and without clipping")

# %% [markdown]
# Three seeds each. With SGD, clipping decides: without it the loss rises to 67 and ends at 5.3 to
# 6.2, with it at 1.2. With AdamW the difference is small: 1.37 to 1.65 with clipping, 1.51 to 1.73
# without. AdamW already divides each gradient by its own usual size. Clipping stays on as a seat
# belt, and the length of the gradient is worth watching.
#
# ### Accumulation
#
# 32 captions in 1 to 32 micro-batches. A forward pass keeps its intermediate results
# (**activations**) for the backward pass; torch lets us look at each of these tensors.


# %%
def kept_megabytes(trainer, batch):
    """What a forward pass keeps for the backward pass: each tensor once, no weights."""
    kept = {}  # address -> bytes

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def unpack(tensor):
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, unpack)
    with hooks, trainer.precision.autocast():
        # As long as `loss` lives, so do the tensors, each at its own address.
        loss, _ = trainer.model.loss(batch)
    weights = {p.untyped_storage().data_ptr() for p in trainer.model.parameters()}
    del loss
    return sum(size for address, size in kept.items() if address not in weights) / 1e6


# %%
def gradient_error(loss_function, train_mode, parts):
    """How far the gradient is from that of the whole batch, in % of its length."""
    model = new_trainer().model.train(train_mode)
    whole = gradient(model, mean_loss(model, batch))
    model = new_trainer().model.train(train_mode)  # batch norm remembers: a new one
    ours = gradient(model, loss_function(model, batch, parts))
    return (100 * (ours - whole).norm() / whole.norm()).item()


PARTS = chapter.choose((1, 2, 4, 8, 16, 32), fast=(1, 2, 4))
WAYS = (  # label, loss function, is the model in train mode?, colour
    ("mean of the means", mean_of_means, False, RED),
    ("by words, batch norm per part", mean_over_words, True, PALE),
    ("by words, batch norm fixed", mean_over_words, False, BLUE),
)
memory = [kept_megabytes(new_trainer(), split(batch, parts)[0]) for parts in PARTS]
errors = {}
print("error of the gradient for each number of micro-batches")
for label, loss_function, train_mode, _ in WAYS:
    errors[label] = [gradient_error(loss_function, train_mode, n) for n in PARTS[1:]]
    row = [f"{n}: {error:.2g} %" for n, error in zip(PARTS[1:], errors[label])]
    print(f"{label:29} {', '.join(row)}")
words = [(part["target"] != PAD).sum().item() for part in split(batch, 4)]
print("words in each of 4 micro-batches:", words)

# %%
figure, (left, right) = panels(1, 2, 3)
bars = left.bar(range(len(PARTS)), memory, 0.6, color=PALE)
left.bar_label(bars, fmt="%.1f", fontsize=8)
left.set(ylabel="MB kept", title="memory")
left.margins(y=0.15)
for label, _, _, colour in WAYS:
    x = range(1, len(PARTS))
    right.plot(x, errors[label], "o-", color=colour, label=label)
right.set(ylabel="% of its length", title="error of the gradient", yscale="log")
right.set(ylim=(1e-6, 2e4), xlim=left.get_xlim())
right.set_yticks([1e-4, 1e-2, 1, 100], ["0.0001", "0.01", "1", "100"])
right.legend(fontsize=7.5, loc="upper left")
for axis in (left, right):
    axis.set_xticks(range(len(PARTS)), PARTS)
    axis.set(xlabel="micro-batches")
chapter.draw(figure, "accumulation saves memory and keeps the gradient")

# %% [markdown]
# With 4 micro-batches the memory falls to a quarter, and the gradient is the same except for
# rounding, provided that the sums are divided by the count of all words. With the mean of the means
# it is off by 7 %, since a batch comes sorted by length, and its first part has half as many words
# as its last. **Batch norm** in train mode changes the gradient in any case, by 9 %: it normalizes
# by what it sees at once, and that is one micro-batch. So the library puts short and long sentences
# into each micro-batch, and advises 16 pictures or more in each.
#
# ### Precision
#
# **bfloat16** has the range of float32, with 8 bits of precision instead of 24; **float16** has 11
# bits, and a small range. The weights stay in float32; only matrix products and convolutions,
# nearly all of the work, use the shorter format.

# %%
FORMATS = (  # label, dtype, colour, line width
    ("float32", "float32", "#bbbbbb", 5),
    ("bfloat16", "bfloat16", BLUE, 2.5),
    ("float16, scaled", "float16", GREEN, 1.5),
    ("float16, not scaled", "float16", RED, 0.8),
)
steps = chapter.choose(80, fast=1)
small = split(batch, 2)[0]
histories, gradients = {}, {}
print(f"{'':20} ms a step  MB kept  loss, last 20 steps  ", end="")
print("% gradients = 0  steps skipped")
for label, dtype, _, _ in FORMATS:
    trainer = new_trainer(batch_size=16, precision=dtype)
    if label == "float16, not scaled":
        trainer.scaler = GradScaler(torch.float32)
    memory = kept_megabytes(trainer, small)
    histories[label] = train(trainer, steps)
    with trainer.precision.autocast():
        loss, count = trainer.model.loss(small)
    scale = trainer.scaler.scale
    gradients[label] = gradient(trainer.model, loss * scale / count) / scale
    zeros = 100 * (gradients[label] == 0).float().mean()
    last = mean(histories[label].losses[-20:])
    print(f"{label:20} {histories[label].milliseconds():9.1f} {memory:8.1f} ", end="")
    print(f"{last:18.3f} {zeros:16.2f} {trainer.skipped:14}")

# %%
LIMITS = (  # half of 6e-8, as a power of 10
    (-7.53, "left of here\n0 in float16"),
    (-12.35, "left of here\n0, with the loss\ntimes 65,536"),
)
figure, (left, right) = panels(1, 2, 3.1)
logs = gradients["float32"].abs().log10()
left.hist(logs[logs.isfinite()].tolist(), bins=80, color=PALE)
for limit, text in LIMITS:
    left.axvline(limit, color=RED, lw=1, ls="--")
    top = left.get_ylim()[1] * 0.97
    left.text(limit + 0.2, top, text, fontsize=8, color=RED, va="top")
left.set(title="gradients of all weights", xlabel="size, as a power of 10")
left.set(yticks=[], xlim=(-13, -0.5))
for label, _, colour, line_width in FORMATS:
    right.plot(histories[label].losses, color=colour, lw=line_width, label=label)
right.set(title="four formats", xlabel="step", ylabel="loss per word")
right.legend(fontsize=7.5)
chapter.draw(figure, "gradients and loss in four number formats")
precision, why = pick_precision(torch.device("cpu"))
print(f'precision="auto" takes {precision} on this machine: {why}')

# %% [markdown]
# The four curves coincide. bfloat16 keeps a third less for the backward pass; with everything in
# the short format it would keep half, but some operations stay in float32, for safety. Without the
# loss scale 0.23 % of the gradients become 0 in float16. This small model does not mind: its
# gradients are large. The times say more about this CPU, and about how well torch uses it, than
# about the formats: bfloat16 hardly pays at this size, and float16 takes ten times as long or more.
#
# The library does not decide by such times. With `precision="auto"` it takes bfloat16 if the
# processor reports instructions for it (AMX or AVX-512 BF16), and otherwise float32. On a busy
# machine a measurement could come out differently the next time, and then two runs with the same
# seed would give two results.
#
# ### Prefetching
#
# A photograph has to be decoded and resized before a model can learn from it. Below, scenes of 256
# pixels lie in memory as JPEG files. Each example notes when it was fetched, and the loop notes
# when it computed. First the loop fetches its own batches; then a second process, a **worker**,
# fetches ahead. In the figure only one core computes, and the other is free for the worker (with a
# GPU, all cores are free). The lines printed above it also cover the case in which both cores
# compute.


# %%
class Timed(Examples):
    """Examples that say when they were fetched, by a clock that all processes share."""

    def __getitem__(self, index):
        start = time.monotonic()
        example = super().__getitem__(index)
        fetched = torch.tensor([start, time.monotonic()], dtype=torch.double)
        return example | {"fetched": fetched}


class Timing(NamedTuple):
    """When a batch was fetched, and when the loop computed with it."""

    fetch_start: float
    fetch_end: float
    start: float
    end: float


# %%
def watch(workers, examples):
    """Train -> the timing of each step, and the fraction of time spent waiting.

    Without the first five steps: a worker needs some time to start.
    """
    model = new_trainer().model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    prefetcher = Prefetcher(new_loader(examples, workers), torch.device("cpu"))
    timings = []
    for number, batch in enumerate(prefetcher.batches(0)):
        start = time.monotonic()
        fetched = batch.pop("fetched")
        if number == 5:
            prefetcher.data_time.seconds()  # starts counting again
        mean_loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        fetch_start, fetch_end = fetched.min().item(), fetched.max().item()
        timings.append(Timing(fetch_start, fetch_end, start, time.monotonic()))
    timings = timings[5:]
    total = timings[-1].end - timings[0].start
    return timings, prefetcher.data_time.seconds() / total


# %%
photographs = 32 * chapter.choose(45, fast=8)
data = SceneCaptions("train", photographs, one_caption_each=True)
files = []
for scene in data.scenes:
    file = io.BytesIO()
    render(scene, 256).save(file, "JPEG", quality=90)
    files.append(file)


def decode(file):
    return to_tensor(open_image(file), 64)  # (3, 64, 64)


data.columns["image"] = LazyColumn(decode, files)
timed = Timed(data, VOCABULARIES)
# Without fork, another process would not know the classes above.
worker = 1 if multiprocessing.get_start_method() == "fork" else 0
cores = torch.get_num_threads()

# %%
timelines = []
for threads in (1, cores):
    for workers in (0, worker):
        torch.set_num_threads(threads)
        timings, waiting = watch(workers, timed)
        step = 1000 * (timings[-1].end - timings[0].start) / len(timings)
        computing = 1000 * mean(timing.end - timing.start for timing in timings)
        title = "one worker" if workers else "no worker"
        title += f": {step:.0f} ms a step, "
        title += f"of which {computing:.0f} compute; waiting {100 * waiting:.0f} %"
        print(f"computing threads {threads}, {title}")
        timelines.append((title, timings))
figure = drawings.fetching_and_computing(timelines[:2])
chapter.draw(figure, "fetching and computing one after the other and at once")

# %% [markdown]
# The worker fetches batch 3 while batch 1 computes, and the waiting falls from 41 to 5 %, a step
# from 54 to 31 ms. But it needs a core. When both cores compute, it takes one of them away: the
# waiting falls from 46 to 5 %, and yet a step takes 51 ms instead of 42. So on a CPU the library
# uses no workers unless you ask for them, and with a GPU one per core, up to eight. (Where Python
# does not fork its processes, both runs above do without a worker.) With a GPU, the copy from main
# memory overlaps with the computation, too: `Prefetcher` puts it on a second queue of work. A CPU
# needs no such copy.
#
# ### Checkpoints, and processes
#
# Now we run the real command, in a process of its own: once undisturbed; once killed halfway
# without warning, as by a power cut, and started again with the same command; and once in two
# processes, as `torchrun` starts them, each with 48 of the 96 captions of a step. `last.pt` is
# normally written every minute; here it is written at every fifth step. The script around the
# command also notes each step's loss.

# %%
DRIVER = """
import sys, time, torch
import mmscratch.__main__ as command
from mmscratch import training
from mmscratch.tasks import captioning

scenes, folder = sys.argv[1:]
captioning.VALIDATION_SCENES = captioning.TEST_SCENES = 16  # captioned at the end
training.pick_device = lambda: torch.device("cpu")
train_step = training.Trainer._train_step

def timed_step(trainer, batch):
    # save at every fifth step, on slow machines and on fast ones
    training.SAVE_SECONDS = 1e9 if (trainer.step + 1) % 5 else -1
    start = time.perf_counter()
    stats = train_step(trainer, batch)
    seconds = time.perf_counter() - start
    if trainer.rank == 0:
        with open(folder + "/steps.txt", "a") as file:
            print(trainer.step + 1, stats.loss / stats.count, seconds, file=file)
    return stats

training.Trainer._train_step = timed_step
command_line = ["quickstart", "--scenes", scenes, "--precision", "float32"]
sys.exit(command.main([*command_line, "--to", folder]))
"""


# %%
def read_steps(name):
    """What the script noted: (step, loss, seconds) of each step."""
    rows = []
    for line in (chapter.folder / name / "steps.txt").read_text().splitlines():
        rows.append(tuple(float(field) for field in line.split()))
    return rows


def quickstart(name, *torchrun, kill_at=None):
    """Run to the end, or kill it after step `kill_at` -> its output."""
    scenes = chapter.choose(24 * 24, fast=32)
    script = [sys.executable, "-c", DRIVER, str(scenes), str(chapter.folder / name)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*torchrun, *script], **pipes)
    if kill_at:
        while len(read_steps(name)) < kill_at and process.poll() is None:
            time.sleep(0.05)
        process.kill()
    output, errors = process.communicate()
    if process.returncode and not kill_at:
        raise RuntimeError(errors)
    return output


# %%
for name in ("unbroken", "killed", "two"):
    shutil.rmtree(chapter.folder / name, ignore_errors=True)
    (chapter.folder / name).mkdir()
    (chapter.folder / name / "steps.txt").touch()
quickstart("unbroken")
if chapter.fast:
    print("a fast run leaves out the killed run and the run of two processes")
else:
    quickstart("killed", kill_at=13)
    killed = len(read_steps("killed"))
    lines = quickstart("killed").splitlines()  # the same command again
    resumed = next(line for line in lines if "at step" in line)
    print(f"killed after step {killed}; {resumed}")
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    quickstart("two", *torchrun, "--standalone", "--nproc_per_node=2", "--no-python")

# %%
if not chapter.fast:
    unbroken = read_steps("unbroken")
    broken = read_steps("killed")
    two = read_steps("two")
    figure, (left, right) = panels(1, 2, 3, sharey=True)
    CURVES = (  # axis, steps, colour, size of the dots, line width, label
        (left, unbroken, PALE, 0, 6, "unbroken"),
        (right, unbroken, PALE, 0, 6, "one process"),
        (left, broken[:killed], RED, 6, 1, "until it was killed"),
        (left, broken[killed:], GREEN, 3, 1, "resumed"),
        (right, two, RED, 3, 1, "two processes"),
    )
    for axis, rows, colour, mark, line_width, label in CURVES:
        steps, losses, _ = zip(*rows)
        style = {"color": colour, "markersize": mark, "lw": line_width, "label": label}
        axis.plot(steps, losses, "o-", **style)
        axis.set(xlabel="step", ylabel="loss per word")
        axis.legend(fontsize=8)
    left.axvline(killed + 0.5, color=RED, ls="--", lw=1)
    chapter.draw(figure, "a run that was killed and a run of two processes")

# %%
if not chapter.fast:
    weights = read_checkpoint(chapter.folder / "unbroken" / "last.pt")["model"]
    other = read_checkpoint(chapter.folder / "killed" / "last.pt")["model"]
    equal = [torch.equal(weights[name], other[name]) for name in weights]
    print(f"unbroken and killed: {sum(equal)} of {len(equal)} tensors ", end="")
    print("of the model are equal, bit for bit")
    assert all(equal)
    one_process = f"one process, {torch.get_num_threads()} threads"
    for name, rows in ((one_process, unbroken), ("two processes", two)):
        time_per_step = 1000 * median(seconds for _, _, seconds in rows)
        print(f"{name:22} {time_per_step:4.0f} ms a step, last loss {rows[-1][1]:.4f}")
    differences = [abs(a[1] - b[1]) for a, b in zip(unbroken, two)]
    print(f"their losses differ by {max(differences):.4f} at most")

# %% [markdown]
# The steps after the last checkpoint were made twice, with the same result. For that, a checkpoint
# needs more than the weights: Adam's running means, the position in the epoch, and the state of
# every random generator. And its file must never be half written. There are several random
# generators, and a checkpoint holds plain values only:

# %%
show(get_rng_state)

# %% [markdown]
# With several processes, the sampler gives each one its shard of every batch, and gives all of them
# the same number of batches.

# %%
show(BucketSampler)

# %% [markdown]
# The curves of one process and of two coincide, but not bit for bit: each process normalizes by its
# own half of the batch. On two cores, two processes gain nothing, 234 against 219 ms a step, since
# a single process already uses both cores within each operation.
#
# ## What to notice
#
# **A loss curve proves little.** Here are two mistakes that train beautifully: the mean of the
# micro-batches' means, and a checkpoint with nothing but the weights, so that the run resumes
# halfway with a new optimizer.

# %%
steps = chapter.choose(60, fast=4)
for loss_function in (mean_over_words, mean_of_means):
    trainer = new_trainer()
    plain_loop(trainer, steps, loss_function)
    print(f"{loss_function.__name__}, 4 micro-batches: ", end="")
    print(f"held-out loss {trainer._validate():.3f} after {steps} steps")

# %%
complete = new_trainer()
weights_only = new_trainer()
train(complete, steps // 2)
weights_only.model.load_state_dict(complete.model.state_dict())
weights_only.step = complete.step
resumed = {"everything": complete, "the weights only": weights_only}
vectors = []
for name, trainer in resumed.items():
    losses = train(trainer, steps // 2).losses
    first, second, last = losses[0], losses[1], losses[-1]
    print(f"resumed with {name:16}: the next losses are {first:.3f} ", end="")
    print(f"and {second:.3f}, the last is {last:.3f}")
    weights = [p.detach().flatten() for p in trainer.model.parameters()]
    vectors.append(torch.cat(weights))
apart = 100 * (vectors[0] - vectors[1]).norm() / vectors[0].norm()
print(f"by then the weights are {apart:.0f} % apart")

# %% [markdown]
# Nothing in these losses says which are wrong; here the wrong ones even look a little better. Only
# the gradient itself shows it, and the weights, bit for bit. So the library's tests compare those.
#
# **The promise.** In one micro-batch or many, in one process or many, the gradient is the same
# except for rounding, as long as no layer looks at several captions at once. Batch norm does.
#
# **Not measured here: a GPU.** A GPU has units of its own for the short formats, copies run during
# the computation, and each process has a device to itself. What that gains has to be measured
# there: every run's `metrics.jsonl` holds the fraction of time spent waiting, the examples per
# second and the memory.
#
# ## Your turn
#
# Write these yourself, from their docstrings. `python -m chapters.assignments start 6 --to work`
# creates the stubs, and `check 6 --from work` says which of them are right, and gives a hint for
# those that are not.
#
# 1. `warmup_and_cosine`: two curves, of which the lower one counts. 3 points, 15 minutes.
# 2. `EncoderDecoder.loss`: a sum and a count. What does padding add to each, and what changes in
#    eval mode? 4 points, 20 minutes.
# 3. `GradScaler.update`: when does it halve the scale, and when does it double it? 4 points, 20
#    minutes.
# 4. `Trainer._micro_batches`: deal out a batch, and scale each loss. 7 points, 35 minutes.
# 5. `Trainer._train_step`: forward and backward, clip, step or skip; the count is known only after
#    the last micro-batch, and a skipped step must change nothing. 20 points, 100 minutes.
# 6. `write_atomically`: what if the disk is full, or the power fails between two lines? 7 points,
#    35 minutes.
# 7. `BucketSampler.__iter__`: each example once, and the same number of batches for all processes.
#    8 points, 40 minutes.
# 8. `first_nonfinite`: of a thousand NaNs, which came first? 9 points, 45 minutes.
#
# And three questions without an answer here:
#
# 1. What does a warm-up change for SGD, and what for AdamW?
# 2. How large can a batch be before doubling it no longer halves the steps (McCandlish et al.
#    2018)?
# 3. What would batch norm have to do to give the same result in micro-batches?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural networks"
# (clipping) · Micikevicius et al. 2018, "Mixed precision training" (the loss scale) · Kalamkar et
# al. 2019, "A study of BFLOAT16 for deep learning training" · Goyal et al. 2017, "Accurate, large
# minibatch SGD" (warm-up) · Loshchilov and Hutter 2017, "SGDR: stochastic gradient descent with
# warm restarts" (the cosine) · Loshchilov and Hutter 2019, "Decoupled weight decay regularization"
# (AdamW) · Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision" (label
# smoothing) · Li et al. 2020, "PyTorch Distributed: experiences on accelerating data parallel
# training" · McCandlish et al. 2018, "An empirical model of large-batch training".
