# %% [markdown]
# # 1 · Images and words
#
# **Adds** a tokenizer, a vocabulary, image preprocessing and batches bucketed by length. **Takes** 0.1 min on two cores.
#
# A network computes with numbers, and a picture or a sentence is not a number. This chapter turns
# both into tables of numbers, and joins many of these into one larger table, a batch. Nothing is
# learned yet. But no network can recover information that is lost here, so we measure what each
# step keeps and what it costs.

# %%
import gzip
import random
import re
import timeit
from collections import Counter, defaultdict
from pathlib import Path
from pydoc_data.topics import topics
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
# A **tensor** is a table of numbers with any number of axes. A picture becomes a tensor of shape
# $(3, H, W)$: three **channels**, one each for red, green and blue light, with $H$ rows of $W$
# numbers from 0 (none) to 255 (full). The three numbers at one row and column are a **pixel**.
#
# A sentence is cut into **tokens**, which are words and punctuation marks. A **vocabulary** is a
# list of all the tokens we want to know, and a token's number is its index in that list. So a
# sentence of $T$ tokens becomes a tensor of shape $(T)$.
#
# Below is one of this book's own pictures, a scene drawn by a program, with one of its captions.

# %%
count = chapter.choose(20_000, fast=3_000)
data = SceneCaptions("train", count, one_caption_each=True)
scene = data.scenes[972]
picture = data[972]["image"]  # (3, 64, 64) uint8
sentence = captions(scene)[1]
tokens = tokenize(sentence)
scene_text = [tokens for [tokens] in data.references]  # one caption of each scene
vocabulary = Vocabulary.build(scene_text)
numbers = vocabulary.encode(tokens)
print(sentence, "->", numbers)

# %%
figure = drawings.picture_and_caption(picture, tokens, numbers)
chapter.draw(figure, "a picture and its caption as numbers")

# %% [markdown]
# ## By hand
#
# **A picture.** We scale each number $x$ to a fraction from 0 to 1, subtract the mean $\mu_c$ of
# its channel $c$, and divide by the standard deviation $\sigma_c$ of that channel, which says how
# far the numbers typically lie from the mean:
#
# $$z = \frac{x / 255 - \mu_c}{\sigma_c}$$
#
# This is called **normalising**. The numbers then lie around 0, typically about 1 away from it, and
# a network learns faster (LeCun et al. 1998). Our $\mu_c$ and $\sigma_c$ are those of ImageNet's
# photographs (Deng et al. 2009): most weights for pictures that you can download were trained with
# them, and work well only on pictures normalised in the same way.


# %%
def normalize_by_hand(image):
    """The formula, number by number, for three channels, each H rows of W numbers."""
    result = []
    for channel, mu, sigma in zip(image, MEAN, STD):
        rows = []
        for row in channel:
            rows.append([(value / 255 - mu) / sigma for value in row])
        result.append(rows)
    return result


normalized = torch.tensor(normalize_by_hand(picture.tolist()))  # (3, 64, 64)
before = picture[:, 0, 0].tolist()
after = [round(z, 3) for z in normalized[:, 0, 0].tolist()]
print(f"the first pixel: {before} -> {after}")

# %% [markdown]
# **A sentence.** We go through its characters. A letter or a digit joins the current word; anything
# else ends it. Chinese puts no spaces between its words, so each of its characters becomes a token
# of its own.


# %%
def tokenize_by_hand(sentence):
    """For simple sentences: letters form words, every other character is a token."""
    tokens = []
    word = ""
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
    print(tokenize_by_hand(captions(scene, language)[1]))

# %% [markdown]
# **A vocabulary.** We count the tokens, and keep those that occur often enough. All others share
# one number, that of `<unk>`, the unknown token. The first four numbers are reserved for special
# tokens: `<pad>` 0, `<bos>` 1 and `<eos>` 2 (the beginning and the end of a sentence), `<unk>` 3.


