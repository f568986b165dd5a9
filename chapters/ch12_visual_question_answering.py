# %% [markdown]
# # 12 · Visual question answering
#
# **Adds** FiLM, by which a question steers the CNN; balanced pairs; the accuracy of answers. **Takes** 3.0 min on two cores.
#
# A picture and a question go in, an answer comes out. The model is that of chapter 11: the question
# takes the place of the sentence to translate, and the answer that of the translation. What is new
# is a way to fool oneself, and a way to look. Most questions can be answered fairly well without
# looking ("what colour is the banana?"), so the data must not allow it. And a CNN that does not
# know the question has to describe everything, just in case; FiLM lets the question decide what the
# CNN looks for.

# %%
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from chapters.chapter import Chapter, show
from chapters.drawings import ch12 as drawings
from chapters.measured import answering as measured
from mmscratch.__main__ import main
from mmscratch.batches import Examples
from mmscratch.data.answers import SceneQuestions
from mmscratch.data.questions import (
    KINDS,
    draw_pair,
    true_answer,
    write_answer,
    write_question,
)

# %%
from mmscratch.data.scenes import draw
from mmscratch.decoding import (
    attention_weights,
    candidate_log_probs,
    generate,
    rank_answers,
)
from mmscratch.film import FiLM, modulate
from mmscratch.finetuning import load_run
from mmscratch.metrics import (
    answer_table,
    normalize_answer,
    pair_accuracy,
    shuffle_within,
    vqa_accuracy,
)
from mmscratch.model import EncoderDecoder, ModelConfig
from mmscratch.tasks.answering import Answering
from mmscratch.text import Vocabulary, detokenize, tokenize
from mmscratch.training import TrainConfig, Trainer
from mmscratch.vision import BasicBlock, ImageEncoder, ResNet

torch.manual_seed(0)
chapter = Chapter(12)

# %% [markdown]
# ## The idea

# %%
pair = draw_pair(9)
picture = draw(pair.scenes[0], 128)
question = write_question(pair.question)
figure = drawings.late_and_early(picture, question, pair.answers[0])
chapter.draw(figure, "two places for a question to enter the model")

# %% [markdown]
# **Late fusion** is what we had: the CNN reads the picture, the reader reads the question, both go
# into one memory, and the decoder's attention sorts it out. The CNN does not know what it will be
# asked. **Early fusion**: the question also enters the CNN. For each block, and for each of its
# channels $c$, it predicts a scale $\gamma_c$ and a shift $\beta_c$:
#
# $$y_{c,i,j} = \gamma_c\, x_{c,i,j} + \beta_c \qquad [\gamma - 1,\ \beta] = W q$$
#
# $q$ is the mean vector of the question. A channel that responds to cats can be turned up when a
# cat is asked about, and turned off otherwise. This is FiLM, feature-wise linear modulation. It is
# the same at all positions: the question says what to look for, and the CNN finds where.
#
# **The questions.** A program draws the scenes, so a program can answer questions about them. A
# question is a small program, too: the description of an object, and what to find out about it.

# %%
print(pair.question)
for language in ("en", "de", "zh"):
    answers = [write_answer(answer, language) for answer in pair.answers]
    print(f"{write_question(pair.question, language):60} {' | '.join(answers)}")
show(true_answer)

# %% [markdown]
# Each question is asked about **two pictures, with two different answers**: a balanced pair. A
# model that reads the question alone has no reason to prefer one answer over the other. The
# pictures are as similar as we can make them: the same objects at other places, or two objects that
# have exchanged their colours. So a list of what the picture shows is not enough either.

# %%
examples = {}
number = 0
while len(examples) < len(KINDS) + 1:
    drawn = draw_pair(number)
    examples.setdefault(drawn.question.kind + drawn.question.relation[:4], drawn)
    number += 1
rows = []
for drawn in sorted(
    examples.values(), key=lambda each: KINDS.index(each.question.kind)
):
    pictures = [draw(scene, 128) for scene in drawn.scenes]
    rows.append((write_question(drawn.question), pictures, drawn.answers))
chapter.draw(drawings.balanced_pairs(rows[:8]), "balanced pairs")

# %% [markdown]
# ## By hand
#
# **How far does one get without looking?** We note, for each question, which answer it had most
# often in training, and look it up. On data that people made, this table is a strong opponent.

