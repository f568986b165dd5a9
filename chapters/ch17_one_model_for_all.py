# %% [markdown]
# # 17 · One model for all of it
#
# **Adds** a mixture of tasks, instructions, and four ways to fine-tune a model by changing little of it: LoRA, adapters, a prompt, biases. **Takes** 2.6 min on two cores.
#
# So far each task had a model of its own. The large models that people talk about are one network,
# pre-trained on many kinds of data, told in words what to do, and fine-tuned to a new task with few
# labels. All of its parts are here. In this chapter we put them together in miniature, where a program
# knows every answer, and test what is claimed of the large ones.

# %%
import random

import torch

from chapters.chapter import Chapter, show
from chapters.drawings import ch17 as drawings
from chapters.measured import mixture as measured

# %%
from mmscratch.batches import Examples
from mmscratch.data.answers import QuestionData
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.dataset import LazyColumn, Subset
from mmscratch.data.judge import judge
from mmscratch.data.language import COLOURS, NOUNS, caption
from mmscratch.data.mixture import INSTRUCTIONS, Mixture
from mmscratch.data.questions import (
    Description,
    Question,
    true_answer,
    write_question,
)
from mmscratch.data.scenes import SIZES, Scene, draw
from mmscratch.decoding import generate

# %%
from mmscratch.finetuning import (
    Adapter,
    add_prompt,
    swap_change,
    train_biases,
)
from mmscratch.mixture import answer_loss, deal_tasks, mixing_rates, mixture_loss
from mmscratch.model import ModelConfig
from mmscratch.text import PAD, Vocabulary, detokenize, tokenize
from mmscratch.training import TrainConfig, Trainer

torch.manual_seed(0)
chapter = Chapter(17)

# %% [markdown]
# ## The idea

# %%
chapter.draw(drawings.one_model(), "one model for many tasks")

# %% [markdown]
# There is no new class of model. The instruction is one more sentence in the memory, the "source" of a
# translation or the question of chapter 12. What an example lacks, a picture or a sound, is not in the
# memory. So a batch may hold a picture to be described, a sentence to be translated and a question to
# be answered, and one decoder writes all three.
#
# ## By hand
#
# **How often is each task drawn?** If there are 60,000 captions and 600 questions, and every example is
# equally frequent, the model hardly sees a question. A **temperature** makes the shares more equal:
# each is raised to the power of 1 / T.

# %%
sizes = {"captions": 60_000, "translations": 6000, "questions": 600}
shares = {}
for temperature in (1, 2, 5):
    powers = [size ** (1 / temperature) for size in sizes.values()]
    by_hand = [power / sum(powers) for power in powers]
    shares[temperature] = mixing_rates(list(sizes.values()), temperature)
    torch.testing.assert_close(shares[temperature], by_hand)
    print(f"T = {temperature}:", ", ".join(f"{100 * share:.0f} %" for share in by_hand))
chapter.draw(drawings.shares(sizes, shares), "shares of the tasks by temperature")

# %% [markdown]
# The order need not be random. The next example belongs to the task that lacks most of its share; so
# every batch has its share of each task, and a stopped run knows where it was from a single number.

# %%
order = deal_tasks([0.5, 0.3, 0.2], 20)
print("".join("ctq"[task] for task in order))

# %% [markdown]
# **What does a mixed batch learn?** The gradient of the mean over all words is the mean of the tasks'
# gradients, weighted by their *words*. A caption has a dozen words, an answer has one: so captions have
# most of the say, even if there are as many questions. A weight for each task changes that.

# %%
losses = torch.rand(4, 12, requires_grad=True)  # of each word
lengths = torch.tensor([12, 12, 2, 2])  # two captions, two answers with their <eos>
mask = torch.arange(12) < lengths.unsqueeze(1)
tasks = torch.tensor([0, 0, 1, 1])
for name, weights in (("words", [1.0, 1.0]), ("examples", [1 / 12, 1 / 2])):
    total, count = mixture_loss(losses, mask, tasks, torch.tensor(weights))
    (gradient,) = torch.autograd.grad(total / count, losses)
    share = 100 * gradient[2:].sum() / gradient.sum()
    print(f"if all {name} count the same, answers have {share:.0f} % of the gradient")