# %%
def vocabulary_by_hand(sentences, min_freq):
    """Tokens that occur at least `min_freq` times, by frequency, then by spelling."""
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
# **A batch.** A network works on many examples at once, a **batch**, because one large computation
# takes less time than many small ones (measured below). A tensor has no ragged edge, so sentences
# shorter than the longest are filled up with `<pad>`. That is **padding**. To keep it from being
# taken for words, a **mask** goes with it: a tensor of the same shape, with `True` at each real
# token. In this book a mask always means the same: **True = may be attended to.**


# %%
def pad_by_hand(sentences):
    """Sentences as numbers -> a table as wide as the longest, and its mask."""
    longest = max(len(numbers) for numbers in sentences)
    table = []
    mask = []
    for numbers in sentences:
        missing = longest - len(numbers)
        table.append(numbers + [PAD] * missing)
        mask.append([True] * len(numbers) + [False] * missing)
    return table, mask


print(pad_by_hand([[5, 6, 7, 2], [5, 2]]))

# %%
matrix = torch.ones(256, 256)
vectors = torch.ones(64, 256)


def one_by_one():
    return [vector @ matrix for vector in vectors]


def all_at_once():
    return vectors @ matrix


slow = min(timeit.repeat(one_by_one, number=10, repeat=5))
fast = min(timeit.repeat(all_at_once, number=10, repeat=5))
print("64 vectors times a matrix:", end=" ")
print(f"one by one takes {slow / fast:.0f} times as long as all at once")

# %% [markdown]
# ## The piece
#
# The library does the same, without loops over single numbers. Its `tokenize` applies one regular
# expression, `_TOKEN`, defined just above it in its file, which also knows apostrophes (`don't`),
# hyphens (`t-shirt`) and numbers (`3.5`).

# %%
show(normalize)
show(tokenize)

# %% [markdown]
# A `Vocabulary` counts tokens, keeps the frequent ones and looks them up. `decode` is the way back:
# it stops at `<eos>`, and leaves out `<pad>` and `<bos>`.

# %%
show(Vocabulary)

# %% [markdown]
# A data set gives each example as a dict, here a picture and a caption. `Examples` turns the words
# into numbers and appends `<eos>`. `collate` makes a batch: it stacks the pictures, which all have
# the same shape, and pads the sentences.

# %%
show(Examples)
show(collate)

# %% [markdown]
# The two agree: on the picture above, and on one caption of each of 2,000 scenes in each of the
# three languages.

# %%
assert torch.allclose(normalized, normalize(picture[None])[0], atol=1e-5)
for language in LANGUAGES:
    split = []  # tokenized captions
    for i in range(chapter.choose(2000, fast=200)):
        sentence = captions(data.scenes[i], language)[i % 5]
        split.append(tokenize(sentence))
        assert tokenize_by_hand(sentence) == split[-1]
    for min_freq in (1, 2, 30):
        words = Vocabulary.build(split, min_freq).words
        assert vocabulary_by_hand(split, min_freq) == words
    numbers = [[*vocabulary.encode(tokens), EOS] for tokens in split[:64]]
    table, mask = pad_by_hand(numbers)
    batch = collate([{"target": torch.tensor(ids)} for ids in numbers])
    target = batch["target"]  # (64, T)
    assert target.tolist() == table
    assert (target != PAD).tolist() == mask
print("by hand and in the library: the same")

# %% [markdown]
# The last piece is new, and has no slow version. Padding is wasted work, so a batch should hold
# sentences of similar length. But the batches must also differ from one pass over the data (an
# **epoch**) to the next. So the sampler shuffles the sentences, cuts them into **buckets** of 50
# batches each, sorts each bucket by length, cuts it into batches, and shuffles the batches. (`rank`
# and `world_size` are for several processes that train together: each takes its part of every
# batch. Here there is one process.)

# %%
show(BucketSampler.__iter__)

# %% [markdown]
# ## Use it
#
# **Three languages.** `detokenize` gives the sentences back, in lower case. Capitals are lost:
# `Rot` and `rot` should be one token, and the price is that German nouns and English names lose the
# capital that marks them.

