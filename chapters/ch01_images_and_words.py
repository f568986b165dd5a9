# %% [markdown]
# # 1 · Images and words
#
# **Adds** a tokenizer, a vocabulary, image preprocessing and batches bucketed by length. **Takes** 0.2 min on two cores.
#
# A network computes with numbers, and neither a picture nor a sentence is one. This chapter makes tables of numbers of
# both, and puts many of them into one table, a batch. Nothing is learned yet, but what is lost here no network can find
# again, so we measure what each step keeps and what it costs.

# %%
import gzip
import random
import re
import timeit
from collections import Counter
from pathlib import Path
from statistics import mean, stdev

import torch
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure

from chapters.chapter import Chapter, show
from chapters.drawings import ch01 as drawings
from mmscratch.attention import Memory, scaled_dot_product_attention
from mmscratch.batches import BucketSampler, Examples, collate
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.language import LANGUAGES, captions
from mmscratch.images import MEAN, STD, normalize, open_image, to_tensor
from mmscratch.text import EOS, PAD, UNK, Vocabulary, detokenize, tokenize

chapter = Chapter(1)

# %% [markdown]
# ## The idea
#
# A **tensor** is a table of numbers with any number of axes. A picture becomes a tensor of shape $(3, H, W)$: three
# **channels**, one each for red, green and blue light, with $H$ rows of $W$ numbers from 0 (none) to 255 (full). One
# place in all three channels is a **pixel**.
#
# A sentence is cut into **tokens**, which are words and signs. A **vocabulary** is a list of all tokens that we want to
# know, and a token's number is its place in that list. So a sentence of $T$ tokens becomes a tensor of shape $(T)$.
#
# Below is one of this book's own pictures, a scene drawn by a program, with one of its captions.

# %%
count = chapter.choose(20_000, 3_000)
scenes = SceneCaptions(
    "train", count, one_caption_each=True
)  # each scene with one caption
vocabulary = Vocabulary.build(tokens for [tokens] in scenes.references)
picture = scenes[972]["image"]  # (3, 64, 64) uint8
sentence = captions(scenes.scenes[972])[1]
tokens = tokenize(sentence)
print(sentence, "->", vocabulary.encode(tokens))

# %%
figure = drawings.picture_and_caption(picture, tokens, vocabulary.encode(tokens))
chapter.draw(figure, "a picture and its caption as numbers")

# %% [markdown]
# ## By hand
#
# **A picture.** From each number $x$ we take the mean $\mu_c$ of its channel $c$ and divide by the standard deviation
# $\sigma_c$ of that channel, which says how far the numbers lie from the mean:
#
# $$z = \frac{x / 255 - \mu_c}{\sigma_c}$$
#
# This is called **normalising**. The numbers then lie around 0, about 1 away from it, which makes a network learn
# faster (LeCun et al. 1998). The $\mu_c$ and $\sigma_c$ are those of the photographs of ImageNet (Deng et al. 2009):
# most weights that one can download were trained with them, and understand only pictures that were normalised in the
# same way.


# %%
def normalize_by_hand(image):
    """The formula, number by number: three channels of H rows of W numbers from 0 to 255."""
    result = []
    for channel, mu, sigma in zip(image, MEAN, STD):
        rows = []
        for row in channel:
            rows.append([(value / 255 - mu) / sigma for value in row])
        result.append(rows)
    return result


by_hand = torch.tensor(normalize_by_hand(picture.tolist()))  # (3, 64, 64)
print(
    f"the first pixel: {picture[:, 0, 0].tolist()} -> {[round(z, 3) for z in by_hand[:, 0, 0].tolist()]}"
)

# %% [markdown]
# **A sentence.** We go through its letters. A letter or a digit joins the word that is being read, anything else ends
# it. Chinese puts no spaces between its words, so each of its characters becomes a token of its own.


# %%
def tokenize_by_hand(sentence):
    """For simple sentences: letters are gathered to words, every other sign stands by itself."""
    tokens, word = [], ""
    for character in sentence.lower() + " ":
        chinese = "\u4e00" <= character <= "\u9fff"
        if character.isalnum() and not chinese:
            word += character
            continue
        if word:
            tokens.append(word)
            word = ""
        if not character.isspace():
            tokens.append(character)
    return tokens