# %% [markdown]
# **Where does the instruction go?** Here it goes into an encoder. A GPT has none: it reads the
# instruction as the beginning of a text, and goes on writing. It must not learn to write instructions,
# so their words do not count in its loss.

# %%
tokens = torch.tensor([[7, 8, 9, 4, 5, 2], [6, 4, 2, PAD, PAD, PAD]])
instruction_lengths = torch.tensor([3, 1])
logits = torch.randn(2, 6, 11, requires_grad=True)
loss = answer_loss(logits, tokens, instruction_lengths)
log_probs = logits.log_softmax(-1)
by_hand = []
for row, length in enumerate(instruction_lengths.tolist()):
    for t in range(length, 6):
        if tokens[row, t] != PAD:
            by_hand.append(-log_probs[row, t - 1, tokens[row, t]])
torch.testing.assert_close(loss, torch.stack(by_hand).mean())
(gradient,) = torch.autograd.grad(loss, logits)
print("learns to write the next word at:", (gradient.abs().sum(-1) > 0).int().tolist())

# %% [markdown]
# ## The piece

# %%
show(mixing_rates)

# %%
show(deal_tasks)

# %% [markdown]
# A `Mixture` is a data set like any other. Each of its examples has an instruction, one of several
# wordings; some wordings are kept for the test.

# %%
for part in ("captions-de", "translation-en-de", "speech", "prices"):
    seen = "; ".join(INSTRUCTIONS[part].seen[:5])
    unseen = "; ".join(INSTRUCTIONS[part].unseen)
    print(f"{part}: {seen}; … Only in tests: {unseen}")

# %% [markdown]
# **Fine-tuning by changing little.** Besides LoRA (chapter 7) there are three more ways. All freeze the
# model, change nothing at the start or can be taken out without a trace, and are saved in a few
# kilobytes. An **adapter** is a narrow network behind a layer, with a way around it:

# %%
show(Adapter)

# %% [markdown]
# A **prompt** is a few learned vectors in the memory, which nobody can read: the decoder attends to them
# as to a picture or a sentence.

# %%
show(add_prompt)

# %% [markdown]
# And **BitFit** trains nothing but the biases that are there already:

# %%
show(train_biases)

# %% [markdown]
# ## Train it
#
# To save time, scenes with one of six things. Three tasks with a picture, one without:

# %%
EACH = chapter.choose(9000, fast=64)
TEST = chapter.choose(300, fast=12)
CHOSEN = list(NOUNS)[:6]


def small_scene(number):
    """A scene with one of the chosen things."""
    chance = random.Random(f"chapter 17, {number}")
    size = chance.choice(list(SIZES))
    colour = chance.choice(list(COLOURS))
    return Scene.compose(chance, [(size, colour, chance.choice(CHOSEN))])


def scenes_of(part, count, first):
    return [small_scene(f"{part} {first + i}") for i in range(count)]


# %%
def captions_of(scenes, language):
    data = SceneCaptions("train", 0)
    data.set_scenes(scenes, language, one_caption_each=True)
    return data


def translations_of(scenes):
    """German captions, with the English ones as their source, and without pictures."""
    data = captions_of(scenes, "de").without("image")
    sources = [caption(scene, i % 5) for i, scene in enumerate(scenes)]
    data.columns["source"] = [tokenize(text) for text in sources]
    return data


def questions_of(scenes, kinds):
    """What colour is it, is there one, where is it?"""
    data = QuestionData()
    data.scenes = scenes
    for i, scene in enumerate(scenes):
        chance = random.Random(f"question {i}")
        kind = chance.choice(kinds)
        nouns = CHOSEN if kind == "exists" else [obj.noun for obj in scene.objects]
        question = Question(kind, Description(noun=chance.choice(nouns)))
        answer = true_answer(question, scene)
        data.add(f"scene {i}", write_question(question), [answer], kind)
    data.columns["image"] = LazyColumn(draw, scenes)
    return data