# %%
for language in LANGUAGES:
    for sentence in captions(scene, language)[:2]:
        tokens = tokenize(sentence)
        assert detokenize(tokens) == sentence.lower()
        assert tokenize(detokenize(tokens)) == tokens
        print(sentence)
        print("    " + " | ".join(tokens))

# %% [markdown]
# **Natural text.** Scene captions come from a small grammar. We compare them with text that people
# wrote: the English side of Multi30k (Elliott et al. 2016), descriptions of photographs, if it is
# on this disk, and otherwise the documentation that comes with Python. Some of it is **held out**:
# not used to build anything, only to measure.


# %%
def read_multi30k(folder):
    """Tokenized English sentences: the training set, then the held-out ones."""
    parts = []
    for name in ("train", "val"):
        text = gzip.decompress((folder / f"{name}.en.gz").read_bytes()).decode()
        parts.append([tokenize(line) for line in text.splitlines()])
    return parts


def read_documentation():
    """Tokenized sentences of Python's documentation; every tenth is held out."""
    sentences = []
    for paragraph in re.split(r"\n\s*\n", "\n\n".join(topics.values())):
        for sentence in re.split(r"(?<=[.!?:])\s+", paragraph):
            tokens = tokenize(sentence)
            if sentence.strip() and len(tokens) <= 60:  # longer: a table or a program
                sentences.append(tokens)
    kept = [tokens for i, tokens in enumerate(sentences) if i % 10]
    return kept, sentences[::10]


# %%
folder = Path("data/multi30k/data/task1/raw")
if (folder / "train.en.gz").exists():
    source = "Multi30k"
    natural, natural_held_out = read_multi30k(folder)
else:
    source = "Python's documentation"
    natural, natural_held_out = read_documentation()
random.Random(0).shuffle(natural)
natural = natural[: chapter.choose(None, fast=3_000)]
validation = SceneCaptions("validation", 1000, one_caption_each=True)
scene_held_out = [tokens for [tokens] in validation.references]
print(f"the natural text is {source}: {len(natural):,} sentences,", end=" ")
print(f"and {len(natural_held_out):,} held out")
for name, text in (("scene captions", scene_text), ("natural text", natural)):
    length = mean(len(tokens) for tokens in text)
    agree = mean(tokenize_by_hand(" ".join(tokens)) == tokens for tokens in text)
    print(f"{name}: {length:.1f} tokens per sentence;", end=" ")
    print(f"{agree:.1%} of them are simple enough for the loop")

# %% [markdown]
# **What becomes `<unk>`.** A vocabulary with `min_freq=5` leaves out every token that occurs fewer
# than five times. Here are held-out sentences after `encode` and `decode`.

# %%
frequent = Vocabulary.build(natural, min_freq=5)
short = [tokens for tokens in natural_held_out if len(tokens) < 14]
with_unknown = [tokens for tokens in short if UNK in frequent.encode(tokens)]
for tokens in with_unknown[:3]:
    decoded = frequent.decode(frequent.encode(tokens))
    print(detokenize(tokens))
    print("    " + detokenize(decoded))

# %% [markdown]
# ## Look
#
# **Preprocessing.** A real photograph (it comes with matplotlib) is resized until its shorter side
# has 64 pixels, cropped to its centre, and normalised. A normalised picture has numbers below 0 and
# above 1, which no screen can show, so each channel is drawn by itself, blue below 0 and red above.

# %%
show(to_tensor)

# %%
photograph = open_image(get_sample_data("grace_hopper.jpg", asfileobj=False))
small = to_tensor(photograph, 64)  # (3, 64, 64) uint8
normal = normalize(small[None])[0]  # (3, 64, 64) float
figure = drawings.preprocessing(photograph, small, normal)
chapter.draw(figure, "a photograph before and after with its histograms")

# %%
mu = torch.tensor(MEAN).view(3, 1, 1)
sigma = torch.tensor(STD).view(3, 1, 1)
restored = (normal * sigma + mu) * 255
assert torch.equal(restored.round().to(torch.uint8), small)