# %%
training = SceneQuestions("train", chapter.choose(18_000, fast=60))
test = SceneQuestions("test", chapter.choose(1000, fast=12))
given = [answers[0] for answers in training.texts]
table = answer_table(training.questions, given)
guesses = [table.get(question, table[""]) for question in test.questions]
print(f"{len(training):,} questions, {len(table) - 1:,} of them different")
for question in list(table)[1:4]:
    print(f"{question:45} {table[question]}")
show(answer_table)

# %% [markdown]
# **When is an answer right?** "2", "two" and "Two." are the same answer, and people disagree. The
# VQA evaluation first brings answers to a common form; then an answer is right if at least three of
# ten people gave it, as seen by each nine of them.

# %%
for answer in ("Two.", "the t-shirt", "1,000", "dont know", "3.5 p.m."):
    print(f"{answer!r:15} {normalize_answer(answer)!r}")
people = ["red"] * 6 + ["dark red"] * 2 + ["maroon", "brown"]
for answer in ("red", "dark red", "maroon", "blue"):
    print(f"{answer:10} {vqa_accuracy([answer], [people]).score:.2f}")

# %%
show(vqa_accuracy)

# %% [markdown]
# Our scenes have one true answer, so here accuracy is the fraction of right ones. **Pair accuracy**
# is stricter: both pictures of a pair must be right. With yes-or-no questions a coin gets 50 % of
# the answers and 25 % of the pairs; the table, which answers both pictures alike, gets none.


# %%
def accuracies(answers, data):
    """Percent right: of all, of the pairs, and of each kind of question."""
    scores = vqa_accuracy(answers, data.texts).scores
    percents = {
        "all": 100 * sum(scores) / len(scores),
        "pairs": 100 * pair_accuracy(scores, data.pairs).score,
    }
    kinds = defaultdict(list)
    for kind, score in zip(data.kinds, scores):
        kinds[kind].append(score)
    for kind in KINDS:
        percents[kind] = 100 * sum(kinds[kind]) / max(len(kinds[kind]), 1)
    return percents


def print_accuracies(rows):
    names = list(next(iter(rows.values())))
    print(f"{'':22}" + "".join(f"{name:>9}" for name in names))
    for way, percents in rows.items():
        cells = "".join(f"{percents[name]:9.1f}" for name in names)
        print(f"{way:22}{cells}")


rows = {"question alone": accuracies(guesses, test)}
print_accuracies(rows)

# %% [markdown]
# **FiLM by hand.** Two pictures, three channels, and a modulation for each picture.

# %%
B, C, H, W = 2, 3, 4, 5
x = torch.randn(B, C, H, W)
scale = torch.randn(B, C)
shift = torch.randn(B, C)
by_hand = torch.empty_like(x)
for b in range(B):
    for c in range(C):
        for i in range(H):
            for j in range(W):
                by_hand[b, c, i, j] = scale[b, c] * x[b, c, i, j] + shift[b, c]

# %% [markdown]
# ## The piece

# %%
show(modulate)
show(FiLM)
assert torch.allclose(modulate(x, scale, shift), by_hand, atol=1e-6)
print("by hand and library agree")

# %% [markdown]
# A block of the ResNet applies it after its last batch norm, before the shortcut is added. Batch
# norm ends with a scale and a shift for each channel as well; the difference is that these are the
# same for every picture, while FiLM's come from the question.

# %%
show(BasicBlock.forward)
block = BasicBlock(C, C)
x = torch.randn(B, C, H, W)
norm = torch.nn.BatchNorm2d(C, affine=False)
y = F.relu(block.bn1(block.conv1(x)))
y = modulate(norm(block.conv2(y)), scale, shift)
assert torch.allclose(block(x, (scale, shift)), F.relu(x + y), atol=1e-5)
print("batch norm without its own scale and shift, then FiLM: the same")

# %% [markdown]
# $W$ starts at zero: at first $\gamma = 1$ and $\beta = 0$, and the CNN is exactly the one without
# FiLM. So a trained CNN can be steered later, and nothing it knows is lost at the first step.

# %%
cnn = ResNet((1, 2), num_classes=None, width=8).eval()
generator = FiLM(16, cnn.block_channels)
images = torch.randn(2, 3, 64, 64)
with torch.no_grad():
    plain = cnn.features(images)
    steered = cnn.features(images, generator(torch.randn(2, 16)))
