# %% [markdown]
# # 3 · LSTM decoder
#
# **Adds** the LSTM, a decoder made of it, teacher forcing, and captions from one image vector. **Takes** 2.5 min on
# two cores.
#
# A sentence is written word by word, and each word depends on those before it. A **recurrent network** reads and
# writes that way: it carries a **state**, a vector of numbers, from word to word. Give it a picture as its first
# state, and it writes about the picture. That is Show and Tell (Vinyals et al. 2015), the model that this chapter
# builds and takes apart.

# %%
from collections import Counter
from statistics import mean

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn

from chapters.chapter import Chapter, folder, show
from chapters.drawings import ch03 as drawings
from mmscratch.data.judge import judge_captions
from mmscratch.data.language import caption, captions
from mmscratch.data.scenes import SPLITS, Scene
from mmscratch.decoding import greedy_search
from mmscratch.engine.devices import pick_device
from mmscratch.plots import caption_sheet
from mmscratch.pretraining import (
    extract_features,
    labelled_scenes,
    pretrained_cnn,
    train_captioner,
)
from mmscratch.recurrent import LSTM, LSTMCell, LSTMDecoder
from mmscratch.text import BOS, EOS, Vocabulary, tokenize
from mmscratch.vision import ImageEncoder

torch.manual_seed(0)
chapter = Chapter(3)

# %% [markdown]
# ## The idea

# %%
images, _ = labelled_scenes("validation", chapter.choose(1000, fast=60))
scenes = [Scene(SPLITS["validation"] + i) for i in range(len(images))]
references = [[tokenize(c) for c in captions(scene)] for scene in scenes]
# one with a short caption
example = min(range(60), key=lambda i: len(references[i][0]))
words = [*references[example][0], "<eos>"]
figure = drawings.vector_becomes_sentence(images[example], words)
chapter.draw(figure, "a vector becomes a sentence")

# %% [markdown]
# The picture goes in once, at the start; from then on the state must remember it. Below each step stands the word
# that is read, above it the word that should be written: always the next one. `<bos>` begins a sentence, `<eos>` ends
# it.
#
# ## By hand
#
# The **long short-term memory** (LSTM) keeps two vectors: the **cell** $c$, its memory, and the **hidden state** $h$,
# which it shows to others. Three **gates**, numbers between 0 and 1, decide: how much of the cell to keep ($f$,
# forget gate), how much new to let in ($i$, input gate), how much to show ($o$, output gate).
#
# $$c' = \sigma(f) \odot c + \sigma(i) \odot \tanh(g) \qquad h' = \sigma(o) \odot \tanh(c')$$
#
# All four are linear in what is read, $x$, and in $h$. Number by number:


# %%
def lstm_step(x, hidden, cell, weight_ih, weight_hh, bias):
    """x, hidden, cell: lists of numbers -> the next hidden and cell; weights (4H, ·), rows in the order i, f, g, o."""
    size = len(hidden)
    total = []
    for row in range(4 * size):
        from_input = sum(weight_ih[row][k] * x[k] for k in range(len(x)))
        from_state = sum(weight_hh[row][k] * hidden[k] for k in range(size))
        total.append(from_input + from_state + bias[row])
    new_hidden, new_cell = [], []
    for k in range(size):
        i, f, g, o = (total[k + part * size] for part in range(4))
        new_cell.append(f.sigmoid() * cell[k] + i.sigmoid() * g.tanh())
        new_hidden.append(o.sigmoid() * new_cell[-1].tanh())
    return torch.stack(new_hidden), torch.stack(new_cell)


# %% [markdown]
# ## The piece

# %%
show(LSTMCell)

# %%
with torch.no_grad():
    cell = LSTMCell(3, 5)
    sentence, state = (
        torch.randn(7, 3),
        (torch.zeros(5), torch.zeros(5)),
    )  # 7 words of 3 numbers
    by_hand = []
    for x in sentence:
        state = lstm_step(
            x, *state, cell.weight_ih, cell.weight_hh, cell.bias_ih + cell.bias_hh
        )
        by_hand.append(state[0])
    whole = LSTM(
        3, 5
    )  # the same over whole sentences, in layers, in both directions if wanted
    whole.load_state_dict(
        {f"{name}_l0": weight for name, weight in cell.state_dict().items()}
    )
    reference = nn.LSTM(3, 5, batch_first=True)
    reference.load_state_dict(whole.state_dict())
    assert torch.allclose(torch.stack(by_hand), whole(sentence[None])[0][0], atol=1e-6)
    assert torch.allclose(
        whole(sentence[None])[0], reference(sentence[None])[0], atol=1e-6
    )
