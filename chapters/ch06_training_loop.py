# %% [markdown]
# # 6 · The training loop
#
# **Adds** the loop that trains the same model on a laptop, one GPU or many: device, batches, clipping, accumulation, precision, copies that overlap, checkpoints, processes. **Takes** 2.8 min on two cores.
#
# Five lines train a network; they fit on a slide. But a run that takes a night meets what a slide does not: a batch too
# large for the memory, a gradient a hundred times too long, a full disk, a power cut, a second GPU that should help. What
# does it take until one can rely on the five lines? Each addition is made here by hand, read in the library, and then
# **measured**: what does it cost, what does it bring, and does the training stay the same?

# %%
import contextlib
import io
import multiprocessing
import shutil
import subprocess
import sys
import time
from functools import partial
from itertools import islice
from statistics import mean, median

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn

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
chapter.draw(drawings.five_lines(), "five lines and what hangs on them")

# %% [markdown]
# Blue is the slide, brown is this chapter, and the line below is the promise that it has to keep.
#
# ## By hand
#
# The data are scenes, the model is a small captioner: a ResNet, and an LSTM that looks at the picture for each word. All
# of this chapter is measured on the **CPU**, also where there is a GPU. Model, optimizer and batches come from a `Trainer`;
# the loop, which is called `slide`, does not. It has the five lines, and two more that chapters 3 to 5 had.

# %%
training.pick_device = lambda: torch.device("cpu")
SCENES = SceneCaptions("train", chapter.choose(4_000, fast=160), one_caption_each=True)
HELD_OUT = SceneCaptions("validation", chapter.choose(40, fast=2))
references = SCENES.references + HELD_OUT.references
vocabulary = Vocabulary.build(
    caption for captions in references for caption in captions
)
VOCABULARIES = {"target": vocabulary}
examples, held_out = Examples(SCENES, VOCABULARIES), Examples(HELD_OUT, VOCABULARIES)
SEES, WRITES = {"name": "resnet", "width": 16}, {"name": "lstm", "hidden_size": 128}
MODEL = ModelConfig(len(vocabulary), {"image": SEES}, WRITES, embed_dim=128)


def new_trainer(examples=examples, **settings):
    """The library's Trainer; the same seed gives the same first weights. No buckets, for the third reason of chapter 1."""
    settings = {
        "batch_size": 32,
        "bucket_batches": None,
        "precision": "float32",
    } | settings
    with contextlib.redirect_stdout(
        io.StringIO()
    ):  # it says its device and precision, each time the same
        return Trainer(
            MODEL,
            TrainConfig(**settings),
            (examples, held_out),
            chapter.folder / "never-written",
        )


def loader_of(examples, workers=0):
    """Batches of 32, shuffled, without buckets."""
    return make_loader(
        examples, BucketSampler(examples.lengths, 32, bucket_batches=None), workers
    )


def mean_loss(model, batch):
    return F.cross_entropy(
        model(batch).flatten(0, 1), batch["target"].flatten(), ignore_index=PAD
    )


def gradient(model, loss):
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]
    )


def slide(trainer, steps, loss_of=mean_loss):
    """So many steps -> the loss and the seconds of each."""
    model, optimizer, stats, before = (
        trainer.model.train(),
        trainer.optimizer,
        [],
        time.perf_counter(),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, partial(warmup_and_cosine, steps=trainer.steps, warmup_fraction=0.05)
    )
    for batch in islice(loader_of(examples), steps):  # 1
        loss = loss_of(model, batch)  # 2
        loss.backward()  # 3
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()  # 4
        schedule.step()
        optimizer.zero_grad()  # 5
        stats.append((loss.item(), time.perf_counter() - before))
        before = time.perf_counter()
    return stats


# %% [markdown]
# **Clipping.** All gradients together are one long vector. If it is longer than a limit, it is shortened to the limit;
# its direction stays.

# %%
batch = next(iter(loader_of(examples)))
model = (
    new_trainer().model.eval()
)  # batch norm with fixed numbers: what it does otherwise comes below
alone = gradient(model, mean_loss(model, batch))
length = sum(g**2 for g in alone.tolist()) ** 0.5
by_hand = alone * min(1, 0.5 / length)
mean_loss(model, batch).backward()
nn.utils.clip_grad_norm_(model.parameters(), 0.5)
assert torch.allclose(
    torch.cat([p.grad.flatten() for p in model.parameters()]), by_hand, atol=1e-6
)
print(
    f"{len(alone):,} gradients, together of length {length:.3f}; clipped at 0.5: {by_hand.norm():.3f}"
)