for language in LANGUAGES:
    print(tokenize_by_hand(captions(scenes.scenes[972], language)[1]))

# %% [markdown]
# **A vocabulary.** We count, and keep what comes often enough. What is left out shares one number, that of `<unk>`, the
# unknown token. The first four numbers are kept for such specials: `<pad>` 0, `<bos>` 1 and `<eos>` 2 (the beginning
# and the end of a sentence), `<unk>` 3.


# %%
def vocabulary_by_hand(sentences, min_freq):
    """The tokens that come at least min_freq times, the commonest first, ties by spelling."""
    counts = {}
    for tokens in sentences:
        for token in tokens:
            counts[token] = counts.get(token, 0) + 1
    kept = []
    for token, count in counts.items():
        if count >= min_freq:
            kept.append((-count, token))
    return ["<pad>", "<bos>", "<eos>", "<unk>"] + [token for _, token in sorted(kept)]


few = [["a", "red", "star"], ["a", "red", "moon"], ["a", "star"]]
print(vocabulary_by_hand(few, min_freq=2))

# %% [markdown]
# **A batch.** A network works on many examples at once, a **batch**, because one large computation takes less time than
# many small ones (the last line below measures it). A tensor has no ragged edge, so sentences that are shorter than the
# longest are filled up with `<pad>`. That is **padding**. So that nobody takes it for words, a **mask** goes with it, a
# tensor of the same shape with `True` where there is a real token. In this book a mask always means one thing: **True =
# may be attended to.**


# %%
def pad_by_hand(sentences):
    """Sentences as numbers -> a table as wide as the longest, and its mask."""
    longest = max(len(numbers) for numbers in sentences)
    table, mask = [], []
    for numbers in sentences:
        missing = longest - len(numbers)
        table.append(numbers + [PAD] * missing)
        mask.append([True] * len(numbers) + [False] * missing)
    return table, mask


print(pad_by_hand([[5, 6, 7, 2], [5, 2]]))
matrix, vectors = torch.ones(256, 256), torch.ones(64, 256)
one_by_one = min(
    timeit.repeat(lambda: [vector @ matrix for vector in vectors], number=10, repeat=5)
)
at_once = min(timeit.repeat(lambda: vectors @ matrix, number=10, repeat=5))
print(
    f"64 vectors times a matrix: one by one takes {one_by_one / at_once:.0f} times as long as all at once"
)

# %% [markdown]
# ## The piece
#
# The library does the same, without loops over single numbers. Its `tokenize` is one regular expression, `_TOKEN`,
# which stands just above it in its file; it also knows apostrophes (`don't`), hyphens (`t-shirt`) and numbers (`3.5`).

# %%
show(normalize)
show(tokenize)

# %% [markdown]
# A `Vocabulary` counts, keeps and looks up. `decode` goes the way back: it stops at `<eos>`, and leaves out what is no
# word.

# %%
show(Vocabulary)

# %% [markdown]
# A data set hands over each example as a dict, here a picture and a caption. `Examples` turns its words into numbers and
# puts `<eos>` behind them. `collate` makes a batch: it stacks pictures, which all have one shape, and pads sentences.

# %%
show(Examples)
show(collate)

# %% [markdown]
# Both agree: on the picture above, and on one caption of each scene in each of the three languages.

# %%
assert torch.allclose(by_hand, normalize(picture[None])[0], atol=1e-5)
for language in LANGUAGES:
    sentences = [
        captions(scenes.scenes[i], language)[i % 5]
        for i in range(chapter.choose(2000, 200))
    ]
    assert all(
        tokenize_by_hand(sentence) == tokenize(sentence) for sentence in sentences
    )
    split = [tokenize(sentence) for sentence in sentences]
    for min_freq in (1, 2, 30):
        assert (
            vocabulary_by_hand(split, min_freq)
            == Vocabulary.build(split, min_freq).words
        )
    numbers = [[*vocabulary.encode(tokens), EOS] for tokens in split[:64]]
    table, mask = pad_by_hand(numbers)
    target = collate([{"target": torch.tensor(sentence)} for sentence in numbers])[
        "target"
    ]  # (64, T)
    assert target.tolist() == table and (target != PAD).tolist() == mask
print("by hand and in the library: the same")