# %%
READ = {
    "captions-en": lambda scenes: captions_of(scenes, "en"),
    "captions-de": lambda scenes: captions_of(scenes, "de"),
    "translation-en-de": translations_of,
    "questions": lambda scenes: questions_of(scenes, ("colour", "exists")),
    "questions-where": lambda scenes: questions_of(scenes, ("where",)),
}
SIZES_OF_PARTS = {
    "captions-en": EACH,
    "captions-de": EACH,
    "translation-en-de": EACH // 3,
    "questions": EACH,
}


# %%
def mixture_of(names, counts, first, wordings="seen"):
    """A mixture of these parts, each with its share in every stretch."""
    names = list(names)
    rates = mixing_rates(counts)
    order = [names[i] for i in deal_tasks(rates, sum(counts))]
    parts = {}
    for name in names:
        parts[name] = READ[name](scenes_of(name, order.count(name), first))
    return Mixture(parts, order, wordings)


training = mixture_of(SIZES_OF_PARTS, SIZES_OF_PARTS.values(), 0)
validation = mixture_of(SIZES_OF_PARTS, [20] * 4, 10**6)
for i in range(6):
    example = training[i]
    source, target = training.columns["source"][i], training.references[i][0]
    print(f"{', '.join(example)}: {detokenize(source)} -> {detokenize(target)}")

# %%
sentences = [words for references in training.references for words in references]
sentences += training.columns["source"] + [["where"]]  # a word for later
words = Vocabulary.build(sentences)
WORDS = {"target": words, "source": words}
IMAGE = {"name": "resnet", "image_size": 64, "num_layers": 1, "film": "source"}
SOURCE = {"name": "lstm", "hidden_size": 64, "vocab_size": len(words)}
DECODER = {"name": "lstm", "hidden_size": 192}
SETTINGS = ModelConfig(
    len(words),
    {"image": IMAGE, "source": SOURCE},
    DECODER,
    embed_dim=128,
    joint_vocabulary=True,
)
ONCE = TrainConfig(
    batch_size=24,
    learning_rate=2e-3,
    bucket_batches=None,
    shuffle=False,
    evaluate_every=10_000,
)
examples = Examples(training, WORDS), Examples(validation, WORDS)
trainer = Trainer(SETTINGS, ONCE, examples, chapter.folder / "base")
trainer.fit()
base = trainer.model.eval()


# %%
def share_right(model, part, data):
    """The share of right outputs, in %; a caption may be any true sentence."""
    outputs = generate(model, WORDS, data)
    right = 0
    for output, index, references in zip(outputs, data.origin, data.references):
        if part.startswith("captions"):
            scene = data.parts[part].scenes[index]
            language = part.removeprefix("captions-")
            right += judge(detokenize(output), scene, language).true
        else:
            right += output in references
    return 100 * right / len(data)


def test_set(part, wordings="seen"):
    parts = {part: READ[part](scenes_of(part, TEST, 2 * 10**6))}
    return Mixture(parts, [part] * TEST, wordings)


for part in SIZES_OF_PARTS:
    print(f"{part:18} {share_right(base, part, test_set(part)):5.1f} % right")

# %% [markdown]
# ## Look
#
# **The same picture, three instructions**, and one that it has never seen:

# %%
scene = small_scene("a picture to look at")
picture = draw(scene)
thing = scene.objects[0].noun
SAID = (
    "describe the picture in english",
    "write a caption in german",
    f"what colour is the {thing}?",
    "a german caption",
)
outputs = []
for said in SAID:
    example = {"image": picture, "source": tokenize(said)}
    outputs.append(detokenize(generate(base, WORDS, [example])[0]))
chapter.draw(drawings.said_and_written(picture, SAID, outputs), "what it was told")

# %% [markdown]
# **Does it follow the instruction, or guess from what is there?** Four controls: wordings that it has
# never seen; the instruction of another task with the same inputs; none at all; and no picture.