# %% [markdown]
# **Accumulation.** A batch that does not fit into the memory is computed in **micro-batches**, parts of it, one after
# another, and their gradients add up. The loss is a mean over words, and here is the trap: the mean of the parts' means is
# another number. Two sentences show it:

# %%
short, long = [4.0, 2.0], [1.0] * 6  # what each word costs
print(
    f"the mean of the two means is {(mean(short) + mean(long)) / 2}, the mean over the words {mean(short + long)}"
)

# %% [markdown]
# A word of the short sentence would count three times as much as a word of the long one. So a model's `loss(batch)` does
# not return a mean. It returns two numbers, the **sum** of its losses and the **count** of its words, and the loop divides:
# the sum over all micro-batches and processes by the count over all micro-batches and processes. Both ways:


# %%
def count_words(batch):
    return (batch["target"] != PAD).sum()


def split(batch, parts):
    return [
        {name: value.tensor_split(parts)[i] for name, value in batch.items()}
        for i in range(parts)
    ]


def by_words(model, batch, parts=4):
    losses, counts = zip(*[model.loss(part) for part in split(batch, parts)])
    return sum(losses) / sum(counts)


def by_means(model, batch, parts=4):
    return sum(mean_loss(model, part) for part in split(batch, parts)) / parts


# %% [markdown]
# **Processes.** Two processes, each with its share of the batch and its own copy of the model, compute the same sum, at the
# same time. Then **all-reduce** gives each of them the sum of all gradients: all make the same step, and the copies stay
# copies. Two processes in one:

# %%
fractions = [{name: value[rank::2] for name, value in batch.items()} for rank in (0, 1)]
losses, counts = zip(*[model.loss(fraction) for fraction in fractions])
count = sum(counts)  # the first all-reduce
reduced = sum(gradient(model, loss / count) for loss in losses)  # the second
assert torch.allclose(reduced, alone, atol=1e-6)
print(
    f"{[count_words(s).item() for s in fractions]} words; the gradients of two and of one differ by {(reduced - alone).abs().max():.0e}"
)

# %% [markdown]
# **The loss scale.** float16 has 16 bits, half of float32's, but it knows nothing between 0 and 6e-8. A
# gradient of 1e-8 is 0. Multiply the loss by 65,536, and by the chain rule every gradient is 65,536 times as large; in
# float32, before it is used, it is divided by that again.

# %%
print("gradient   as float16   with the loss times 65,536")
for value in (1e-3, 1e-6, 1e-8):
    scaled = torch.tensor(value * 65536).half().float() / 65536
    print(
        f"{value:8.0e}   {torch.tensor(value).half().item():10.3g}   {scaled.item():10.3g}"
    )
print(
    f"but a gradient of 2, times 65,536, is {torch.tensor(2.0 * 65536).half().item()}: float16 ends at 65,504"
)

# %% [markdown]
# ## The piece
#
# The loop knows one thing of a model, its `loss(batch)`. This is the one of all models in this book that write. Another
# model may count something other than words; the loop does not change.

# %%
show(EncoderDecoder.loss)

# %% [markdown]
# One step of the library, with all of that: forward, backward, clip, step, zero. `distributed.all_reduce` is the all-reduce,
# and does nothing in a single process. The count of all micro-batches is known only after the last one, and by then their
# gradients have been added up. So each loss is divided by `first_count`, the count of the first micro-batch of all
# processes. Any number would do; this one keeps gradients at their usual size, which matters in float16. At the end the
# gradient is multiplied by `first_count / count`.

# %%
show(Trainer._train_step)
show(Trainer._micro_batches)
show(Trainer._scaled)

# %% [markdown]
# `fit` is the loop around the step. It validates, saves, and stops between two steps, never within one.

# %%
show(Trainer.fit)

# %%
show(GradScaler)
show(Prefetcher)
show(write_atomically)

# %% [markdown]
# The gradient with which the `Trainer` steps, in one micro-batch or many, is the one by hand:


# %%
def stepped_with(parts):
    trainer, taken = new_trainer(accumulation_steps=parts, clip_norm=1e9), []
    trainer.model.eval()
    trainer.optimizer.register_step_pre_hook(
        lambda *_: taken.extend(p.grad.flatten() for p in trainer.model.parameters())
    )
    trainer._train_step(batch)
    return torch.cat(taken)