print("by hand, ours and torch.nn.LSTM agree to 1e-6")

# %% [markdown]
# `LSTM` is the cell in a loop: over layers, over directions, and, in `_run`, over the words. What the words add to the
# gates does not depend on the state, so one matrix product computes it for all steps before the loop begins.

# %%
show(LSTM)

# %% [markdown]
# ### Why gates: the vanishing gradient
#
# To learn that the first state matters for word 20, the **gradient** (how much the result changes with the state) has
# to come back through 20 steps. A **plain RNN**, $h' = \tanh(Wx + Uh)$, multiplies it with $U$ at each step. The cell
# of an LSTM only multiplies it with the forget gate. How large is the gradient of the last state with respect to the
# first, by the number of steps between? A forget gate with bias 0 is open by half; with bias 3 it keeps 95 %.


# %%
def gradient_norm(kind, steps, size=64):
    """‖∂ sum(h_T) / ∂ state_0‖ for fresh weights and random words; of the LSTM, the gradient of its cell."""
    words, hidden, memory = (
        torch.randn(steps, 1, size),
        torch.zeros(1, size),
        torch.zeros(1, size, requires_grad=True),
    )
    cell, state = LSTMCell(size, size), (hidden, memory)
    if kind == "plain RNN":
        W, U = (
            nn.init.uniform_(torch.empty(size, size), -(size**-0.5), size**-0.5)
            for _ in "WU"
        )
        state = memory
        for x in words:
            state = (x @ W.T + state @ U.T).tanh()
        return torch.autograd.grad(state.sum(), memory)[0].norm().item()
    cell.bias_ih.data[size : 2 * size] = 3.0 if "3" in kind else 0.0
    for x in words:
        state = cell(x, state)
    return torch.autograd.grad(state[0].sum(), memory)[0].norm().item()


lengths, kinds = (
    (1, 2, 5, 10, 15, 20, 30),
    ("plain RNN", "LSTM, forget bias 0", "LSTM, forget bias 3"),
)
seeds = chapter.choose(5, fast=2)
norms = {}
for kind in kinds:
    for seed in range(seeds):
        torch.manual_seed(seed)
        norms[kind, seed] = torch.tensor(
            [gradient_norm(kind, steps) for steps in lengths]
        )
figure = Figure(figsize=(6, 3.2), dpi=100, layout="constrained")
axis = figure.subplots()
for kind, colour in zip(kinds, ("#c62828", "#4292c6", "#1a7f37")):
    for seed in range(seeds):
        axis.plot(
            lengths,
            norms[kind, seed],
            color=colour,
            alpha=0.6,
            label=kind if seed == 0 else None,
        )
axis.set(yscale="log", xlabel="steps between", ylabel="norm of the gradient")
axis.legend()
axis.grid(alpha=0.3)
chapter.draw(figure, "the gradient of the first state")
for kind in kinds:
    ratios = [
        (norms[kind, seed][5] / norms[kind, seed][0]).item() for seed in range(seeds)
    ]
    print(
        f"{kind:20} after 20 steps, of what it is after one: {min(ratios):.0e} to {max(ratios):.0e} ({seeds} seeds)"
    )

# %% [markdown]
# The plain RNN forgets by powers of ten, and so does an LSTM whose forget gates are half open: $0.5^{20}$ is a
# millionth. It is the **open** forget gate that carries the gradient. Keep that in mind for the picture, which must
# survive until the last word.
#
# ### The decoder
#
# The first state is made from the picture (`start`); each step reads a word and gives a number for each word of the
# vocabulary, its logit (`step`). In training all words are known, so `forward` runs over the whole sentence at once. Here
# is the whole class. With `fusion="prefix"`, as in this chapter, `_attend` is never called; chapter 5 is about it.

# %%
show(LSTMDecoder)