# %% [markdown]
# The last piece is new, and has no slow version. Padding is wasted work, so a batch should hold sentences of similar
# length: a **bucket**. But batches must also differ from one pass over the data (an **epoch**) to the next. So the
# sampler shuffles, cuts the order into buckets of 50 batches, sorts each bucket by length, cuts it into batches, and
# shuffles those. (`rank` and `world_size` are for several processes that train together: each takes its part of every
# batch. Here there is one process.)

# %%
show(BucketSampler.__iter__)

# %% [markdown]
# ## Use it
#
# **Three languages.** `detokenize` gives the sentences back, in small letters. Those are lost: `Rot` and `rot` are to
# be one token, and the price is that a German noun, and an English name, lose what marked them.

# %%
for language in LANGUAGES:
    for sentence in captions(scenes.scenes[972], language)[:2]:
        tokens = tokenize(sentence)
        assert (
            detokenize(tokens) == sentence.lower()
            and tokenize(detokenize(tokens)) == tokens
        )
        print(f"{sentence}\n    {' | '.join(tokens)}")

# %% [markdown]
# **Natural text.** Scene captions come from a small grammar. We want to compare them with what people write: the
# English side of Multi30k (Elliott et al. 2016), descriptions of photographs, where it is on this disk, or else the
# documentation that comes with Python. Some of it is **held out**: not used to build anything, only to measure.


# %%
def natural_text():
    """Tokenized sentences to build on, others held out, and where they come from."""
    folder = Path("data/multi30k/data/task1/raw")
    if (folder / "train.en.gz").exists():
        parts = [
            gzip.decompress((folder / f"{part}.en.gz").read_bytes()).decode()
            for part in ("train", "val")
        ]
        return *(
            [tokenize(line) for line in part.splitlines()] for part in parts
        ), "Multi30k"
    from pydoc_data.topics import topics

    paragraphs = re.split(r"\n\s*\n", "\n\n".join(topics.values()))
    sentences = [
        tokenize(s)
        for text in paragraphs
        for s in re.split(r"(?<=[.!?:])\s+", text)
        if s.strip()
    ]
    sentences = [
        tokens for tokens in sentences if len(tokens) <= 60
    ]  # what is longer is a table or a program
    return (
        [s for i, s in enumerate(sentences) if i % 10],
        sentences[::10],
        "Python's documentation",
    )


natural, natural_held_out, source = natural_text()
random.Random(0).shuffle(natural)
natural = natural[: chapter.choose(None, 3_000)]
scene_text = [tokens for [tokens] in scenes.references]
scene_held_out = [
    tokens
    for [tokens] in SceneCaptions("validation", 1000, one_caption_each=True).references
]
print(
    f"the natural text is {source}: {len(natural):,} sentences, and {len(natural_held_out):,} held out"
)
for name, text in (("scene captions", scene_text), ("natural text", natural)):
    agree = mean(tokenize_by_hand(" ".join(tokens)) == tokens for tokens in text)
    print(
        f"{name}: {mean(map(len, text)):.1f} tokens a sentence; {agree:.1%} of them are simple enough for the loop"
    )

# %% [markdown]
# **What becomes `<unk>`.** A vocabulary with `min_freq=5` leaves out every token that comes fewer than five times. Here
# are held-out sentences after `encode` and `decode`.

# %%
frequent = Vocabulary.build(natural, min_freq=5)
for tokens in [
    tokens
    for tokens in natural_held_out
    if UNK in frequent.encode(tokens) and len(tokens) < 14
][:3]:
    print(
        detokenize(tokens),
        detokenize(frequent.decode(frequent.encode(tokens))),
        sep="\n    ",
    )

# %% [markdown]
# ## Look
#
# **Preprocessing.** A real photograph (it comes with matplotlib) has its shorter side resized to 64 pixels and its
# centre cut out, then it is normalised. A normalised picture has numbers below 0 and above 1, which no screen can show,
# so each channel is drawn by itself, blue below 0 and red above.

# %%
show(to_tensor)

# %%
photograph = open_image(get_sample_data("grace_hopper.jpg", asfileobj=False))
small = to_tensor(photograph, 64)  # (3, 64, 64) uint8
normal = normalize(small[None])[0]  # (3, 64, 64) float
figure = Figure(figsize=(7, 4.4), dpi=100, layout="constrained")
upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.1))
panels = upper.subplots(1, 5)
for axes, image in zip(panels, (photograph, small.permute(1, 2, 0).numpy())):
    axes.imshow(image)