assert torch.equal(plain, steered)
print("at the start, steered and plain are equal bit for bit")
show(ImageEncoder.forward)

# %% [markdown]
# In the model, `encode` reads the question first, hands its mean to the picture's encoder, and puts
# both into one memory, as before.

# %%
show(EncoderDecoder.encode)

# %% [markdown]
# ## Train it
#
# One answer of one word is little to learn from: a caption has ten words, an answer one. From
# random weights the model would need many more questions than four minutes have. So it starts from
# the captioner that `python -m mmscratch quickstart` leaves behind: its CNN can see, and its
# decoder can say what it sees. New are the reader of the question, FiLM, and four more blocks of the
# CNN, which take the place of the captioner's Transformer block. The first layers, up to the first
# block, stay as they are; the authors of FiLM froze far more of theirs. Question and answer share a
# vocabulary with the captioner.
#
# Two models, late fusion and FiLM, learn from the same questions in the same order.

# %%
CAPTIONER = Path("runs/quickstart")
start_from = "" if chapter.fast else str(CAPTIONER)
if start_from and not (CAPTIONER / "best.pt").exists():
    main(["quickstart"])  # two or three minutes, once
validation = SceneQuestions("validation", chapter.choose(200, fast=8))
sentences = training.columns["source"] + [words for (words,) in training.references]
words = Vocabulary.build(sentences)
vocabularies = {"target": words, "source": words}

IMAGE = {"name": "resnet", "depth": (1, 5)}
LSTM = {"name": "lstm", "hidden_size": 256}
READER = {"name": "lstm", "hidden_size": 128, "vocab_size": len(words)}
SETTINGS = {"learning_rate": 1e-3, "bucket_batches": None}
if start_from:
    SETTINGS |= {"start_from": start_from, "freeze": Answering.freezes}


# %%
def fit(image, name):
    """Train a model whose picture encoder has these settings."""
    encoders = {"image": image, "source": READER}
    options = {"joint_vocabulary": True, "modality_dropout": 0.05}
    config = ModelConfig(len(words), encoders, LSTM, **options)
    data = (Examples(training, vocabularies), Examples(validation, vocabularies))
    run = chapter.folder / name
    shutil.rmtree(run, ignore_errors=True)  # else it would resume an old run
    Trainer(config, TrainConfig(**SETTINGS), data, run).fit()
    model, _, _ = load_run(run)
    return model


models = {
    "late fusion": fit(IMAGE, "late"),
    "FiLM": fit(IMAGE | {"film": "source"}, "film"),
}

# %% [markdown]
# ## Look
#
# Next to the two models, three controls: the table that sees the question only; the model without
# the question; and the model with **another picture about which the same question is asked**. If
# that costs nothing, the model does not look.


# %%
def answer(model, data):
    return [detokenize(tokens) for tokens in generate(model, vocabularies, data)]


def exchanged(data):
    """The same questions, each with the picture of another one that is equal to it."""
    other = data.without("image")
    order = shuffle_within(data.questions)
    pictures = data.columns["image"]
    other.columns["image"] = [pictures[i] for i in order]
    return other


answers = {way: answer(model, test) for way, model in models.items()}
film = models["FiLM"]
rows["FiLM, no question"] = accuracies(answer(film, test.without("source")), test)
rows["FiLM, another picture"] = accuracies(answer(film, exchanged(test)), test)
for way in models:
    rows[way] = accuracies(answers[way], test)
print_accuracies(rows)

# %%
figure = Figure(figsize=(9, 3.4), dpi=100, layout="constrained")
axis = figure.subplots()
names = ["all", "pairs", *KINDS]
colours = ("#bdbdbd", "#9ecae1", "#2171b5")
for n, way in enumerate(("question alone", "late fusion", "FiLM")):
    heights = [rows[way][name] for name in names]
    positions = [i + 0.27 * (n - 1) for i in range(len(names))]
    bars = axis.bar(positions, heights, 0.25, color=colours[n], label=way)
    axis.bar_label(bars, fmt="%.0f", fontsize=7)
axis.set_xticks(range(len(names)), names)
axis.set(ylim=(0, 108), ylabel="% right")
axis.legend(ncols=3, fontsize=8, loc="upper left")
chapter.draw(figure, "what the question gains when it steers the CNN")

# %% [markdown]
# **Where does it look?** The attention with which the decoder writes the first word of its answer,
# over the picture's 8 × 8 positions. Four pairs: below each other, the two pictures of the same
# question; green answers are right.