# %% [markdown]
# ## Train it
#
# The picture's features come from chapter 2's CNN, which knows what is in a picture. It is **frozen**: its weights do
# not change. So its grid of 4 × 4 places is computed once for each picture. Those 16 vectors, with where they are,
# are averaged to **one vector**, the first state.

# %%
device = pick_device()
cnn = pretrained_cnn(
    folder(2, chapter.fast) / "cnn.pt", chapter.choose(30_000, fast=640)
)
count = chapter.choose(20_000, fast=320)
sentences = [
    [tokenize(caption(Scene(i), which)) for which in range(5)] for i in range(count)
]
vocabulary = Vocabulary.build(sentence for five in sentences for sentence in five)
targets = [
    [torch.tensor([*vocabulary.encode(s), EOS]) for s in five] for five in sentences
]
print(f"{count:,} scenes with five captions each; {len(vocabulary)} words")
train_grids = extract_features(
    cnn, labelled_scenes("train", count)[0]
)  # (N, 128, 4, 4)
test_grids = extract_features(cnn, images)

# %% [markdown]
# **Teacher forcing**: in training the decoder reads the true words, not its own, and learns to predict the next. All
# steps of a sentence are then trained at once. The loss is the cross-entropy of the true next word; padding does not
# count.

# %%
show(train_captioner)


# %%
def train(forget_bias, epochs):
    """A Show-and-Tell model: (encoder, decoder), and the loss of each step."""
    torch.manual_seed(0)
    encoder = ImageEncoder(cnn, embed_dim=256, image_size=64).to(device)
    decoder = LSTMDecoder(
        len(vocabulary), embed_dim=256, hidden_size=256, fusion="prefix"
    ).to(device)
    decoder.lstm.bias_ih_l0.data[256:512] = forget_bias
    losses = train_captioner(decoder, encoder, train_grids, targets, epochs)
    return encoder.eval(), decoder.eval(), losses


epochs = chapter.choose(3, fast=1)
encoder, decoder, losses = train(forget_bias=3.0, epochs=epochs)
half_open = train(forget_bias=0.0, epochs=epochs)

# %% [markdown]
# ## Look

# %%
figure = Figure(figsize=(6, 3), dpi=100, layout="constrained")
axis = figure.subplots()
for values, colour, name in (
    (losses, "#1a7f37", "forget bias 3"),
    (half_open[2], "#4292c6", "forget bias 0"),
):
    means = torch.tensor(values).split(chapter.choose(10, fast=1))
    axis.plot(
        [len(values) / len(means) * i for i in range(len(means))],
        [m.mean() for m in means],
        color=colour,
        label=name,
    )
axis.set(
    xlabel="step",
    ylabel="loss a word (nats)",
    ylim=(0, 2.5),
    title="the same decoder, with forget gates open or half open",
)
axis.legend()
axis.grid(alpha=0.3)
chapter.draw(figure, "learning with open and half open forget gates")


# %%
@torch.no_grad()
def describe(encoder, decoder, grids):
    """A caption, as tokens, for each picture whose grid was kept."""
    texts = []
    for some in grids.split(200):  # (200, 128, 4, 4)
        hypotheses = greedy_search(
            decoder, encoder.encode_features(some), max_length=30
        )
        texts += [vocabulary.decode(hypothesis.tokens) for hypothesis in hypotheses]
    return texts


written = describe(encoder, decoder, test_grids)
chapter.draw(
    caption_sheet(list(images[:8]), written[:8], references[:8]),
    "captions from one vector",
)

# %% [markdown]
# Green is a reference, word for word; red is not, and below it stands the nearest reference. Not all that is red is
# false: the judge will decide.
#
# **The gates over a caption.** The decoder reads its own caption again; each column is a word, each row one of 24
# units of the state.

# %%
with torch.no_grad():
    tokens = [BOS, *vocabulary.encode(written[example])]
    state = decoder.start(encoder.encode_features(test_grids[example : example + 1]))
    cell = LSTMCell(256, 256).to(device)
    cell.load_state_dict(
        {
            name.removesuffix("_l0"): weight
            for name, weight in decoder.lstm.state_dict().items()
        }
    )
    hidden, memory, gates = state.hidden[0], state.cell[0], []
    for word in (
        decoder.embedding(torch.tensor(tokens, device=device)) * 256**0.5
    ):  # as the decoder scales its words
        total = F.linear(word[None], cell.weight_ih, cell.bias_ih) + F.linear(
            hidden, cell.weight_hh, cell.bias_hh
        )
        gates.append(total[0].view(4, 256)[:, :24].sigmoid())  # i, f, g, o
        hidden, memory = cell(word[None], (hidden, memory))