many = torch.stack([data[i]["image"] for i in range(500)])  # (500, 3, 64, 64)
for name, images in (("photograph", small[None]), ("500 scenes", many)):
    for when, values in (("before", images.float()), ("after", normalize(images))):
        channels = values.transpose(0, 1)  # (3, N, H, W)
        pairs = [f"{c.mean():6.2f} ± {c.std():5.2f}" for c in channels]
        print(f"{name} {when:6}  red, green, blue: {', '.join(pairs)}")

# %% [markdown]
# Each line gives mean ± standard deviation. Normalising shifts and stretches a histogram but keeps
# its shape, and nothing is lost: undo it and round, and every number has its old value again (the
# `assert`). It does not bring *these* pictures to exactly 0 ± 1, because the constants are
# ImageNet's.
#
# **Padding and its mask.** Four captions, filled up to the length of the longest. The upper table
# has the words and their numbers, the lower one the mask.

# %%
sentences = [*captions(data.scenes[24])[:3], captions(scene)[0]]
words = [[*tokenize(sentence), "<eos>"] for sentence in sentences]
numbers = []
for tokens in words:  # <eos> is never read from a text
    numbers.append(torch.tensor([*vocabulary.encode(tokens[:-1]), EOS]))
target = collate([{"target": ids} for ids in numbers])["target"]  # (4, T)
mask = target != PAD  # (4, T)
chapter.draw(drawings.padding_and_mask(words, target, mask), "padding and its mask")

# %% [markdown]
# Why have a mask? We give every token a vector of random numbers, and average the vectors of the
# first caption: once by itself, once in the batch above, where it is padded. Attention (chapter 4)
# is such an average, with weights. Here the token `a` asks, and we look at how much of the weight
# goes to the padding.

# %%
generator = torch.Generator().manual_seed(0)
vectors = torch.randn(len(vocabulary), 16, generator=generator)  # (V, 16)
length = len(words[0])
alone = vectors[target[:1, :length]]  # (1, 5, 16)
padded = vectors[target[:1]]  # (1, T, 16)
with_mask = Memory(padded, mask[:1]).mean() - alone.mean(1)  # (1, 16)
without = padded.mean(1) - alone.mean(1)  # (1, 16)
print(f"its average changes by {with_mask.abs().max():.6f} with the mask,")
print(f"                       {without.abs().max():.6f} without it")

query = vectors[None, vocabulary.encode(["a"])]  # (1, 1, 16)
for name, seen in (("with the mask", mask[:1, None]), ("without it", None)):
    _, weights = scaled_dot_product_attention(
        query, padded, padded, seen, need_weights=True
    )  # (1, 1, T)
    on_padding = weights[0, 0, length:].sum()
    print(f"attention {name} puts {on_padding:.6f} of its weight on padding")

# %% [markdown]
# **Zipf's law.** Sort the tokens of a text by frequency. Zipf (1949) found that the token of rank
# $r$ occurs about $1/r$ times as often as the first. On two logarithmic axes that is a straight
# line. As a control, we add the natural text with all its letters and spaces shuffled: the same
# letters, but no language.

# %%
letters = list(" ".join(" ".join(tokens) for tokens in natural))
random.Random(0).shuffle(letters)
texts = {
    "natural text": natural,
    "scene captions": scene_text,
    "shuffled letters": ["".join(letters).split()],
}
frequencies = {}  # name -> (token, count), most frequent first
for name, text in texts.items():
    counter = Counter()
    for tokens in text:
        counter.update(tokens)
    frequencies[name] = counter.most_common()

# %%
figure = Figure(figsize=(6, 3.8), dpi=100, layout="constrained")
axis = figure.subplots()
for name, colour in zip(frequencies, ("tab:blue", "tab:orange", "#aaaaaa")):
    counts = [count for _, count in frequencies[name]]
    ranks = range(1, len(counts) + 1)
    axis.loglog(ranks, counts, ".-", markersize=4, color=colour, label=name)
_, most = frequencies["natural text"][0]
last = len(frequencies["natural text"])
style = {"linestyle": "--", "color": "black", "linewidth": 1}
axis.loglog([1, last], [most, most / last], **style, label="1 / rank")
axis.set(xlabel="rank", ylabel="occurrences of the token")
axis.grid(alpha=0.3)
axis.legend()
chapter.draw(figure, "the law of Zipf on three texts")