# %%
def look(model, picture, question):
    """The attention to the picture (h, w) before the first word is written."""
    example = {"image": picture, "source": tokenize(question)}
    any_word = ["yes"]  # it is written afterwards
    weights = attention_weights(model, vocabularies, example, any_word)[-1, 0]  # (N,)
    positions = len(model.encoders["image"].position)
    side = int(positions**0.5)
    return weights[:positions].view(side, side)


chosen = {}  # kind -> the first pair with three objects
for i in range(0, len(test), 2):
    if len(test.scenes[i].objects) == 3:
        chosen.setdefault(test.kinds[i], i)
cells = []
for which in (0, 1):
    for kind in ("colour", "noun", "where", "two-step"):
        i = chosen.get(kind, 0) + which
        picture = test[i]["image"]
        is_right = answers["FiLM"][i] == test.texts[i][0]
        weights = look(film, picture, test.questions[i])
        cells.append(
            (picture, test.questions[i], answers["FiLM"][i], is_right, weights)
        )
chapter.draw(drawings.where_it_looks(cells), "where it looks for each kind of question")

# %% [markdown]
# **A question with a false premise.** "What colour is the cat?", and there is no cat. Nobody has
# ever asked the model such a question.


# %%
def ask(scene, question):
    """The model's most probable answer about a scene, and its probability."""
    example = {"image": draw(scene), "source": tokenize(question)}
    [(tokens, probability)] = rank_answers(film, vocabularies, example, count=1)
    return detokenize(tokens), probability


sure = defaultdict(list)
outcomes = Counter()
for scene, question, kind in zip(test.scenes, test.questions, test.kinds):
    if kind != "colour":
        continue
    present = {obj.noun for obj in scene.objects}
    absent = next(
        noun for noun in ("cat", "star", "moon", "cup") if noun not in present
    )
    sure["true premise"].append(ask(scene, question)[1])
    found, probability = ask(scene, f"what colour is the {absent}?")
    sure["false premise"].append(probability)
    is_present = found in {obj.colour for obj in scene.objects}
    outcomes["a colour in the picture" if is_present else "another answer"] += 1
for premise, values in sure.items():
    print(
        f"{premise:14} mean probability of the answer {sum(values) / len(values):.2f}"
    )
print(f"false premise: {dict(outcomes)}")

# %% [markdown]
# **Counting** is known to be hard. Here are the answers to "how many" by the true number.

# %%
counts = Counter()
for text, predicted, kind in zip(test.texts, answers["FiLM"], test.kinds):
    if kind == "count":
        counts[text[0], predicted] += 1
print("true   answers")
for true in "0123":
    cells = [f"{other}: {counts[true, other]:3}" for other in "0123"]
    print(f"{true:6} {'   '.join(cells)}")

# %% [markdown]
# **Open or closed.** So far the decoder wrote its answer word by word. One can also let it choose
# among the answers that training had: add up the log-probabilities of the words of each, and take
# the best. This is how most models of question answering work. It cannot write nonsense, and it can
# never give an answer that training did not have.

# %%
show(candidate_log_probs)
candidates = [tokenize(answer) for answer in sorted(set(given))]
best = candidate_log_probs(film, vocabularies, test, candidates).argmax(1).tolist()
closed = [detokenize(candidates[i]) for i in best]
rows["FiLM, closed"] = accuracies(closed, test)
print_accuracies({way: rows[way] for way in ("FiLM", "FiLM, closed")})

# %% [markdown]
# **Longer, and on real data.** What follows was measured by `python -m
# chapters.measured.answering`. First our scenes, with 125,000 pairs instead of 18,000, from the
# captioner and from random weights. They come as a **curriculum**: the first quarter has no
# comparisons, and the rest has mostly those kinds that are learned last. Yes or no is a single bit,
# and "is it the same colour?" teaches nothing to a model that cannot find the two things. The
# second test has pairs of noun and colour that training never showed.

# %%
show(SceneQuestions.__init__)

# %%
results = measured.results()


def with_interval(cell):
    value, low, high = cell
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


LONG = ("scenes, from a captioner", "scenes, from random weights")
for name in LONG:
    for split in ("test", "compositional_test"):
        row = results[name][split]["open"]
        print(f"{name}, {split}: {with_interval(row['all'])}", end="; ")
        print(f"pairs {with_interval(row['pairs'])}")
        print("   ", ", ".join(f"{kind} {row[kind][0]:.0f}" for kind in KINDS))