for axes, channel in zip(panels[2:], normal):
    shown = axes.imshow(channel.numpy(), cmap="RdBu_r", vmin=-2.5, vmax=2.5)
normalised = [f"{colour}, normalised" for colour in ("red", "green", "blue")]
for axes, name in zip(
    panels, (f"{photograph.width} × {photograph.height}", "64 × 64", *normalised)
):
    axes.set_xlabel(name, fontsize=8)
    axes.set(xticks=[], yticks=[])
upper.colorbar(shown, ax=panels[4], shrink=0.7).ax.tick_params(labelsize=7)
for axes, values, title in zip(
    lower.subplots(1, 2), (small.float(), normal), ("before", "after normalising")
):
    for channel, colour in zip(values, ("tab:red", "tab:green", "tab:blue")):
        axes.hist(
            channel.flatten().numpy(),
            bins=40,
            histtype="step",
            color=colour,
            linewidth=1.4,
        )
    axes.set_title(title, fontsize=9)
    axes.set(xlabel="value", ylabel="pixels")
chapter.draw(figure, "a photograph before and after with its histograms")

# %%
back = (
    normal * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
) * 255  # undo it
assert torch.equal(back.round().to(torch.uint8), small)
many = torch.stack([scenes[i]["image"] for i in range(500)])  # (500, 3, 64, 64)
for name, images in (("photograph", small[None]), ("500 scenes", many)):
    for when, values in (("before", images.float()), ("after", normalize(images))):
        pairs = [f"{c.mean():6.2f} ± {c.std():5.2f}" for c in values.transpose(0, 1)]
        print(f"{name} {when:6}  red, green, blue: {', '.join(pairs)}")

# %% [markdown]
# Each line gives mean ± standard deviation. Normalising moves and stretches a histogram, it does not change its shape:
# undone and rounded, every number was what it had been (the `assert`). And it does not bring *these* pictures to
# exactly 0 ± 1, because the constants are ImageNet's.
#
# **Padding and its mask.** Four captions, filled up to the longest. Above the words and their numbers, below the mask.

# %%
shown = [*captions(scenes.scenes[24])[:3], captions(scenes.scenes[972])[0]]
words = [[*tokenize(sentence), "<eos>"] for sentence in shown]
numbers = []
for tokens in words:  # <eos> is never read from a text
    numbers.append(torch.tensor([*vocabulary.encode(tokens[:-1]), EOS]))
target = collate([{"target": sentence} for sentence in numbers])["target"]  # (4, T)
mask = target != PAD  # (4, T)
chapter.draw(drawings.padding_and_mask(words, target, mask), "padding and its mask")

# %% [markdown]
# What the mask is for: we give every token a vector of random numbers, and average the vectors of the first caption,
# once alone, once in the batch above, where it is padded. Attention (chapter 5) is such an average, with weights; here
# the token `a` asks, and we look at how much of its weight goes to the padding.

# %%
vectors = torch.randn(
    len(vocabulary), 16, generator=torch.Generator().manual_seed(0)
)  # (V, 16)
alone, padded = (
    vectors[target[:1, : len(words[0])]],
    vectors[target[:1]],
)  # (1, 5, 16) and (1, T, 16)
print(
    f"its average changes by {(alone.mean(1) - Memory(padded, mask[:1]).mean()).abs().max():.6f} with the mask,"
)
print(
    f"                       {(alone.mean(1) - padded.mean(1)).abs().max():.6f} without it"
)
query = vectors[None, vocabulary.encode(["a"])]  # (1, 1, 16)
for name, seen in (("with the mask", mask[:1, None]), ("without it", None)):
    _, weights = scaled_dot_product_attention(
        query, padded, padded, seen, need_weights=True
    )  # (1, 1, T)
    print(
        f"attention {name} puts {weights[0, 0, len(words[0]) :].sum():.6f} of its weight on padding"
    )

# %% [markdown]
# **Zipf's law.** Sort the tokens of a text by how often they come. Zipf (1949) found that the token of rank $r$ comes
# about $1/r$ times as often as the first. With both axes logarithmic that is a straight line. As a control, the natural
# text once more with all its letters and spaces shuffled: the same letters, but no language.