gates = torch.stack(gates, dim=2).cpu()  # (4, 24, T)
figure = Figure(figsize=(7, 3.4), dpi=100, layout="constrained")
for axis, which, name in zip(
    figure.subplots(1, 3, sharey=True),
    (0, 1, 3),
    ("input gate", "forget gate", "output gate"),
):
    image = axis.imshow(gates[which], cmap="viridis", vmin=0, vmax=1, aspect="auto")
    axis.set_title(f"{name}, mean {gates[which].mean():.2f}", fontsize=10)
    axis.set_xticks(
        range(len(tokens)), ["<bos>", *written[example]], rotation=90, fontsize=8
    )
    axis.set_yticks([])
figure.colorbar(image, ax=figure.axes, shrink=0.8, label="open")
chapter.draw(figure, "the gates over a caption")

# %% [markdown]
# **Teacher forcing against free running.** Reading the true words, how often is the next word one that one of the
# five references has there? And running free, reading its own words, how often does all that it wrote up to here
# begin one of the references?

# %%
longest, right = (
    12,
    {"forced": [], "free": []},
)  # for each picture and word, was it right?
for i, refs in enumerate(references):
    refs = [[*ref, "<eos>"] for ref in refs]
    true, mine = refs[i % 5], [*written[i], "<eos>"]
    with torch.no_grad():
        inputs = torch.tensor(
            [[BOS, *vocabulary.encode(true[:-1])]], device=device
        )  # (1, T)
        next_words = decoder(inputs, encoder.encode_features(test_grids[i : i + 1]))[
            0
        ].argmax(-1)  # (T,)
    forced = [
        true[:t] + [vocabulary.words[word]]
        for t, word in enumerate(next_words.tolist())
    ]
    free = [mine[: t + 1] for t in range(len(mine))]
    for name, beginnings in (("forced", forced), ("free", free)):
        right[name].append(
            [any(ref[: len(b)] == b for ref in refs) for b in beginnings[:longest]]
        )
fraction = {
    name: [
        mean([row[t] for row in rows if len(row) > t] or [0]) for t in range(longest)
    ]
    for name, rows in right.items()
}

figure = Figure(figsize=(6, 3), dpi=100, layout="constrained")
axis = figure.subplots()
for name, colour, label in (
    ("forced", "#4292c6", "teacher forcing: the next word is right"),
    ("free", "#c62828", "free running: every word so far is right"),
):
    axis.plot(
        range(1, longest + 1),
        [100 * x for x in fraction[name]],
        "o-",
        color=colour,
        label=label,
    )
axis.set(xlabel="word", ylabel="%", ylim=(0, 102))
axis.legend(loc="lower left")
axis.grid(alpha=0.3)
chapter.draw(figure, "teacher forcing against free running")
print(f"with true words before it, {100 * mean(x for row in right['forced'] for x in row):.1f} % of words are right; "
      f"running free, {100 * mean(all(row) for row in right['free']):.1f} % of captions")  # fmt: skip

# %% [markdown]
# ## What to notice
#
# A caption is **true** if the judge, which knows the scene, finds every noun, colour, size and place in it right and
# nothing missing. Three controls: the same model with another picture's vector; the same with half open forget gates;
# and the commonest training caption under every picture.

# %%
commonest = Counter(tuple(s) for five in sentences for s in five).most_common(1)[0][0]
results = {
    "one vector": judge_captions(written, scenes),
    "another picture's vector": judge_captions(
        describe(encoder, decoder, test_grids.roll(1, 0)), scenes
    ),
    "half open forget gates": judge_captions(
        describe(*half_open[:2], test_grids), scenes
    ),
    "the commonest caption": judge_captions([list(commonest)] * len(scenes), scenes),
}
print(f"{'% true of pictures with':26} one thing    two  three    all")
for name, (fractions, _) in results.items():
    print(
        f"{name:26}"
        + "".join(
            f"{fraction:{width}.1f}"
            for fraction, width in zip(fractions, (10, 7, 7, 7))
        )
    )