# %%
print(f"{'':18}  as learned  new wordings  wrong one  no instruction  no picture")
for part in SIZES_OF_PARTS:
    row = []
    for wordings in ("seen", "unseen"):
        row.append(share_right(base, part, test_set(part, wordings)))
    parts = {}
    for name in ("captions-en", "captions-de"):
        parts[name] = READ[name](scenes_of(part, TEST, 2 * 10**6))
    wrong = float("nan")
    if part in parts:
        wrong = share_right(base, part, Mixture(parts, [part] * TEST, "wrong"))
    row.append(wrong)
    row.append(share_right(base, part, test_set(part, "none")))
    blind = float("nan")
    if test_set(part).count("image"):
        blind = share_right(base, part, test_set(part).without("image"))
    row.append(blind)
    numbers = "".join(f"{x:10.1f} %" if x == x else f"{'–':>12}" for x in row)
    print(f"{part:18}{numbers}")

# %% [markdown]
# **A new task with few labels.** Where is it? The model has been asked for colours, and has written in
# its captions where things are, but "where" is a word that it has never read. 100 such questions, and as
# many steps for each way:

# %%
LABELS = chapter.choose(100, fast=16)
EPOCHS = chapter.choose(40, fast=1)
NEW = "questions-where"
BASE = chapter.folder / "base"
WAYS = {
    "all weights": {"learning_rate": 1e-3},
    "LoRA": {"learning_rate": 1e-2, "lora": 8},
    "adapters": {"learning_rate": 1e-2, "adapters": 16},
    "prompt": {"learning_rate": 5e-2, "prompt": 16},
    "biases": {"learning_rate": 2e-2, "biases": True},
    "from scratch": {"learning_rate": 3e-3},
}
labelled = READ[NEW](scenes_of("few", LABELS, 0))
few = Mixture({NEW: labelled}, [NEW] * LABELS)
held_out = Mixture({NEW: Subset(labelled, range(8))}, [NEW] * 8)
print(f"before: {share_right(base, NEW, test_set(NEW)):.1f} % right")


# %%
def fine_tune(way):
    """The trainer of the new task, after training in this way."""
    options = dict(WAYS[way])
    if way != "from scratch":
        options["start_from"] = str(BASE)
    config = TrainConfig(
        epochs=EPOCHS, batch_size=20, keep_best=False, evaluate_every=10_000, **options
    )
    data = Examples(few, WORDS), Examples(held_out, WORDS)
    trainer = Trainer(SETTINGS, config, data, chapter.folder / way.replace(" ", "-"))
    trainer.fit()
    return trainer


tuned = {way: fine_tune(way) for way in WAYS}

# %%
print(f"{'':14} trained      on disk  right")
for way, trainer in tuned.items():
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    size = (trainer.folder / "best.pt").stat().st_size
    score = share_right(trainer.model.eval(), NEW, test_set(NEW))
    print(f"{way:14} {trained:9,} {size / 1000:7,.0f} kB  {score:.1f} %")

# %% [markdown]
# **Many changes, one base.** The base is in memory once. A change is put in by name, and taken out
# again, to the bit: what the model knew before, it still knows.

# %%
before = share_right(base, "questions", test_set("questions"))
state = {name: x.clone() for name, x in base.state_dict().items()}
for way in ("LoRA", "adapters", "prompt", "biases"):
    swap_change(base, tuned[way].folder)
    new = share_right(base, NEW, test_set(NEW))
    old = share_right(base, "questions", test_set("questions"))
    print(f"with {way:9} {new:5.1f} % of the new ones, {old:5.1f} % of the others")
swap_change(base, None)
same = all(torch.equal(x, state[name]) for name, x in base.state_dict().items())
print(f"taken out: {before:.1f} % of the others, and all weights equal: {same}")
all_weights = tuned["all weights"].model
forgotten = share_right(all_weights, "questions", test_set("questions"))
print(f"and after training all weights: {forgotten:.1f} % of the others")

# %% [markdown]
# **The large one**, in miniature: 214,000 examples of twelve parts, in three languages, written and
# spoken, with the eyes of `quickstart`; 3.4 million weights, 32 minutes on two cores that did other work as
# well. Beside it, models of the same kind that learned one part alone, from as many examples of it.
# `python -m chapters.measured.mixture` trains them:

# %%
results = measured.results()
mixture, reworded = results["mixture"], results["mixture, then many wordings"]