# %%
letters = list(" ".join(" ".join(tokens) for tokens in natural))
random.Random(0).shuffle(letters)
texts = {
    "natural text": natural,
    "scene captions": scene_text,
    "shuffled letters": ["".join(letters).split()],
}
frequencies = {
    name: Counter(word for tokens in text for word in tokens).most_common()
    for name, text in texts.items()
}
figure = Figure(figsize=(6, 3.8), dpi=100, layout="constrained")
axes = figure.subplots()
for (name, counts), colour in zip(
    frequencies.items(), ("tab:blue", "tab:orange", "#aaaaaa")
):
    axes.loglog(
        range(1, len(counts) + 1),
        [count for _, count in counts],
        ".-",
        markersize=4,
        color=colour,
        label=name,
    )
most, ranks = frequencies["natural text"][0][1], len(frequencies["natural text"])
axes.loglog(
    [1, ranks], [most, most / ranks], "--", color="black", linewidth=1, label="1 / rank"
)
axes.set(xlabel="rank", ylabel="times that the token comes")
axes.grid(alpha=0.3)
axes.legend()
chapter.draw(figure, "the law of Zipf on three texts")

# %%
for name, counts in frequencies.items():
    total = sum(count for _, count in counts)
    fractions = [
        f"{rank * counts[rank - 1][1] / total:.3f}"
        for rank in (1, 10, 100, 1000, 5000)
        if rank <= len(counts)
    ]
    once = mean(count == 1 for _, count in counts)
    first = " ".join(token for token, _ in counts[:5])
    print(
        f"{name:17} {len(counts):7,} tokens, {once:3.0%} come once; the first: {first}"
    )
    print(f"{'':17} rank × share: {', '.join(fractions)}")

# %% [markdown]
# Where the law holds, rank × share stays the same along a row (ranks 1, 10, 100, 1000 and 5000, as far as there are
# any). In Multi30k it is between 0.11 and 0.16 at the first three ranks, and falls to 0.03 at rank 5000. The grammar of
# the scenes has too few words for a law: its line ends at rank 111. And the control warns us: the shuffled letters,
# which say nothing, lie between 0.05 and 0.09 at the same ranks from 10 to 5000, closer to $1/r$ than the language
# there. Miller (1957) explains why random typing does that. So such a line is no sign of language. What the figure does
# tell us is that many tokens of a natural text are rare: of the 10,337 of Multi30k, 42 % come once.
#
# **Buckets.** Each block is a batch of 64 sentences, a row of it a sentence; grey is padding. In the scene captions the
# colour says how many things are in the picture. Within a batch the order does not matter; the sampler leaves it
# sorted.

# %%
objects = [len(scene.objects) for scene in scenes.scenes]
natural_lengths = [len(tokens) + 1 for tokens in natural]  # with <eos>
scene_lengths = [len(tokens) + 1 for tokens in scene_text]


def batches_of(lengths, pool, seed=0):
    """The batches of one epoch, from buckets of `pool` batches; 1 does not bucket."""
    return [[i for i, _ in batch] for batch in BucketSampler(lengths, 64, seed, pool)]


def padding(batches, lengths):
    """The share of all places that are padding."""
    places = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return 1 - sum(lengths[i] for batch in batches for i in batch) / places


# %%
palette = {1: "#f2b134", 2: "#3a86c8", 3: "#7b3f98"}
kinds = [("natural text", natural_lengths, ["#4c9f70"] * len(natural))]
kinds += [("scene captions", scene_lengths, [palette[number] for number in objects])]
panels = {}  # by title the batches, of each sentence its length and colour
for name, lengths, colours in kinds:
    for pool, how in ((1, "not bucketed"), (50, "bucketed in pools of 50 batches")):
        some = [batch for batch in batches_of(lengths, pool) if len(batch) == 64][:8]
        fraction = f"{padding(some, lengths):.0%} of these 8 batches is padding"
        sentences = [[(lengths[i], colours[i]) for i in batch] for batch in some]
        panels[f"{name}, {how}: {fraction}"] = sentences
names = dict(zip(palette.values(), ("one thing", "two", "three")))
figure = drawings.batches_as_blocks(panels, names)
chapter.draw(figure, "eight batches with and without buckets")

# %% [markdown]
# ## What to notice
#
# **1. A vocabulary must be measured on text that it has not seen.** The share of `<unk>` on the text that a vocabulary
# was built from says little: with `min_freq=1` it is zero whatever the text.