for parts in (1, 4, 32):
    assert torch.allclose(stepped_with(parts), alone, atol=1e-6)
    print(
        f"accumulate={parts}: the gradients differ by {(stepped_with(parts) - alone).abs().max():.0e} from those by hand"
    )

# %% [markdown]
# ## Train it
#
# The same weights and the same batches, through the slide's loop and through the library's, in turn and twice, so that a
# moment in which the machine is busy does not decide.


# %%
def run(trainer, steps=10**9):
    """So many steps: `fit` without telling and saving -> what each told, and its seconds."""
    stats, before = [], time.perf_counter()
    trainer.model.train()
    for batch in islice(trainer._batches(), steps):
        stats.append((trainer._train_step(batch), time.perf_counter() - before))
        before = time.perf_counter()
        trainer.step += 1
    return stats


def losses(stats):
    return [step.loss / step.count for step, _ in stats]


def milliseconds(stats):
    return 1000 * median(seconds for _, seconds in stats)


steps = chapter.choose(60, fast=3)
slides, trainers = zip(
    *[(slide(new_trainer(), steps), run(new_trainer(), steps)) for _ in range(2)]
)
largest = max(abs(a - b) for a, (b, _) in zip(losses(trainers[0]), slides[0]))
assert largest < 1e-5
print(
    f"slide {min(map(milliseconds, slides)):.1f} ms a step, Trainer {min(map(milliseconds, trainers)):.1f} ms"
)
print(
    f"their losses, {slides[0][0][0]:.3f} at first and {slides[0][-1][0]:.3f} in the end, differ by {largest:.0e} at most"
)

# %% [markdown]
# 31.3 against 33.5 ms: what the library's step does besides costs little, about as much as the noise of this measurement.
#
# ## Look
#
# ### Batches
#
# How many captions should a step look at? Every run below sees the same pictures once, in batches of 1 to 64, at two
# learning rates, since what is right for one size need not be for another. (What sorting by length saves, chapter 1
# measured.)


# %%
def panels(rows, columns, height, **shared):
    figure = Figure(figsize=(7.6, height), dpi=100, layout="constrained")
    return figure, figure.subplots(rows, columns, **shared)


@torch.no_grad()
def one_at_a_time(trainer):
    """The held-out loss a word with batch norm as it is in training, each picture by itself."""
    trainer.model.train()
    losses = [trainer.model.loss(collate([example]))[0].item() for example in held_out]
    return sum(losses) / sum(held_out.lengths)


