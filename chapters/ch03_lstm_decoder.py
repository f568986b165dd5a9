# %% [markdown]
# # 3 · LSTM decoder
#
# **Adds** the LSTM, a decoder made of it, teacher forcing, and captions from one image vector. **Takes** 1.6 min on
# two cores.
#
# A sentence is written word by word, and each word depends on those before it. A **recurrent
# network** reads and writes that way: it carries a **state**, a vector of numbers, from word to
# word. Make its first state from a picture, and it writes about the picture. That is Show and Tell
# (Vinyals et al. 2015), the model that this chapter builds and takes apart.

# %%
from collections import Counter
from statistics import mean

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn

from chapters.chapter import Chapter, folder, show
from chapters.drawings import ch03 as drawings
from chapters.preparation import describe, held_out_scenes, training_captions
from mmscratch.data.judge import judge_captions
from mmscratch.engine.devices import pick_device
from mmscratch.plots import GREEN, RED, caption_sheet
from mmscratch.pretraining import (
    extract_features,
    labelled_scenes,
    pretrained_cnn,
    train_captioner,
)
from mmscratch.recurrent import LSTM, LSTMCell, LSTMDecoder
from mmscratch.text import BOS
from mmscratch.vision import ImageEncoder

torch.manual_seed(0)
chapter = Chapter(3)
BLUE = "#4292c6"

# %% [markdown]
# ## The idea

# %%
count = chapter.choose(1000, fast=60)
images, _, scenes, references = held_out_scenes("validation", count)
lengths = [len(captions[0]) for captions in references[:60]]
example = lengths.index(min(lengths))  # a scene with a short caption
words = [*references[example][0], "<eos>"]
figure = drawings.vector_becomes_sentence(images[example], words)
chapter.draw(figure, "a vector becomes a sentence")

# %% [markdown]
# The picture goes in once, at the start; from then on the state must remember it. Below each step
# is the word it reads, above it the word it should write: always the next one. `<bos>` begins a
# sentence, `<eos>` ends it.
#
# ## By hand
#
# The **long short-term memory** (LSTM) keeps two vectors: the **cell** $c$, its memory, and the
# **hidden state** $h$, which is its output. Three **gates**, numbers between 0 and 1, decide how
# much of the cell to keep ($f$, forget gate), how much new content $g$ to let in ($i$, input gate),
# and how much to output ($o$, output gate).
#
# $$c' = \sigma(f) \odot c + \sigma(i) \odot \tanh(g) \qquad h' = \sigma(o) \odot \tanh(c')$$
#
# $i$, $f$, $g$ and $o$ are linear functions of the input $x$ and of $h$. Number by number:


# %%
def lstm_step(x, hidden, cell, weight_ih, weight_hh, bias):
    """The next hidden state and cell.

    x (I), hidden (H), cell (H); weights and bias have 4H rows, in the order i, f, g, o.
    """
    H = len(hidden)
    gates = []
    for row in range(4 * H):
        from_input = sum(w * value for w, value in zip(weight_ih[row], x))
        from_state = sum(w * value for w, value in zip(weight_hh[row], hidden))
        gates.append(from_input + from_state + bias[row])
    new_hidden = []
    new_cell = []
    for k in range(H):
        i, f, g, o = gates[k::H]  # rows k, H + k, 2H + k and 3H + k
        c = f.sigmoid() * cell[k] + i.sigmoid() * g.tanh()
        new_cell.append(c)
        new_hidden.append(o.sigmoid() * c.tanh())
    return torch.stack(new_hidden), torch.stack(new_cell)


# %% [markdown]
# ## The piece

# %%
show(LSTMCell)

# %% [markdown]
# `LSTM` is the cell in a loop: over layers, over directions and over the words. The loop over the
# words is in `LSTMFunction`, which `_run` calls (you write it in exercise 3). The words'
# contribution to the gates does not depend on the state, so one matrix product computes it for all
# steps before that loop starts.

# %%
show(LSTM)

# %% [markdown]
# All three agree: our loops over numbers, `LSTM`, and PyTorch's own, which takes the same weights.