# %%
for name, counts in frequencies.items():
    total = sum(count for _, count in counts)
    products = []
    for rank in (1, 10, 100, 1000, 5000):
        if rank <= len(counts):
            _, count = counts[rank - 1]
            products.append(f"{rank * count / total:.3f}")
    once = mean(count == 1 for _, count in counts)
    first = " ".join(token for token, _ in counts[:5])
    print(f"{name:17} {len(counts):7,} tokens, {once:3.0%} occur once;", end=" ")
    print(f"the first: {first}")
    print(f"{'':17} rank × fraction: {', '.join(products)}")

# %% [markdown]
# Where the law holds, rank × fraction of the text stays the same along a row (ranks 1, 10, 100,
# 1000 and 5000, as far as they exist). In Multi30k it is between 0.11 and 0.16 at the first three
# ranks, and falls to 0.03 at rank 5000. The grammar of the scenes has too few words for a law: its
# line ends at rank 111. And the control warns us: the shuffled letters, which say nothing, lie
# between 0.05 and 0.09 at the same ranks from 10 to 5000, closer to $1/r$ than the language does.
# Miller (1957) explains why random typing does that. So such a line is no sign of language. But the
# figure does show that many tokens of a natural text are rare: of the 10,337 in Multi30k, 42 %
# occur only once.
#
# **Buckets.** Each block is a batch of 64 sentences, one per row; grey is padding. For scene
# captions, the colour says how many objects are in the picture. Within a batch the order does not
# matter; the sampler leaves it sorted.


# %%
def make_batches(lengths, bucket_batches, seed=0):
    """The batches of one epoch, from buckets of `bucket_batches`; 1: none."""
    sampler = BucketSampler(lengths, 64, seed, bucket_batches)
    return [[i for i, _ in batch] for batch in sampler]


def padding_fraction(batches, lengths):
    """The fraction of all positions that are padding."""
    positions = 0
    words = 0
    for batch in batches:
        positions += len(batch) * max(lengths[i] for i in batch)
        words += sum(lengths[i] for i in batch)
    return 1 - words / positions


objects = [len(scene.objects) for scene in data.scenes]
natural_lengths = [len(tokens) + 1 for tokens in natural]  # with <eos>
scene_lengths = [len(tokens) + 1 for tokens in scene_text]

# %%
palette = {1: "#f2b134", 2: "#3a86c8", 3: "#7b3f98"}  # number of objects -> colour
scene_colours = [palette[number] for number in objects]
kinds = {
    "natural text": (natural_lengths, ["#4c9f70"] * len(natural)),
    "scene captions": (scene_lengths, scene_colours),
}
bucketing = {"not bucketed": 1, "in buckets of 50 batches": 50}
panels = {}  # title -> batches, each a list of (length, colour)
for name, (lengths, colours) in kinds.items():
    for how, bucket_batches in bucketing.items():
        batches = make_batches(lengths, bucket_batches)
        full = [batch for batch in batches if len(batch) == 64][:8]
        padding = f"{padding_fraction(full, lengths):.0%} of these 8 batches is padding"
        title = f"{name}, {how}: {padding}"
        panels[title] = [[(lengths[i], colours[i]) for i in batch] for batch in full]
names = dict(zip(palette.values(), ("one object", "two", "three")))
figure = drawings.batches_as_blocks(panels, names)
chapter.draw(figure, "eight batches with and without buckets")

# %% [markdown]
# ## What to notice
#
# **1. A vocabulary must be measured on text that it has not seen.** The fraction of `<unk>` in the
# text that a vocabulary was built from says little: with `min_freq=1` it is zero for any text.


# %%
def unknown_fraction(vocabulary, sentences):
    ids = [i for tokens in sentences for i in vocabulary.encode(tokens)]
    return mean(i == UNK for i in ids)