# %% [markdown]
# FiLM against late fusion, with 22,000 pairs and three seeds each.

# %%
for way in ("late fusion", "FiLM"):
    for seed in range(3):
        row = results[f"{way}, seed {seed}"]["test"]["open"]
        accuracy = with_interval(row["all"])
        print(f"{way:12} seed {seed}: {accuracy}; pairs {with_interval(row['pairs'])}")

# %% [markdown]
# **easy-VQA** (Zhou 2019) has 48,248 questions about pictures of a single shape. They are not
# balanced: the table alone gets two thirds right. One model starts from the captioner, the other
# from the one that has learned to answer questions about scenes.

# %%
WAYS = {"question alone": "question alone", "open": "written", "closed": "chosen"}
for name in ("easy-VQA", "easy-VQA, from scenes"):
    row = results[name]["test"]
    print(name)
    for way in WAYS:
        kinds = ", ".join(
            f"{kind} {row[way][kind][0]:.1f}" for kind in ("yes/no", "colour", "shape")
        )
        print(f"    {WAYS[way]:15} {with_interval(row[way]['all'])}; {kinds}")

# %% [markdown]
# **VQA-RAD** (Lau et al. 2018) is real: 315 radiological pictures, and 3,515 questions that
# clinicians asked about them. Its official test set has 451 questions, and **all 203 of its
# pictures are also in the training set**, with other questions, and with some of the same. So we
# also split the questions by picture: 62 pictures that the model has never seen, with 674
# questions.

# %%
for name in ("VQA-RAD", "VQA-RAD by picture"):
    row = results[name]["test"]
    print(name)
    for way in WAYS:
        kinds = ", ".join(
            f"{kind} {with_interval(row[way][kind])}" for kind in ("closed", "open")
        )
        print(f"    {WAYS[way]:15} {kinds}")