# %%
print("                min_freq  tokens   <unk> here   <unk> held out")
parts = [
    ("natural text", natural, natural_held_out),
    ("scene captions", scene_text, scene_held_out),
]
for name, text, held_out in parts:
    for min_freq in (1, 2, 5, 10, 50):
        built = Vocabulary.build(text, min_freq)
        here, there = (
            mean(i == UNK for tokens in part for i in built.encode(tokens))
            for part in (text, held_out)
        )
        print(f"{name:14} {min_freq:9} {len(built):7,} {here:11.2%} {there:14.2%}")

# %% [markdown]
# With Multi30k, `min_freq=5` leaves 3,276 of 10,341 tokens (four are the specials), and 3.59 % of the held-out text is
# `<unk>` instead of 1.29 %. All tokens may still be the worse choice: the text itself then has no `<unk>`, so a network
# would never see that token in training, but would meet it later. As `min_freq` grows, the two columns come together:
# what is left out for being rare is as rare in new text. Each of the 111 tokens of the scene captions comes 50 times or
# more, so no choice matters, and the held-out captions hold no `<unk>`. (Counting has no seed; this is one text with
# one held-out part.)
#
# **2. Buckets save padding, and it is the sorting that saves it.** As a control, the sentences of the bucketed batches
# are dealt out anew: as many batches, of the same sizes, with the same sentences, but at random. Each number is the
# mean of three seeds, with the lowest and the highest.


# %%
def deal_anew(batches, seed):
    """The same sentences in batches of the same sizes, at random."""
    order = [i for batch in batches for i in batch]
    random.Random(seed).shuffle(order)
    deal = iter(order)
    return [[next(deal) for _ in batch] for batch in batches]


def spread(values):
    return f"{mean(values):6.1%} ({min(values):.1%} to {max(values):.1%})"


arrangements = {
    "not bucketed": lambda lengths, seed: batches_of(lengths, 1, seed),
    "pools of 50 batches": lambda lengths, seed: batches_of(lengths, 50, seed),
    "the same, dealt anew": lambda lengths, seed: deal_anew(
        batches_of(lengths, 50, seed), seed
    ),
    "all sorted": lambda lengths, seed: batches_of(lengths, len(lengths), seed),
}
print(f"{'fraction of padding':22} {'natural text':26} scene captions")
for name, arrange in arrangements.items():
    fractions = [
        spread([padding(arrange(n, seed), n) for seed in range(3)])
        for n in (natural_lengths, scene_lengths)
    ]
    print(f"{name:22} {fractions[0]:26} {fractions[1]}")

# %% [markdown]
# With Multi30k, 48.0 % of an unbucketed batch is padding, and 2.9 % of a bucketed one. Dealt anew it is 47.7 %: so the
# saving comes from who is with whom, not from which sentences there are. To sort everything instead of pools of 50
# batches would save another 2.6 of 100 places, and 1.5 in the scene captions.
#
# **3. Buckets are not free.** The sentences of a batch are now alike in length, and what goes with length is alike as
# well. In a scene that is the number of things.

# %%
half = len(objects) // 2
by_length = {
    n: Counter(t for t, m in zip(objects[:half], scene_lengths) if m == n)
    for n in set(scene_lengths)
}
guesses = [
    by_length[n].most_common(1)[0][0] if by_length[n] else 0
    for n in scene_lengths[half:]
]
commonest = Counter(objects[:half]).most_common(1)[0][0]
print(
    f"number of things guessed from the length alone: {mean(map(int.__eq__, guesses, objects[half:])):.1%} right"
)
print(
    f"the commonest number, always:                   {mean(commonest == t for t in objects[half:]):.1%} right"
)
print(f"\n{'in a batch':22} {'standard deviation':20} batches with one number only")
for name, arrange in arrangements.items():
    seeds = [
        [[objects[i] for i in batch] for batch in arrange(scene_lengths, seed)]
        for seed in range(3)
    ]
    deviations = [
        mean(stdev(batch) for batch in batches if len(batch) > 1) for batches in seeds
    ]
    uniform = spread(
        [mean(len(set(batch)) == 1 for batch in batches) for batches in seeds]
    )
    print(
        f"{name:22} {mean(deviations):.2f} ({min(deviations):.2f} to {max(deviations):.2f})  {uniform}"
    )