print(
    "faults of the first:",
    ", ".join(
        f"{fault} {n}" for fault, n in results["one vector"].faults.most_common()
    ),
)

# %%
figure = Figure(figsize=(5.5, 3), dpi=100, layout="constrained")
axis = figure.subplots()
for i, (name, colour) in enumerate(
    (("one vector", "#1a7f37"), ("half open forget gates", "#4292c6"))
):
    bars = axis.bar(
        [n + 0.4 * (i - 0.5) for n in range(3)],
        results[name].fractions[:3],
        width=0.38,
        color=colour,
        label=name,
    )
    axis.bar_label(bars, fmt="%.0f", fontsize=9)
axis.set_xticks(range(3), ["one thing", "two", "three"])
axis.set(ylabel="captions that are true, %", ylim=(0, 105))
axis.legend()
chapter.draw(figure, "what one vector loses")

# %% [markdown]
# **It is the picture that speaks**: with another picture's vector, no caption is true, although each is a good
# sentence. So the sentence itself proves nothing, and neither does a low loss: most words of a caption are grammar.
#
# **The forget gate decides.** With its bias at 0, the same decoder, on the same features, in the same order, has
# learned to write sentences, and hardly any of them is true (0.1 %): by the time a noun is due, the picture has been
# halved at four or five words. With it at 3, 33.6 % are true. The library's decoder therefore begins with 3.
# But open gates alone are not enough either: with a CNN that starts from random weights, `python -m mmscratch quickstart
# --fusion prefix` shows 100,000 scenes, and no caption is true. It takes both, open gates and pre-training.
#
# **One vector is not enough.** 64.4 % of the captions of one thing are true, 33.7 of two, 3.0 of three. The nouns,
# colours and places of all things share one vector of 256 numbers, and every word draws on the same one. The commonest
# fault is the place. What else one could do is to look at the picture again for each word: chapter 5.
#
# **Teacher forcing flatters.** With true words before it nine words in ten are right, and running free three captions in
# ten: one wrong word, and all that follows goes on from it. A score of single words under teacher forcing says little
# about what a model writes.
#
# The gradient was measured with five seeds, all else with one seed and 1,000 pictures that the model had never seen.
#
# ## Your turn
#
# Write these anew, from their docstrings. `python -m chapters.assignments start 3 --to work` lays the stubs out, and
# `check 3 --from work` says what is right, and gives a hint where something is not.
#
# 1. `LSTMCell.forward`: five lines; the order of the gates is i, f, g, o. 5 points, 30 minutes.
# 2. `LSTM.forward`: with `_run`; what lies behind a sentence's end must change nothing. 20 points, 100 minutes.
# 3. `LSTMFunction.backward`: with `forward`; all the steps, and the way back through them without autograd. 25 points, 120 minutes.
# 4. `Memory.mean`: and the mean of nothing? 2 points, 10 minutes.
# 5. `LSTMDecoder.start`: and `step`; stepping must give what the full forward gives. 10 points, 60 minutes.
# 6. `greedy_search`: with `_word_by_word` and `_log_probs`; a batch, until its last sentence has ended. 12 points, 60 minutes.
#
# And three questions without an answer here:
#
# 1. Does the first word differ between seeds, and why?
# 2. What changes if the picture is given as the first word instead of the first state, as Vinyals et al. did?
# 3. How much of the gap between the two curves above closes if the decoder reads its own word now and then in training
#    (scheduled sampling)?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Hochreiter and Schmidhuber 1997, "Long short-term memory" · Gers, Schmidhuber and Cummins 2000, "Learning to forget"
# (the forget gate) · Bengio, Simard and Frasconi 1994, "Learning long-term dependencies with gradient descent is
# difficult" · Jozefowicz, Zaremba and Sutskever 2015, "An empirical exploration of recurrent network architectures"
# (a forget bias that is not 0) · Vinyals, Toshev, Bengio and Erhan 2015, "Show and tell" · Williams and Zipser 1989,
# "A learning algorithm for continually running fully recurrent neural networks" (teacher forcing) · Bengio et al.
# 2015, "Scheduled sampling".