def interval(numbers):
    value, low, high = numbers
    return f"{value:5.1f} ({low:.1f} to {high:.1f})"


print(f"{'right, in %':20} alone                   in the mixture")
for part, right in mixture["right"].items():
    alone = results.get(f"alone, {part}")
    theirs = interval(alone["right"][part]) if alone else ""
    print(f"{part:20} {theirs:23} {interval(right)}")

# %% [markdown]
# New wordings, after three or four wordings of each instruction and after 40,000 more examples with
# seven to sixteen; no instruction; and, for captions and translations, that of another language:

# %%
print(f"{'':20}    few  new ones |  many  new ones  none  wrong one")
for part, right in mixture["right"].items():
    row = [right, mixture["new wordings"][part], reworded["right"][part]]
    row += [reworded["new wordings"][part], reworded["no instruction"][part]]
    row += [reworded["instruction of another part"].get(part)]
    shown = [f"{numbers[0]:8.1f}" if numbers else f"{'–':>8}" for numbers in row]
    print(f"{part:20}{''.join(shown)}")

# %% [markdown]
# And a task that was never learned, questions in German, from 200 labels in 280 steps; three seeds:

# %%
print(f"{'':38} trained     on disk  step     right, in %")
for way in measured.WAYS:
    rows = []
    for seed in measured.SEEDS:
        row = results.get(f"questions-de; {way}; 200 labels; seed {seed}")
        rows += [row] if row else []
    if rows:
        first = rows[0]
        right = ", ".join(f"{row['right'][0]:.1f}" for row in rows)
        print(
            f"{way:38} {first['trained']:9,} {first['bytes'] / 1000:6,.0f} kB"
            f" {first['step, ms']:4} ms  {right}"
        )