# %% [markdown]
# The length alone tells the number of things in 71.4 % of the scenes, against 33.3 % for the commonest number. So every
# fifth bucketed batch (20.1 %) holds scenes with one and the same number of things; unbucketed, or dealt anew, none
# does, and the standard deviation within a batch is 0.82 instead of 0.46 (each the mean of three seeds).
#
# Batch normalisation (Ioffe & Szegedy 2015; chapter 2) takes its averages over the batch, so what a network makes of
# one picture hangs on the others, and it can come to rely on their being alike. This chapter trains nothing, so it has
# not shown the harm; the comment at `bucket_batches` in `mmscratch/tasks/captioning.py` says what was measured there,
# and is why `quickstart` does not bucket.
#
# **4. The same seed gives the same batches**, whatever the rest of the program has drawn at random. Another epoch or
# another seed gives others, and each holds every sentence once.

# %%
first = list(BucketSampler(scene_lengths, 64, seed=0))
torch.manual_seed(99)  # the sampler must not notice
sampler = BucketSampler(scene_lengths, 64, seed=0)
assert (
    list(sampler) == first and list(BucketSampler(scene_lengths, 64, seed=1)) != first
)
assert sorted(i for batch in first for i, _ in batch) == list(range(len(scenes)))
sampler.start(epoch=1)
second = list(sampler)
alike = {frozenset(i for i, _ in batch) for batch in first} & {
    frozenset(i for i, _ in batch) for batch in second
}
print(
    f"{len(first)} batches in an epoch; batches of the first that come again in the second: {len(alike)}"
)

# %% [markdown]
# ## Your turn
#
# Write these anew, from their docstrings. `python -m chapters.assignments start 1 --to work` lays the stubs out, and
# `check 1 --from work` says what is right, and gives a hint where something is not.
#
# 1. `tokenize`: the pattern is there; what must happen to the text before? 1 point, 5 minutes.
# 2. `detokenize`: where do people write no space? 3 points, 15 minutes.
# 3. `Vocabulary.build`: and two words that are equally frequent? 2 points, 10 minutes.
# 4. `Vocabulary.encode`: and back with `decode`; what becomes of "<eos>" in a caption? 2 points, 10 minutes.
# 5. `normalize`: two lines, and three ways to get the scale wrong. 1 point, 5 minutes.
# 6. `collate`: how long is a batch? 3 points, 15 minutes.
# 7. `BucketSampler.__iter__`: for one process; the shares of several are chapter 6's. 8 points, 40 minutes.
#
# And three questions without an answer here:
#
# 1. How does the padding depend on the size of the pool? Draw the share of padding for pools of 1, 2, 5, … 500 batches.
#    Where does a larger pool stop being worth it, and what would be lost by sorting everything?
# 2. The tokenizer makes small letters of all. How many tokens would the vocabulary gain if it did not, how many of
#    those differ from another only in their first letter, and what would that do to the share of `<unk>`? Compare
#    English with German, where every noun has a capital.
# 3. Chinese is cut into characters here. Build a vocabulary of the Chinese scene captions: is it larger or smaller than
#    the English one, and are its sentences longer or shorter? What would change if its words were tokens?
#
# ## Sources
#
# - Y. LeCun, L. Bottou, G. Orr, K.-R. Müller (1998). *Efficient BackProp.* Why inputs should lie around zero.
# - J. Deng, W. Dong, R. Socher, L.-J. Li, K. Li, L. Fei-Fei (2009). *ImageNet: A Large-Scale Hierarchical Image
#   Database.* CVPR. The mean and the standard deviation are those that torchvision's documentation gives for its
#   weights.
# - G. K. Zipf (1949). *Human Behavior and the Principle of Least Effort.*
# - G. A. Miller (1957). *Some Effects of Intermittent Silence.* American Journal of Psychology. Random letters too.
# - D. Elliott, S. Frank, K. Sima'an, L. Specia (2016). *Multi30K: Multilingual English-German Image Descriptions.*
# - S. Ioffe, C. Szegedy (2015). *Batch Normalization.* ICML. Its averages are taken over a batch.
# - Unicode Standard Annex 15, *Unicode Normalization Forms*: why `tokenize` first brings a text to NFC.

# %%
chapter.finish()