parts = {
    "natural text": (natural, natural_held_out),
    "scene captions": (scene_text, scene_held_out),
}
print("                min_freq  tokens   <unk> here   <unk> held out")
for name, (text, held_out) in parts.items():
    for min_freq in (1, 2, 5, 10, 50):
        built = Vocabulary.build(text, min_freq)
        here = unknown_fraction(built, text)
        unseen = unknown_fraction(built, held_out)
        print(f"{name:14} {min_freq:9} {len(built):7,} {here:11.2%} {unseen:14.2%}")

# %% [markdown]
# With Multi30k, `min_freq=5` leaves 3,276 of 10,341 tokens (four are special), and 3.59 % of the
# held-out text is `<unk>` instead of 1.29 %. Keeping all tokens may still be the worse choice: the
# training text then has no `<unk>`, so a network never sees that token in training, but meets it
# later. As `min_freq` grows, the two columns come together: tokens left out for being rare are just
# as rare in new text. Each of the 111 tokens of the scene captions occurs 50 times or more, so none
# of these thresholds leaves anything out, and the held-out captions contain no `<unk>`. (Counting
# has no seed; this is one text with one held-out part.)
#
# **2. Buckets save padding, and it is the sorting that saves it.** As a control, the sentences of
# the bucketed batches are dealt again at random, into as many batches of the same sizes. Each
# number is the mean of three seeds, with the lowest and the highest.


# %%
def deal_again(batches, seed):
    """The same sentences in batches of the same sizes, at random."""
    order = [i for batch in batches for i in batch]
    random.Random(seed).shuffle(order)
    dealt = []
    start = 0
    for batch in batches:
        dealt.append(order[start : start + len(batch)])
        start += len(batch)
    return dealt


def arrange(how, lengths, seed):
    """The batches of one epoch, in one of four ways."""
    if how == "not bucketed":
        return make_batches(lengths, 1, seed)
    if how == "all sorted":
        return make_batches(lengths, len(lengths), seed)
    batches = make_batches(lengths, 50, seed)
    return deal_again(batches, seed) if how == "the same, dealt again" else batches


def spread(values):
    return f"{mean(values):6.1%} ({min(values):.1%} to {max(values):.1%})"


# %%
ways = ("not bucketed", "buckets of 50 batches", "the same, dealt again", "all sorted")
print(f"{'fraction of padding':22} {'natural text':26} scene captions")
for how in ways:
    cells = []
    for lengths in (natural_lengths, scene_lengths):
        fractions = []
        for seed in range(3):
            batches = arrange(how, lengths, seed)
            fractions.append(padding_fraction(batches, lengths))
        cells.append(spread(fractions))
    print(f"{how:22} {cells[0]:26} {cells[1]}")

# %% [markdown]
# With Multi30k, 48.0 % of an unbucketed batch is padding, and 2.9 % of a bucketed one. Dealt again,
# it is 47.7 %: the saving comes from how the sentences are grouped, not from which sentences they
# are. Sorting everything instead of buckets of 50 batches would save another 2.6 of 100
# positions, and 1.5 in the scene captions.
#
# **3. Buckets are not free.** The sentences of a batch are now alike in length, and so in
# everything that goes with length. For a scene, that is the number of objects.

# %%
half = len(objects) // 2
by_length = defaultdict(Counter)  # length of the caption -> numbers of objects
for length, number in zip(scene_lengths[:half], objects[:half]):
    by_length[length][number] += 1
guesses = []
for length in scene_lengths[half:]:
    ranked = by_length[length].most_common()
    guesses.append(ranked[0][0] if ranked else 0)
[(most_common, _)] = Counter(objects[:half]).most_common(1)
right = mean(guess == number for guess, number in zip(guesses, objects[half:]))
always = mean(number == most_common for number in objects[half:])
print(f"number of objects guessed from the length alone: {right:.1%} right")
print(f"the most common number, always:                  {always:.1%} right")