# %% [markdown]
# ## What to notice
# **One model costs nothing here, and gives much.** From as many examples of its own, each part is at least
# as good in the mixture as alone: captions 98.6 against 97.9 % true, questions 61.9 against 53.6 % right,
# words of transcripts 92.1 against 60.1 %, and translations 90.5 against 39.2 % exactly right. They
# borrow: the words and the eyes of the captions serve the translations. With more examples of its own, a
# model alone gets further (chapter 12: 96.5 % of the questions, from 250,000), so a mixture is for those
# who have few of their own and many of others. Each was trained once.
#
# **A few wordings are learned by heart.** After three or four wordings of an instruction, the mixture
# describes 98.6 % of the pictures truly in the wordings that it knows, and 21.8 % in new ones. After 40,000
# more examples in many wordings it is 98.3 and 49.8 %, and for translations into German 92.6 and 91.3 %.
# One of the two new wordings of captions works, "write in english what the picture shows" (98.7 % of 150),
# and the other does not, "an english caption": the model answers as if it were a question, "flower".
# All its other captions were asked for with a verb or a preposition. A single score for "instructions it has
# never seen" would have hidden that.
#
# **A task that starves.** An answer has one word and a caption a dozen, so questions have little of the
# gradient. If every example counts the same instead (`--count-by example`; 60,000 examples, one seed), 53.6
# instead of 49.1 % of the questions are right. But who gives? Captions in Chinese, the longest, fall from 40.8
# to 8.9 %, words of transcripts from 50.8 to 26.3 %, translations by 10 to 25 points. The share of
# the gradient is a budget. Here, words are the better unit.
#
# **What an instruction is worth.** Told to use another language, it does: no caption is right in the language
# it should not have used. But 79.0 % of the translations from Chinese come out in English even if it is
# told to write German: from Chinese it has only ever written English. Questions need no instruction.
# Without the picture nothing is left of them (1.1 %), and prices hardly change.
#
# **It does not compose.** It reads German and it answers questions, but of questions in German it answers none
# in German, and 1.8 % if English answers count. Of spoken ones it is 0.3 and 7.0 %, less than "yes" to
# everything would give (18 %). From German to Chinese, both of which it translates from and into English, it
# gets 9.0 %, and 0.1 % the other way. What was never seen together was not learned together.
#
# **Few labels.** From 200 questions in German, a LoRA on the mixture reaches 38.7 % on average, and the
# same architecture from scratch 25.5 %: one and a half times, where we had hoped for three. Adapters,
# a prompt and biases come to 34 to 37 %, with less than a twentieth of the disk space. All weights of the
# mixture (33.1 %) are no better than these, and those of the model that knows English questions alone get
# to 28.0 %: with 200 labels, what may change matters less than what was known before.
#
# In the small model above, where the eyes matter most, all weights learn "where" completely (100 %), a LoRA
# 76.0 % of it, and the smaller changes 28 to 49 %, less than from scratch (64.3 %). And each of them,
# while it is in, answers *every* question with a place: 0.0 % of the others are right, where it was 92.7 %.
# **It forgets**, unless the change is taken out: then all is back, to the bit.
#
# **What carries over to models a thousand times as large**, and what does not:
#
# - One memory, one decoder, an instruction in words: that is what they are. So are mixing by temperature,
#   small changes that are swapped, and every control above: leave the instruction out, exchange it, blank
#   the picture, count what the question alone gives away.
# - Composition does come with size and variety, not with cleverness. FLAN's instructions helped with tasks never
#   seen from 68 billion weights on, and did harm below 8; ours had twelve tasks and one grammar.
# - A prompt of learned vectors is as good as training all weights at 10 billion (Lester et al.), and
#   here the weakest. LoRA and adapters are less sensitive to size.
# - Transfer is flattered here: all parts talk about the same things in the same few sentences. And "right" is
#   exact here, because a program knows the truth. Out there, somebody has to look.
# - What to read next: T5 for mixing, Flamingo and LLaVA for pictures, Whisper for sound, and for what
#   small changes forget, Biderman et al. 2024, "LoRA learns less and forgets less".
#
# ## Your turn
#
# Write these yourself, from their docstrings. `python -m chapters.assignments start 17 --to work`
# creates the stubs, and `check 17 --from work` tests your code, with a hint where something is
# wrong.
#
# 1. `mixing_rates`: how often is each task drawn? 4 points, 20 minutes.
# 2. `deal_tasks`: the task that lacks most comes next. 5 points, 25 minutes.
# 3. `mixture_loss`: the gradient of a mixture. 5 points, 25 minutes.
# 4. `answer_loss`: do not learn to write the instruction. 5 points, 30 minutes.
# 5. `Adapter.__init__`: with its `forward` and that of `AdapterLinear`; a narrow network behind a layer. 5
#    points, 25 minutes.
# 6. `train_biases`: nothing but the biases. 3 points, 15 minutes.
# 7. `swap_change`: many changes of one base. 8 points, 45 minutes.
#
# And three questions without an answer here:
#
# 1. A task that is drawn rarely learns slowly, and one that is drawn often forgets nothing. Could the
#    shares follow the losses while the model learns? What would go wrong with the task that cannot be
#    learned at all?
# 2. The model never heard a question in German. Which single kind of example would help it most, and
#    how many of them? Guess first.
# 3. A prompt is a few vectors that no word has. What are their nearest words, and does it mean
#    anything if they make sense?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Raffel et al. 2020, "Exploring the limits of transfer learning with a unified text-to-text
# transformer" (T5: mixing by temperature) · Wei et al. 2022, "Finetuned language models are zero-shot
# learners" (FLAN) · Liu et al. 2023, "Visual instruction tuning" (LLaVA) · Alayrac et al. 2022,
# "Flamingo" · Houlsby et al. 2019, "Parameter-efficient transfer learning for NLP" (adapters) · Lester,
# Al-Rfou and Constant 2021, "The power of scale for parameter-efficient prompt tuning" · Ben Zaken,
# Ravfogel and Goldberg 2022, "BitFit" · Hu et al. 2021, "LoRA" · Kendall, Gal and Cipolla 2018,
# "Multi-task learning using uncertainty to weigh losses" · Conneau et al. 2020, "Unsupervised
# cross-lingual representation learning at scale" (when languages help each other) · Lake and Baroni
# 2018, "Generalization without systematicity" (composition) · McCloskey and Cohen 1989 (catastrophic
# forgetting).