few = Examples(
    SceneCaptions("train", chapter.choose(1024, fast=32), one_caption_each=True),
    VOCABULARIES,
)
SIZES, by_size = (1, 4, 16, 64), {}
figure, (left, right) = panels(1, 2, 3)
for rate, colour in ((8e-3, BLUE), (2e-3, PALE)):
    for size in SIZES:
        trainer = new_trainer(few, batch_size=size, learning_rate=rate)
        stats = run(trainer)
        by_size[size] = (
            milliseconds(stats) / size,
            trainer._validate(),
            mean(losses(stats)[-max(1, len(stats) // 4) :]),
        )
        if size == 1:
            stats = f"training {by_size[1][2]:.2f}, held out {by_size[1][1]:.2f}, with batch norm as in training {one_at_a_time(trainer):.2f}"
            print(f"one caption a step, rate {rate:g}: {stats}")
    for style, filled, label, i in (
        ("o-", colour, "held out", 1),
        ("o:", "white", "training", 2),
    ):
        right.plot(
            range(4),
            [by_size[size][i] for size in SIZES],
            style,
            color=colour,
            mfc=filled,
            label=f"{label}, rate {rate:g}",
        )
left.bar_label(
    left.bar(range(4), [by_size[size][0] for size in SIZES], color=PALE, width=0.6),
    fmt="%.1f",
    fontsize=8,
)
left.set(ylabel="ms a picture", title="time")
left.margins(y=0.15)
right.set(ylabel="loss a word", title=f"after {len(few):,} pictures")
right.legend(fontsize=7.5)
for axis in (left, right):
    axis.set_xticks(range(4), SIZES)
    axis.set(xlabel="captions a step")
chapter.draw(figure, "what a batch size costs and brings")

# %% [markdown]
# In a batch of 64 a picture costs 1.0 ms, alone 10.1 ms: a large computation uses the machine better. But of the same
# pictures it makes fewer steps, and asks for a higher learning rate.
#
# The dotted line is the loss while training, over the last quarter. With one caption a step it lies below that of held-out
# pictures, though no picture came twice. That is no overfitting: in training **batch norm** saw one picture at a time, and
# measured so, held-out pictures are as good. But in use it has its running averages, with which it never trained.
#
# ### Clipping
#
# A learning rate that is too high, without warm-up, for plain gradient descent (SGD) and for AdamW.

# %%
steps, seeds = chapter.choose(100, fast=2), chapter.choose(3, fast=1)
figure, axes = panels(2, 2, 4.2, sharex=True, sharey="row")
for (above, below), (name, rate) in zip(axes.T, (("SGD", 1.5), ("AdamW", 0.03))):
    for clip_norm, colour, label in (
        (1e9, RED, "not clipped"),
        (1.0, BLUE, "clipped at 1"),
    ):
        runs = []
        for seed in range(seeds):
            trainer = new_trainer(
                learning_rate=rate, clip_norm=clip_norm, warmup_fraction=1e-9, seed=seed
            )
            if name == "SGD":
                trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=rate)
            runs.append(run(trainer, steps))
            above.plot(
                losses(runs[-1]), color=colour, lw=1, label=None if seed else label
            )
            below.plot([step.norm for step, _ in runs[-1]], color=colour, lw=0.8)
        ends = ", ".join(f"{mean(losses(stats)[-20:]):.2f}" for stats in runs)
        print(
            f"{name:5} {label:12} mean of the last 20 losses {ends}; highest {max(max(losses(stats)) for stats in runs):.1f}"
        )
    above.set(title=f"{name}, learning rate {rate:g}", yscale="log")
    above.set_yticks([1, 2, 5, 10, 20, 50], [1, 2, 5, 10, 20, 50])
    below.axhline(1, color="#555555", lw=0.8, ls="--")
    below.set(xlabel="step", yscale="log")
    below.set_yticks([0.5, 1, 2, 5, 10, 20, 50], [0.5, 1, 2, 5, 10, 20, 50])
    above.minorticks_off()
    below.minorticks_off()
axes[0, 0].set_ylabel("loss a word")
axes[1, 0].set_ylabel("length of the gradient\nbefore clipping")
axes[0, 1].legend(fontsize=8)
chapter.draw(figure, "a learning rate too high with and without clipping")

# %% [markdown]
# Three seeds each. With SGD, clipping decides: without it the loss rises to 67 and ends at 5.3 to 6.2, with it at 1.2. With
# AdamW the difference is small, 1.37 to 1.65 against 1.51 to 1.73: it divides each gradient by its own usual size already.
# Clipping stays on as a seat belt, and the length of the gradient is worth watching.
#
# ### Accumulation
#
# 32 captions in 1 to 32 micro-batches. For the backward pass, a forward pass keeps its intermediate results (**activations**);
# torch lets us look at each tensor that it keeps.


# %%
def kept_megabytes(trainer, batch):
    """All that a forward pass keeps for the backward pass, each once, without the weights."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        trainer.precision.autocast(),
    ):
        loss, _ = trainer.model.loss(
            batch
        )  # while it lives, they live, each at its own address
    weights = {p.untyped_storage().data_ptr() for p in trainer.model.parameters()}
    del loss
    return sum(size for address, size in kept.items() if address not in weights) / 1e6


def off(way, mode, parts):
    """How far the gradient in parts is from that of the whole batch, as a share of its length, in %."""
    models = [
        new_trainer().model.train(mode) for _ in range(2)
    ]  # new ones, since batch norm remembers what it saw
    whole, ours = (
        gradient(models[0], mean_loss(models[0], batch)),
        gradient(models[1], way(models[1], batch, parts)),
    )
    return (100 * (ours - whole).norm() / whole.norm()).item()


PARTS = chapter.choose((1, 2, 4, 8, 16, 32), fast=(1, 2, 4))
figure, (left, right) = panels(1, 2, 3)
memory = [kept_megabytes(new_trainer(), split(batch, parts)[0]) for parts in PARTS]
left.bar_label(
    left.bar(range(len(PARTS)), memory, color=PALE, width=0.6), fmt="%.1f", fontsize=8
)
left.set(ylabel="MB kept", title="memory")
left.margins(y=0.15)
for label, way, mode, colour in (
    ("mean of the parts' means", by_means, False, RED),
    ("by words, batch norm by the part", by_words, True, PALE),
    ("by words, batch norm fixed", by_words, False, BLUE),
):
    errors = [off(way, mode, parts) for parts in PARTS[1:]]
    right.plot(range(1, len(PARTS)), errors, "o-", color=colour, label=label)
    print(
        f"{label:32} "
        + ", ".join(
            f"{parts} parts {error:.2g} %" for parts, error in zip(PARTS[1:], errors)
        )
    )
right.set(
    ylabel="% of its length",
    title="how far the gradient is off",
    yscale="log",
    ylim=(1e-6, 2e4),
    xlim=left.get_xlim(),
)
right.set_yticks([1e-4, 1e-2, 1, 100], ["0.0001", "0.01", "1", "100"])
print(
    "words in each of 4 parts:", [count_words(part).item() for part in split(batch, 4)]
)
right.legend(fontsize=7.5, loc="upper left")
for axis in (left, right):
    axis.set_xticks(range(len(PARTS)), PARTS)
    axis.set(xlabel="parts")
chapter.draw(figure, "accumulation in memory and in truth")

# %% [markdown]
# In 4 micro-batches the memory is a quarter, and the gradient is the same but for rounding if the sums are divided by the
# count of all words. With the mean of the parts' means it is off by 7 %, since a batch comes sorted by length, and its first
# part has half the words of its last. **Batch norm** is off in any case, by 9 %: it normalizes by what it sees at once, and
# sees one micro-batch. That is why the library puts short and long sentences into each, and asks for micro-batches of 16
# pictures or more.
#
# ### Precision
#
# **bfloat16** has the range of float32, with 8 bits of precision instead of 24; **float16** has 11 bits, and a small range.
# The weights stay in float32; only products and convolutions, which is nearly all of the work, compute in the shorter format.

# %%
steps, small = chapter.choose(80, fast=1), split(batch, 2)[0]
figure, (left, right) = panels(1, 2, 3.1)
for name, dtype, colour, width in (
    ("float32", "float32", "#bbbbbb", 5), ("bfloat16", "bfloat16", BLUE, 2.5),
    ("float16, scaled", "float16", GREEN, 1.5), ("float16, not scaled", "float16", RED, 0.8),
):  # fmt: skip
    trainer = new_trainer(batch_size=16, precision=dtype)
    if name == "float16, not scaled":
        trainer.scaler = GradScaler(torch.float32)
    memory, stats = kept_megabytes(trainer, small), run(trainer, steps)
    right.plot(losses(stats), color=colour, lw=width, label=name)
    with trainer.precision.autocast():
        loss, count = trainer.model.loss(small)
    grads = (
        gradient(trainer.model, loss * trainer.scaler.scale / count)
        / trainer.scaler.scale
    )
    print(f"{name:19} {milliseconds(stats):6.1f} ms a step, {memory:.1f} MB kept; loss of the last 20 steps {mean(losses(stats)[-20:]):.3f}; "
          f"{100 * (grads == 0).float().mean():.2f} % of the gradients are 0; {trainer.skipped} steps skipped")  # fmt: skip
    if name == "float32":
        logs = grads.abs().log10()
        left.hist(logs[logs.isfinite()].tolist(), bins=80, color=PALE)
for limit, text in (
    (-7.53, "left of here\n0 in float16"),
    (-12.35, "left of here\n0, with the loss\ntimes 65,536"),
):  # half of 6e-8
    left.axvline(limit, color=RED, lw=1, ls="--")
    left.text(
        limit + 0.2, left.get_ylim()[1] * 0.97, text, fontsize=8, color=RED, va="top"
    )
left.set(
    xlabel="size, as a power of 10",
    yticks=[],
    title="gradients of all weights",
    xlim=(-13, -0.5),
)
right.set(xlabel="step", ylabel="loss a word", title="four formats")
right.legend(fontsize=7.5)
chapter.draw(figure, "gradients and loss in four number formats")
precision, why = pick_precision(torch.device("cpu"))
print(f'precision="auto" takes {precision} on this machine: {why}')

# %% [markdown]
# The four curves lie on each other. bfloat16 keeps a third less for the backward pass; all of it would be half, but some
# operations stay in float32, for safety. Without the loss scale 0.23 % of the gradients become 0 in float16, which this
# small model does not mind: its gradients are large. The time says more about this CPU, and about how well torch uses it,
# than about the formats: bfloat16 hardly pays at this size, and float16 takes ten times as long or more.
#
# These times are only shown. With `precision="auto"` no stopwatch decides: the library takes bfloat16 if the processor says
# that it has instructions for it (AMX or AVX-512 BF16), and otherwise float32. On a busy machine a measurement could come
# out differently the next time, and two fresh runs with the same seed would then give two results.
#
# ### Copies that overlap
#
# A photograph has to be decoded and resized before one can learn from it. Below, scenes of 256 pixels lie in memory as JPEG
# files. Each example notes when it was fetched, and the loop notes when it computed. At first the loop fetches for itself;
# then a second process, a **worker**, fetches ahead. Drawn is what happens when one core computes, so that the other one is
# free for the worker (for one who has a GPU, all cores are); printed below, the same when both compute.


# %%
class Timed(Examples):
    """Its examples say when they were fetched: the clock `monotonic` is the same in all processes."""

    def __getitem__(self, index):
        start = time.monotonic()
        example = super().__getitem__(index)
        return example | {
            "fetched": torch.tensor([start, time.monotonic()], dtype=torch.double)
        }


def watch(workers, examples):
    """For each step but the first five: (fetched from, to), (computed from, to); and the share of time spent waiting."""
    model, rows = new_trainer().model.train(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    prefetcher = Prefetcher(loader_of(examples, workers), torch.device("cpu"))
    for number, batch in enumerate(prefetcher.batches(0)):
        start, fetched = time.monotonic(), batch.pop("fetched")
        if number == 5:  # by then a worker is awake
            prefetcher.data_time.seconds()
        mean_loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        rows.append(
            ((fetched.min().item(), fetched.max().item()), (start, time.monotonic()))
        )
    return rows[5:], prefetcher.data_time.seconds() / (rows[-1][1][1] - rows[5][1][0])


data = SceneCaptions("train", 32 * chapter.choose(45, fast=8), one_caption_each=True)
files = [io.BytesIO() for _ in range(len(data))]
for i, file in enumerate(files):
    render(data.scenes[i], 256).save(file, "JPEG", quality=90)


def decode(file):
    return to_tensor(open_image(file), 64)  # (3, 64, 64)


data.columns["image"] = LazyColumn(decode, files)
forks = (
    multiprocessing.get_start_method() == "fork"
)  # else another process would not know the classes above
figure, axes = panels(2, 1, 3.4, sharex=True)
threads = torch.get_num_threads()
for axis, workers, torch_threads in zip(
    (*axes, None, None), (0, 1 * forks) * 2, (1, 1, threads, threads)
):
    torch.set_num_threads(torch_threads)
    rows, data_time = watch(workers, Timed(data, VOCABULARIES))
    begin = rows[0][1][0]
    step, computing = (
        (rows[-1][1][1] - begin) / len(rows),
        mean(end - start for _, (start, end) in rows),
    )
    title = f"{workers or 'no'} worker: {1000 * step:.0f} ms a step, of which {1000 * computing:.0f} compute; waiting {100 * data_time:.0f} %"
    print(f"{torch_threads} threads compute, {title}")
    if axis is None:
        continue
    for number, row in enumerate(rows):
        for y, (start, end), tints in zip(
            (1, 0), row, (("#fd8d3c", "#fdd0a2"), ("#4292c6", "#c6dbef"))
        ):
            start, end = 1000 * (start - begin), 1000 * (end - begin)
            axis.barh(y, end - start, left=start, height=0.66, color=tints[number % 2])
            if 0 < (start + end) / 2 < 500:
                axis.text(
                    (start + end) / 2,
                    y,
                    number + 1,
                    ha="center",
                    va="center",
                    fontsize=7.5,
                )
    axis.set_yticks((0, 1), ("computing", "fetching"))
    axis.set(xlim=(0, 500), ylim=(-0.5, 1.5))
    axis.set_title(title, fontsize=9.5)
axes[1].set_xlabel("milliseconds; the numbers are those of the batches")
chapter.draw(figure, "fetching and computing in turn and at once")

# %% [markdown]
# The worker fetches batch 3 while batch 1 computes, and the waiting falls from 28 to 5 %, a step from 96 to 57 ms. But it
# needs a core. When both compute, it takes one from the computation: the waiting falls from 34 to 6 %, and yet a step
# takes 74 ms instead of 71. So on a CPU the library uses no workers unless it is asked to, on a GPU one a core. (Where Python does not fork its processes, both runs do without a worker.) On a GPU
# the copy from memory overlaps, too: `Prefetcher` has it made on a second queue of work. A CPU has no such copy.
#
# ### Checkpoints, and processes
#
# Now the real command, in a process of its own: once in peace; once killed in the middle without a warning, as by a power
# cut, and started again with the same words; and once by two processes, as `torchrun` starts them, each with 48 of the 96
# captions of a step. `last.pt` is written every minute; here at every fifth step. The driver also notes each step's loss.

# %%
DRIVER = """
import sys, time, torch
import mmscratch.__main__ as command
from mmscratch import training
from mmscratch.tasks import captioning

scenes, folder = sys.argv[1:]
captioning.VALIDATION_SCENES = captioning.TEST_SCENES = 16  # it also captions these in the end
training.pick_device = lambda: torch.device("cpu")
step = training.Trainer._train_step

def noted(trainer, batch):
    training.SAVE_SECONDS = 1e9 if (trainer.step + 1) % 5 else -1  # every fifth step, on slow machines and on fast ones
    start = time.perf_counter()
    stats = step(trainer, batch)
    if trainer.rank == 0:
        with open(folder + "/steps.txt", "a") as file:
            print(trainer.step + 1, stats.loss / stats.count, time.perf_counter() - start, file=file)
    return stats

training.Trainer._train_step = noted
sys.exit(command.main(["quickstart", "--scenes", scenes, "--precision", "float32", "--to", folder]))
"""
for name in ("unbroken", "killed", "two"):
    shutil.rmtree(chapter.folder / name, ignore_errors=True)
    (chapter.folder / name).mkdir()
    (chapter.folder / name / "steps.txt").touch()


def steps_of(name):
    """What the driver noted: (step, loss, seconds) of each."""
    return [
        tuple(map(float, line.split()))
        for line in (chapter.folder / name / "steps.txt").read_text().splitlines()
    ]


def quickstart(name, *torchrun, kill_at=None):
    """Run it to the end, or kill it after so many steps -> what it printed."""
    driver = [
        sys.executable,
        "-c",
        DRIVER,
        str(chapter.choose(24 * 96, fast=32)),
        str(chapter.folder / name),
    ]
    process = subprocess.Popen(
        [*torchrun, *driver], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while kill_at and len(steps_of(name)) < kill_at and process.poll() is None:
        time.sleep(0.05)
    if kill_at:
        process.kill()
    printed, complaints = process.communicate()
    if process.returncode and not kill_at:
        raise RuntimeError(complaints)
    return printed


quickstart("unbroken")
if chapter.fast:
    print(
        "only one run of quickstart; the killed one and that of two processes are left out"
    )
else:
    quickstart("killed", kill_at=13)
    killed = len(steps_of("killed"))
    print(
        f"killed after step {killed};",
        next(line for line in quickstart("killed").splitlines() if "going on" in line),
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    quickstart("two", *torchrun, "--standalone", "--nproc_per_node=2", "--no-python")

# %%
if not chapter.fast:
    unbroken, broken, two = map(steps_of, ("unbroken", "killed", "two"))
    figure, (left, right) = panels(1, 2, 3, sharey=True)
    for axis, label in ((left, "unbroken"), (right, "one process")):
        axis.plot(*list(zip(*unbroken))[:2], color=PALE, lw=6, label=label)
    for axis, rows, colour, size, label in (
        (left, broken[:killed], RED, 6, "until it was killed"),
        (left, broken[killed:], GREEN, 3, "gone on"),
        (right, two, RED, 3, "two processes"),
    ):
        axis.plot(*list(zip(*rows))[:2], "o-", color=colour, ms=size, lw=1, label=label)
        axis.set(xlabel="step", ylabel="loss a word")
        axis.legend(fontsize=8)
    left.axvline(killed + 0.5, color=RED, ls="--", lw=1)
    chapter.draw(figure, "a run that was killed and a run of two processes")
    one, other = (
        read_checkpoint(chapter.folder / name / "last.pt")["model"]
        for name in ("unbroken", "killed")
    )
    equal = [torch.equal(one[name], other[name]) for name in one]
    print(
        f"unbroken and killed: {sum(equal)} of {len(equal)} tensors of the model are equal, to the bit"
    )
    assert all(equal)
    for name, rows in (
        (f"one process, {torch.get_num_threads()} threads", unbroken),
        ("two processes", two),
    ):
        print(
            f"{name:22} {1000 * median(seconds for *_, seconds in rows):4.0f} ms a step, last loss {rows[-1][1]:.4f}"
        )
    print(
        f"their losses differ by {max(abs(a[1] - b[1]) for a, b in zip(unbroken, two)):.4f} at most"
    )

# %% [markdown]
# The steps after the last checkpoint were made twice, and gave the same. That takes more than the weights: Adam's running
# means, the place in the epoch, the state of every random generator, and a file that is never half written. There are
# several generators, and a checkpoint holds plain values only:

# %%
show(get_rng_state)

# %% [markdown]
# With several processes, the sampler gives each its share of every batch, and all of them the same number of batches.

# %%
show(BucketSampler)

# %% [markdown]
# One process and two lie on each other, though not to the bit: each normalizes by its own half of the batch. On two cores
# two processes gain little, 326 against 344 ms a step: one process already uses both, within each operation.
#
# ## What to notice
#
# **A loss curve proves little.** Two mistakes that train beautifully: the mean of the micro-batches' means, and a checkpoint
# that has the weights only, so that the run goes on from its middle with a new optimizer.

# %%
steps = chapter.choose(60, fast=4)
for way in (by_words, by_means):
    trainer = new_trainer()
    slide(trainer, steps, way)
    print(
        f"{way.__name__}, 4 parts: held-out loss {trainer._validate():.3f} after {steps} steps"
    )
whole, half = new_trainer(), new_trainer()
run(whole, steps // 2)
half.model.load_state_dict(whole.model.state_dict())
half.step = whole.step
for trainer, name in ((whole, "with all"), (half, "with the weights only")):
    loss = losses(run(trainer, steps // 2))
    print(
        f"gone on {name:21}: the next losses are {loss[0]:.3f} and {loss[1]:.3f}, the last is {loss[-1]:.3f}"
    )
ours, theirs = (
    torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    for trainer in (whole, half)
)
print(
    f"by then the weights are {100 * (ours - theirs).norm() / ours.norm():.0f} % apart"
)

# %% [markdown]
# Nothing in these losses says which are wrong; here the wrong ones even look a little better. Only the gradient
# itself tells, and the weights to the bit. So that is what the library's tests compare.
#
# **What is promised.** In one micro-batch or many, in one process or many, the gradient is the same but for rounding, as
# long as nothing looks at several captions at once. Batch norm does.
#
# **What was not measured here** is a GPU. On one, the short formats have units of their own, copies run beside the
# computation, and each process has a device to itself. What that gains is to be measured there: `metrics.jsonl` of every
# run holds the share of time spent waiting, the examples a second and the memory.
#
# ## Your turn
#
# Write these anew, from their docstrings. `python -m chapters.assignments start 6 --to work` lays the stubs out, and
# `check 6 --from work` says what is right, and gives a hint where something is not.
#
# 1. `warmup_and_cosine`: two curves, and the lower one holds. 3 points, 15 minutes.
# 2. `EncoderDecoder.loss`: a sum and a count. What does padding add to each, and what changes in eval mode? 4 points,
#    20 minutes.
# 3. `GradScaler.update`: when does it halve, and when does it double? 4 points, 20 minutes.
# 4. `Trainer._micro_batches`: deal a batch out, and scale each loss. 7 points, 35 minutes.
# 5. `Trainer._train_step`: forward, backward, clip, and step or skip; the count of all micro-batches is known only after
#    the last one. 20 points, 100 minutes.
# 6. `write_atomically`: what if the disk is full, or the power fails between two lines? 7 points, 35 minutes.
# 7. `BucketSampler.__iter__`: each example once, and all processes with as many batches. 8 points, 40 minutes.
# 8. `first_nonfinite`: of a thousand NaNs, which came first? 9 points, 45 minutes.
#
# And three questions without an answer here:
#
# 1. What does a warm-up change for SGD, and what for AdamW?
# 2. How large may a batch be before twice the size no longer halves the steps (McCandlish et al. 2018)?
# 3. What would batch norm have to do to be the same in parts?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural networks" (clipping) · Micikevicius et
# al. 2018, "Mixed precision training" (the loss scale) · Kalamkar et al. 2019, "A study of BFLOAT16 for deep learning
# training" · Goyal et al. 2017, "Accurate, large minibatch SGD" (warm-up) · Loshchilov and Hutter 2017, "SGDR: stochastic
# gradient descent with warm restarts" (the cosine) · Loshchilov and Hutter 2019, "Decoupled weight decay regularization"
# (AdamW) · Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision" (label smoothing) · Li et al.
# 2020, "PyTorch Distributed: experiences on accelerating data parallel training" · McCandlish et al. 2018, "An empirical
# model of large-batch training".