# %% [markdown]
# ## What to notice
#
# **Without looking, one gets what chance gives.** On our questions the table is right in 25.1 % of the
# cases: half of those with yes or no, and not a single pair. On easy-VQA the same table gets 66.8 %,
# and on the closed questions of VQA-RAD 52.2 %. There, a model may be right most of the time without
# ever having looked.
#
# **FiLM learns sooner.** With the same questions in the same order and three seeds each, it gets
# 51.9, 54.7 and 59.6 % of the answers right, and late fusion 34.3, 48.6 and 47.9 %; of the pairs
# 26.0, 28.2 and 35.8 % against 6.5, 20.1 and 18.6 %. For the pairs no interval reaches another's; for
# the answers, that of the worst FiLM (49.8 to 54.0) just meets that of the best late fusion (46.5 to
# 50.8). The lead is largest for "two-step" (62.2, 64.0 and 68.7 % against 12.6, 46.4 and 43.9 %) and
# for "what is the red thing?" (65.2, 73.0 and 66.4 % against 37.5, 44.9 and 40.2 %). "Exists" and
# "compare" are near 50 % for both, which is chance: 22,000 pairs are too few for these. One run
# says little: in the one above the lead is small, 49.6 against 47.5 %. And a comparison on one budget
# says who learns sooner, not who ends higher.
#
# **Where it looks** is mostly at an object, but often at another than the question is about: this model
# has just begun to learn, and seven of these eight answers are wrong. FiLM has done part of the work
# before the attention begins, and the convolutions have spread what they found over the positions
# around it. A picture of attention is no explanation by itself.
#
# **With 125,000 pairs in a curriculum** FiLM gets 96.5 % (95.7 to 97.3), and 93.7 % of the pairs, after
# 9 minutes on two cores. "Two-step" is at 97.1 %; always naming the outermost thing at that side, without
# finding the star, would be right in 63 % of the cases. "Compare" remains the hardest, with 85.5 % (81.2
# to 89.4). The order matters: a question with two answers teaches nothing until several skills come
# together, so first each skill is learned from questions that need nothing else.
#
# **From random weights**, 60,000 pairs give 33.3 % (31.2 to 35.4), and 8.8 % of the pairs: one word for
# each picture is too little to learn to see from.
#
# **New pairs of noun and colour cost little**: 94.8 % (93.7 to 95.8), and the intervals just meet. The
# model has never seen a red cup, but it has seen red things and cups, and most questions ask for one of
# the two. Most of what is lost is lost in comparisons (80.8 %).
#
# **The false premise goes unnoticed.** Asked for the colour of something that is not there, the
# model names a colour that is in the picture, 290 times out of 290, and is just as sure as with a
# true premise: a mean probability of 0.77 both times. In training, every question about a colour
# had a colour as its answer. The probability compares answers; it says nothing about the question.
#
# **Counting** takes more questions. At this chapter's budget, nearly all answers are one or three: zero
# is found 4 times out of 63, and two not once out of 65. The model has noticed whether a picture shows
# one object or several, and not yet how many of them were asked for. With 125,000 pairs, 97.6 % are right.
#
# **easy-VQA** from the captioner stops at 93.3 % (92.8 to 93.8), and looking at the mistakes shows a
# plateau: all colours and 99.2 % of the shapes are right, but "is there a circle?" is almost always
# answered with no, and "is there not a circle?" with yes, the more frequent answers. The model can name
# the shape and reads the question, but does not connect the two. The model that has learned from scenes
# what "is there a …?" means gets 99.9 % (99.9 to 100.0) after four epochs, 6 minutes on top of the 9
# for the scenes. The data's maker reports 87.6 % for a CNN with an LSTM, and 99.5 % for a larger model
# with twice the data.
#
# **What does a number on VQA-RAD mean?** By the official split, 68.4 % (62.9 to 73.2) of the closed
# questions are right, well above the 52.2 % of the table. It looks as if the model saw something.
# It did, but not what we hoped: it knew these very pictures from training. Split by picture, it
# gets 51.3 % (46.6 to 56.1), and the table 46.2 % (41.1 to 50.6): from 221 pictures of 64 pixels it
# has learned to recognise them, not to read them. A paper that gives only the first number does not
# say which of the two it measured. Even the second split is by picture, since the data do not name
# the patients: two of the pictures look like slices of one scan, and we keep them together.
#
# ## Your turn
#
# Write these yourself, from their docstrings. `python -m chapters.assignments start 12 --to work`
# creates the stubs, and `check 12 --from work` tests your code, with a hint where something is
# wrong.
#
# 1. `answer_table`: how far does one get without looking? 3 points, 15 minutes.
# 2. `normalize_answer`: "Two." and "2" are the same answer. 6 points, 30 minutes.
# 3. `vqa_accuracy`: with `_leave_one_out`; three of ten people are enough. 6 points, 30 minutes.
# 4. `pair_accuracy`: both, or neither. 3 points, 15 minutes.
# 5. `shuffle_within`: another picture for the same question, and never the same one. 5 points, 25
#    minutes.
# 6. `true_answer`: the program that knows; and when is the premise false? 8 points, 40 minutes.
# 7. `modulate`: along which axes? 2 points, 10 minutes.
# 8. `FiLM.forward`: from a question to a scale and a shift for each block. 5 points, 25 minutes.
# 9. `candidate_log_probs`: how probable is each answer of a closed set? 10 points, 50 minutes.
#
# And three questions without an answer here:
#
# 1. **"I don't know."** How would you teach the model to say that there is no cat? Which pairs would
#    you add, and what would they cost on the questions that have an answer?
# 2. **Which channels?** Compare the $\gamma$ of two questions that differ in one word. Do the same
#    channels change whatever else the question says? Perez et al. 2018 found clusters by kind.
# 3. A radiologist is told: "accuracy 80 %". What does she need to know about the test set before
#    the number means anything to her?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Antol et al. 2015, "VQA: visual question answering" (the accuracy, and the table as a control) ·
# Zhang, Goyal, Summers-Stay, Batra and Parikh 2016, "Yin and yang: balancing and answering binary
# visual questions" · Goyal, Khot, Summers-Stay, Batra and Parikh 2017, "Making the V in VQA matter"
# (balanced pairs) · Johnson et al. 2017, "CLEVR" (questions as programs) · Perez, Strub, de Vries,
# Dumoulin and Courville 2018, "FiLM: visual reasoning with a general conditioning layer" · Agrawal,
# Batra and Parikh 2016, "Analyzing the behavior of visual question answering models" · Zhou 2019,
# "easy-VQA" · Lau, Gayen, Ben Abacha and Demner-Fushman 2018, "A dataset of clinically generated
# visual questions and answers about radiology images".