# %%
print(f"{'in a batch':22} {'standard deviation':20} batches with one number only")
for how in ways:
    deviations = []  # by seed
    uniform = []
    for seed in range(3):
        batches = []
        for batch in arrange(how, scene_lengths, seed):
            batches.append([objects[i] for i in batch])
        deviations.append(mean(stdev(batch) for batch in batches if len(batch) > 1))
        uniform.append(mean(len(set(batch)) == 1 for batch in batches))
    print(f"{how:22} {mean(deviations):.2f}", end=" ")
    print(f"({min(deviations):.2f} to {max(deviations):.2f})  {spread(uniform)}")

# %% [markdown]
# The length alone gives away the number of objects in 71.4 % of the scenes; always guessing the
# most common number is right in 33.3 %. So every fifth bucketed batch (20.1 %) holds only scenes
# with the same number of objects. Unbucketed, or dealt again, no batch does, and the standard
# deviation within a batch is 0.82 instead of 0.46 (means of three seeds).
#
# Batch normalisation (Ioffe & Szegedy 2015; chapter 2) takes its averages over the batch, so in
# training a network's output for one picture depends on the others, and the network can come to
# rely on their being alike. This chapter trains nothing, so it does not show the harm; the comment
# above `bucket_batches` in `mmscratch/tasks/captioning.py` says what was measured, and why
# `quickstart` does not bucket.
#
# **4. The same seed gives the same batches**, whatever the rest of the program has drawn at random.
# Another epoch or another seed gives other batches. Every epoch holds each sentence exactly once.

# %%
first = list(BucketSampler(scene_lengths, 64, seed=0))
torch.manual_seed(99)  # must not matter to the sampler
sampler = BucketSampler(scene_lengths, 64, seed=0)
assert list(sampler) == first
assert list(BucketSampler(scene_lengths, 64, seed=1)) != first
assert sorted(i for batch in first for i, _ in batch) == list(range(len(data)))

sampler.start(epoch=1)
epochs = []  # the batches of each, as sets of sentences
for batches in (first, sampler):
    epochs.append({frozenset(i for i, _ in batch) for batch in batches})
alike = epochs[0] & epochs[1]
print(f"{len(first)} batches in an epoch;", end=" ")
print(f"batches of the first that come again in the second: {len(alike)}")

# %% [markdown]
# ## Your turn
#
# Write these yourself, from their docstrings. `python -m chapters.assignments start 1 --to work`
# writes the stubs, and `check 1 --from work` tests your code, with a hint where something is wrong.
#
# 1. `tokenize`: the pattern is given; what must happen to the text first? 1 point, 5 minutes.
# 2. `detokenize`: where do people write no space? 3 points, 15 minutes.
# 3. `Vocabulary.build`: and two words that are equally frequent? 2 points, 10 minutes.
# 4. `Vocabulary.encode`: and back with `decode`; what becomes of "<eos>" in a caption? 2 points, 10 minutes.
# 5. `normalize`: two lines, and three ways to get the scale wrong. 1 point, 5 minutes.
# 6. `collate`: how long is a batch? 3 points, 15 minutes.
# 7. `BucketSampler.__iter__`: for one process; several come in chapter 6. 8 points, 40 minutes.
#
# And three questions left open:
#
# 1. How does the padding depend on the size of the buckets? Plot the fraction of padding for buckets of 1, 2, 5, … 500
#    batches. Where does a larger bucket stop being worth it, and what would be lost by sorting everything?
# 2. The tokenizer puts everything in lower case. How many tokens would the vocabulary gain if it did not, how many of
#    them would differ from another one only in the case of the first letter, and what would that do to the fraction of
#    `<unk>`? Compare English with German, where every noun has a capital.
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
# - G. A. Miller (1957). *Some Effects of Intermittent Silence.* American Journal of Psychology. Random letters follow
#   Zipf's law, too.
# - D. Elliott, S. Frank, K. Sima'an, L. Specia (2016). *Multi30K: Multilingual English-German Image Descriptions.*
# - S. Ioffe, C. Szegedy (2015). *Batch Normalization.* ICML. Its averages are taken over a batch.
# - Unicode Standard Annex 15, *Unicode Normalization Forms*: why `tokenize` first converts a text to NFC.

# %%
chapter.finish()