# %%
with torch.no_grad():
    cell = LSTMCell(3, 5)
    sentence = torch.randn(7, 3)  # seven words of three numbers
    state = (torch.zeros(5), torch.zeros(5))
    bias = cell.bias_ih + cell.bias_hh
    by_hand = []
    for x in sentence:
        state = lstm_step(x, *state, cell.weight_ih, cell.weight_hh, bias)
        by_hand.append(state[0])

    ours = LSTM(3, 5)
    weights = cell.state_dict()
    ours.load_state_dict({f"{name}_l0": weights[name] for name in weights})
    theirs = nn.LSTM(3, 5, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    outputs, _ = ours(sentence[None])  # (1, 7, 5)
    expected, _ = theirs(sentence[None])  # (1, 7, 5)
    assert torch.allclose(torch.stack(by_hand), outputs[0], atol=1e-6)
    assert torch.allclose(outputs, expected, atol=1e-6)
print("by hand, ours and torch.nn.LSTM agree to 1e-6")

# %% [markdown]
# ### Why gates: the vanishing gradient
#
# To learn that the first state matters for word 20, the **gradient** (how much the result changes
# with the state) has to come back through 20 steps. A **plain RNN**, $h' = \tanh(Wx + Uh)$,
# multiplies it by $U$ and by the slope of the tanh at each step. Along the cell of an LSTM, it is
# only multiplied by the forget gate. How large is the gradient of the last state with respect to
# the first, depending on the number of steps between them? A forget gate with bias 0 is half open;
# with bias 3 it keeps 95 %.


# %%
def gradient_norm(forget_bias, steps, size=64):
    """‖∂ sum(h_T) / ∂ first state‖ for fresh weights and random words.

    The first state of an LSTM is its cell. Without a forget bias, a plain RNN.
    """
    words = torch.randn(steps, 1, size)
    first = torch.zeros(1, size, requires_grad=True)
    lstm = LSTMCell(size, size)
    if forget_bias is None:
        bound = size**-0.5
        W = torch.empty(size, size).uniform_(-bound, bound)
        U = torch.empty(size, size).uniform_(-bound, bound)
        hidden = first
        for x in words:
            hidden = (x @ W.T + hidden @ U.T).tanh()
    else:
        lstm.bias_ih.data[size : 2 * size] = forget_bias
        hidden = torch.zeros(1, size)
        cell = first
        for x in words:
            hidden, cell = lstm(x, (hidden, cell))
    (gradient,) = torch.autograd.grad(hidden.sum(), first)
    return gradient.norm().item()


# %%
lengths = (1, 2, 5, 10, 15, 20, 30)
seeds = range(chapter.choose(5, fast=2))
networks = {  # name -> forget bias, colour
    "plain RNN": (None, RED),
    "LSTM, forget bias 0": (0.0, BLUE),
    "LSTM, forget bias 3": (3.0, GREEN),
}
figure = Figure(figsize=(6, 3.2), dpi=100, layout="constrained")
axis = figure.subplots()
for name, (forget_bias, colour) in networks.items():
    ratios = []
    for seed in seeds:
        torch.manual_seed(seed)
        norms = [gradient_norm(forget_bias, steps) for steps in lengths]
        ratios.append(norms[lengths.index(20)] / norms[0])
        label = name if seed == 0 else None
        axis.plot(lengths, norms, color=colour, alpha=0.6, label=label)
    print(f"{name:20} gradient after 20 steps, relative to one step:", end=" ")
    print(f"{min(ratios):.0e} to {max(ratios):.0e} ({len(seeds)} seeds)")
axis.set(yscale="log", xlabel="steps between", ylabel="norm of the gradient")
axis.legend()
axis.grid(alpha=0.3)
chapter.draw(figure, "the gradient of the first state")

# %% [markdown]
# The gradient of the plain RNN shrinks by powers of ten, and so does that of an LSTM whose forget
# gates are half open: $0.5^{20}$ is a millionth. It is the **open** forget gate that carries the
# gradient. Keep that in mind for the picture, which must survive until the last word.
#
# ### The decoder
#
# `start` computes the first state from the picture; `step` reads a word and gives each word of the
# vocabulary a score, its logit. In training all words are known, so `forward` runs over the whole
# sentence at once. Here is the whole class. With `fusion="prefix"`, as in this chapter, `_attend`
# is never called; chapter 5 is about it.

# %%
show(LSTMDecoder)

# %% [markdown]
# ## Train it
#
# The picture's features come from chapter 2's CNN, which knows what is in a picture. It is
# **frozen**: its weights do not change. So its 4 × 4 grid is computed only once for each picture.
# The 16 vectors of the grid, each with its position added, are averaged to **one vector**, from
# which the first state is computed.
#
# The captions become numbers as in chapter 1. Later chapters prepare them with the same function:

# %%
show(training_captions)

# %%
device = pick_device()
path = folder(2, chapter.fast) / "cnn.pt"
cnn = pretrained_cnn(path, chapter.choose(30_000, fast=64))
count = chapter.choose(20_000, fast=64)
vocabulary, targets = training_captions(count)
print(f"{count:,} scenes with five captions each; {len(vocabulary)} words")
train_images, _ = labelled_scenes("train", count)
train_features = extract_features(cnn, train_images)  # (N, 128, 4, 4)
test_features = extract_features(cnn, images)

# %% [markdown]
# **Teacher forcing**: in training the decoder reads the true words, not its own, and learns to
# predict the next one. So all steps of a sentence are trained at once. The loss is the
# cross-entropy of the true next word; padding does not count.

# %%
show(train_captioner)


# %%
def train(forget_bias, epochs):
    """Train a Show-and-Tell model: encoder, decoder, and the loss of every step."""
    torch.manual_seed(0)
    encoder = ImageEncoder(cnn, embed_dim=256, image_size=64)
    decoder = LSTMDecoder(len(vocabulary), 256, hidden_size=256, fusion="prefix")
    decoder.lstm.bias_ih_l0.data[256:512] = forget_bias
    encoder.to(device)
    decoder.to(device)
    losses = train_captioner(decoder, encoder, train_features, targets, epochs)
    return encoder.eval(), decoder.eval(), losses


epochs = chapter.choose(3, fast=1)
encoder, decoder, losses = train(3.0, epochs)
half_open_encoder, half_open_decoder, half_open_losses = train(0.0, epochs)

# %% [markdown]
# ## Look

# %%
figure = Figure(figsize=(6, 3), dpi=100, layout="constrained")
axis = figure.subplots()
every = chapter.choose(10, fast=1)
curves = {
    "forget bias 3": (losses, GREEN),
    "forget bias 0": (half_open_losses, BLUE),
}
for name, (values, colour) in curves.items():
    steps = range(0, len(values), every)
    means = [mean(values[step : step + every]) for step in steps]
    axis.plot(steps, means, color=colour, label=name)
axis.set(xlabel="step", ylabel="loss per word (nats)", ylim=(0, 2.5))
axis.set_title("the same decoder, with forget gates open or half-open")
axis.legend()
axis.grid(alpha=0.3)
chapter.draw(figure, "learning with open and half-open forget gates")

# %% [markdown]
# `describe` writes a caption for each picture, greedily: it always takes the most probable next
# word (chapter 8 searches better).

# %%
show(describe)

# %%
generated = describe(encoder, decoder, vocabulary, test_features)
sheet = caption_sheet(list(images[:8]), generated[:8], references[:8])
chapter.draw(sheet, "captions from one vector")

# %% [markdown]
# A green caption equals one of the references, word for word; a red one does not, and the nearest
# reference is below it. Not every red caption is false: the judge will decide.
#
# **The gates over a caption.** The decoder reads its own caption again. Each column is a word it
# reads, each row one of the first 24 units of the state.

# %%
cell = LSTMCell(256, 256).to(device)
weights = decoder.lstm.state_dict()
cell.load_state_dict({name.removesuffix("_l0"): weights[name] for name in weights})
caption = generated[example]
tokens = torch.tensor([BOS, *vocabulary.encode(caption)], device=device)  # (T,)
gates = []
with torch.no_grad():
    inputs = decoder.embedding(tokens) * 256**0.5  # (T, 256), as the decoder scales it
    memory = encoder.encode_features(test_features[example : example + 1])
    state = decoder.start(memory)
    hidden, content = state.hidden[0], state.cell[0]  # (1, 256) each
    for x in inputs.split(1):  # (1, 256)
        from_input = F.linear(x, cell.weight_ih, cell.bias_ih)
        from_state = F.linear(hidden, cell.weight_hh, cell.bias_hh)
        i, f, g, o = (from_input + from_state).chunk(4, dim=-1)  # (1, 256) each
        gates.append(torch.cat([i, f, o]).sigmoid()[:, :24])  # (3, 24)
        hidden, content = cell(x, (hidden, content))
gates = torch.stack(gates, dim=2).cpu()  # (3, 24, T)

# %%
figure = Figure(figsize=(7, 3.4), dpi=100, layout="constrained")
axes = figure.subplots(1, 3, sharey=True)
names = ("input gate", "forget gate", "output gate")
for axis, gate, name in zip(axes, gates, names):
    image = axis.imshow(gate, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    axis.set_title(f"{name}, mean {gate.mean():.2f}", fontsize=10)
    ticks = range(len(tokens))
    axis.set_xticks(ticks, ["<bos>", *caption], rotation=90, fontsize=7)
    axis.set_yticks([])
figure.colorbar(image, ax=figure.axes, shrink=0.8, label="open")
chapter.draw(figure, "the gates over a caption")

# %% [markdown]
# **Teacher forcing against free running.** When the decoder reads the true words, how often does
# one of the five references continue with the word it predicts? And when it runs free, reading its
# own words, how often is everything it has written so far the beginning of one of the references?


# %%
def begins_a_reference(tokens, references):
    return any(reference[: len(tokens)] == tokens for reference in references)


@torch.no_grad()
def predict_next_words(features, caption):
    """The decoder's next word at each position of `caption`, under teacher forcing."""
    ids = [BOS, *vocabulary.encode(caption[:-1])]
    memory = encoder.encode_features(features[None])
    logits = decoder(torch.tensor([ids], device=device), memory)  # (1, T, V)
    return [vocabulary.words[i] for i in logits[0].argmax(-1).tolist()]


longest = 12
forced = []  # for each picture a list: is word t right?
free = []
for i in range(len(images)):
    ended = [[*caption, "<eos>"] for caption in references[i]]
    caption = ended[i % 5]
    predicted = predict_next_words(test_features[i], caption)
    starts = [[*caption[:t], word] for t, word in enumerate(predicted[:longest])]
    forced.append([begins_a_reference(start, ended) for start in starts])
    hypothesis = [*generated[i], "<eos>"][:longest]
    starts = [hypothesis[: t + 1] for t in range(len(hypothesis))]
    free.append([begins_a_reference(start, ended) for start in starts])

# %%
figure = Figure(figsize=(6, 3), dpi=100, layout="constrained")
axis = figure.subplots()
curves = {
    "teacher forcing: the next word is right": (forced, BLUE),
    "free running: every word so far is right": (free, RED),
}
for label, (rows, colour) in curves.items():
    percent = []
    for t in range(longest):
        reached = [right[t] for right in rows if len(right) > t]
        percent.append(100 * mean(reached) if reached else 0)
    axis.plot(range(1, longest + 1), percent, "o-", color=colour, label=label)
axis.set(xlabel="word", ylabel="%", ylim=(0, 102))
axis.legend(loc="lower left")
axis.grid(alpha=0.3)
chapter.draw(figure, "teacher forcing against free running")
words_right = 100 * mean(right for row in forced for right in row)
captions_right = 100 * mean(all(row) for row in free)
print(f"with the true words as input, {words_right:.1f} % of words are right;", end=" ")
print(f"running free, {captions_right:.1f} % of captions")

# %% [markdown]
# ## What to notice
#
# A caption is **true** if the judge, which knows the scene, finds every noun, colour, size and
# place in it right, and nothing missing. There are three controls: the same model with another
# picture's vector; a model trained with half-open forget gates; and the most common training
# caption for every picture.

# %%
counts = Counter(tuple(ids.tolist()) for captions in targets for ids in captions)
[(most_common, _)] = counts.most_common(1)
captions = {
    "one vector": generated,
    "another picture's vector": describe(
        encoder, decoder, vocabulary, test_features.roll(1, 0)
    ),
    "half-open forget gates": describe(
        half_open_encoder, half_open_decoder, vocabulary, test_features
    ),
    "the most common caption": [vocabulary.decode(most_common)] * len(scenes),
}
results = {}
print(f"{'% true, pictures with':26}one object    two  three    all")
for name in captions:
    results[name] = judge_captions(captions[name], scenes)
    one, two, three, overall = results[name].percentages
    print(f"{name:26}{one:10.1f}{two:7.1f}{three:7.1f}{overall:7.1f}")
faults = results["one vector"].faults.most_common()
print("faults of the first:", ", ".join(f"{fault} {n}" for fault, n in faults))

# %%
figure = Figure(figsize=(5.5, 3), dpi=100, layout="constrained")
axis = figure.subplots()
bars = {"one vector": (-0.2, GREEN), "half-open forget gates": (0.2, BLUE)}
for name, (shift, colour) in bars.items():
    places = [n + shift for n in range(3)]
    heights = results[name].percentages[:3]
    drawn = axis.bar(places, heights, width=0.38, color=colour, label=name)
    axis.bar_label(drawn, fmt="%.1f", fontsize=9)
axis.set_xticks(range(3), ["one object", "two", "three"])
axis.set(ylabel="captions that are true, %", ylim=(0, 105))
axis.legend()
chapter.draw(figure, "what one vector loses")

# %% [markdown]
# **It is the picture that speaks**: with another picture's vector, no caption is true, although
# each is a good sentence. So a good sentence proves nothing, and neither does a low loss: most
# words of a caption are grammar.
#
# **The forget gate decides.** With its bias at 0, the same decoder, on the same features in the
# same order, has learned to write sentences, but hardly any of them is true (0.1 %): by the time a
# noun is due, the picture has been halved four or five times, once per word. With the bias at 3,
# 33.6 % are true, which is why the library's decoder starts with 3. But open gates alone are not
# enough either: with a CNN that starts from random weights (`python -m mmscratch quickstart --fusion
# prefix`), no caption was true after 100,000 scenes. It takes both: open gates and pre-training.
#
# **One vector is not enough.** 64.4 % of the captions of one object are true, 33.7 % of two, 3.0 %
# of three. The nouns, colours and places of all objects share one vector of 256 numbers, and every
# word draws on this vector. The most common fault is the place. The alternative is to look at the
# picture again for each word: chapter 5.
#
# **Teacher forcing flatters.** Given the true words, nine words in ten are right; running free,
# three captions in ten. A caption is right only if all its words are, and after one wrong word,
# everything that follows builds on it. A score per word under teacher forcing says little about
# what a model writes.
#
# The gradient was measured with five seeds, everything else with one seed, on 1,000 pictures that
# the model had never seen.
#
# ## Your turn
#
# Write these yourself, from their docstrings. `python -m chapters.assignments start 3 --to work`
# writes the stubs, and `check 3 --from work` tests your code, with a hint where something is wrong.
#
# 1. `LSTMCell.forward`: five lines; the order of the gates is i, f, g, o. 5 points, 30 minutes.
# 2. `LSTM.forward`: with `_run`; padding after a sentence's end must change nothing. 20 points, 100 minutes.
# 3. `LSTMFunction.backward`: with `forward`; all steps, and the way back through them without autograd. 25 points, 120
#    minutes.
# 4. `Memory.mean`: and the mean of nothing? 2 points, 10 minutes.
# 5. `LSTMDecoder.start`: with `step`; stepping must give what the full forward gives. 10 points, 60 minutes.
# 6. `greedy_search`: with `_word_by_word` and `_log_probs`; a batch, until its last sentence has ended. 12 points, 60 minutes.
#
# And three questions left open:
#
# 1. Train with other seeds: do the captions of a picture begin with the same word, and why?
# 2. What changes if the picture is the first word instead of the first state, as in Vinyals et al.?
# 3. How much of the gap between the two curves above closes if the decoder sometimes reads its own words in training
#    (scheduled sampling)?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Hochreiter and Schmidhuber 1997, "Long short-term memory" · Gers, Schmidhuber and Cummins 2000,
# "Learning to forget" (the forget gate) · Bengio, Simard and Frasconi 1994, "Learning long-term
# dependencies with gradient descent is difficult" · Jozefowicz, Zaremba and Sutskever 2015, "An
# empirical exploration of recurrent network architectures" (a forget bias that is not 0) · Vinyals,
# Toshev, Bengio and Erhan 2015, "Show and tell" · Williams and Zipser 1989, "A learning algorithm
# for continually running fully recurrent neural networks" (teacher forcing) · Bengio et al. 2015,
# "Scheduled sampling".
