# %% [markdown]
# # 16 · Small labelled sets
#
# **Adds** a row of a table as a memory, splits by group, AUC, calibration, losses for rare classes, and the controls that small studies need. **Takes** 1.8 min on two cores.
#
# A doctor has a photograph of a mole, an age and a site on the body; a bank has pictures of a house
# and a form. There are few labels, a table next to the picture, and mistakes are costly. The model is
# the one that we have, with one more encoder. New is mostly the care: such studies fool themselves
# more often than their readers, in four or five ways that are always the same. We start with things
# for sale whose price follows a known rule, so we know the right answer.

# %%
import math
from dataclasses import replace

import torch

from chapters.chapter import Chapter, show
from chapters.drawings import ch16 as drawings
from chapters.measured import tables as measured

# %%
from mmscratch.batches import Examples
from mmscratch.classification import (
    choose_threshold,
    expected_calibration_error,
    r_squared,
    exposure,
    fit_temperature,
    number_of_brackets,
    reliability_bins,
    roc_auc,
)
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.dataset import Subset
from mmscratch.data.listings import Listing, Listings, expected_log_price
from mmscratch.data.scenes import NOUNS, first_of_split
from mmscratch.decoding import candidate_log_probs, memory_attention
from mmscratch.model import ModelConfig
from mmscratch.plots import reliability_diagram
from mmscratch.tables import Schema, split_groups
from mmscratch.tabular import TableEncoder
from mmscratch.text import Vocabulary
from mmscratch.training import TrainConfig, Trainer

torch.manual_seed(0)
chapter = Chapter(16)

# %% [markdown]
# ## The idea

# %%
chapter.draw(drawings.a_row_as_memory(), "a row as a memory")

# %% [markdown]
# Each column of the table becomes one vector, next to the vectors of the picture. The decoder attends
# to all of them and writes **one word**: a class, or the bracket that a number lies in. A
# missing cell is not in the memory. So one model can do with a picture, with a form, or with both.
#
# ## By hand
#
# **A row becomes numbers.** A number is standardised with the mean and the scale of the training rows,
# a category becomes its number, and a missing cell is NaN. It must not be 0: that would say "exactly
# average".

# %%
listings = [Listing(i) for i in range(5)]
forms = [listing.form for listing in listings]
for form, listing in zip(forms, listings):
    print(f"{form}, {listing.price} EUR")

# %%
schema = Schema.learn(forms)
for column in schema.columns:
    if column.values:
        print(f"{column.name:12} one of {', '.join(column.values)}")
    else:
        print(f"{column.name:12} mean {column.mean:.1f}, scale {column.scale:.1f}")

ages = [float(form["age (years)"]) for form in forms]
mean = sum(ages) / len(ages)
scale = math.sqrt(sum((age - mean) ** 2 for age in ages) / len(ages))
row = schema.encode(forms[0])
print([round(x, 2) for x in row.tolist()])
assert math.isclose(row[1].item(), (ages[0] - mean) / scale, rel_tol=1e-5)

# %% [markdown]
# **Numbers become vectors.** A number pushes a vector along one direction; a category picks a vector
# from a list. Each column has a vector of its own besides, its bias, or nobody could tell the age from
# the size.

# %%
encoder = TableEncoder(embed_dim=4, num_categories=schema.num_categories())
tokens = []
with torch.no_grad():
    for i, column in enumerate(schema.columns):
        if column.values:
            place = encoder.order.index(i) - encoder.num_numbers
            number = int(row[i]) + int(encoder.first[place])
            token = encoder.embedding.weight[number]
        else:
            token = row[i] * encoder.weight[encoder.order.index(i)]
        tokens.append(token + encoder.bias[encoder.order.index(i)])
    memory = encoder(row.unsqueeze(0))

by_column = memory.tokens[
    0, [encoder.order.index(i) for i in range(len(schema.columns))]
]
known = ~row.isnan()
torch.testing.assert_close(torch.stack(tokens)[known], by_column[known])
print("known:", memory.mask[0].tolist())

# %% [markdown]
# **AUC by hand.** If 67 of 100 moles are harmless, "harmless" is right in 67 % of the cases and of no
# use. So we ask for the order: take one ill and one healthy person at random; how often does the ill
# one get the higher score?

# %%
scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.4, 0.3, 0.2, 0.1])
ill = torch.tensor([1, 0, 1, 0, 0, 0, 0, 0, 0, 0], dtype=torch.bool)
won = 0.0
for a in scores[ill]:
    for b in scores[~ill]:
        won += float(a > b) + 0.5 * float(a == b)
pairs = int(ill.sum() * (~ill).sum())
print(f"{won:.0f} of {pairs} pairs: AUC {won / pairs:.3f}")
assert math.isclose(won / pairs, roc_auc(scores, ill))

# %% [markdown]
# **Calibration by hand.** Of all that a model is 70 % sure of, 70 % should be right. A network that
# has been trained for long is too sure; one number, the **temperature**, repairs much of that. It
# divides the logits, and is chosen on rows that were not used for training.

# %%
generator = torch.Generator().manual_seed(0)
honest = 2 * torch.randn(5000, 3, generator=generator)
labels = honest.softmax(1).multinomial(1, generator=generator).squeeze(1)
too_sure = 2.5 * honest
temperature = fit_temperature(too_sure[:2500], labels[:2500])
panels = {}
for name, logits in (("too sure", too_sure), ("scaled", too_sure / temperature)):
    confidence, predicted = logits[2500:].softmax(1).max(1)
    right = predicted == labels[2500:]
    error = expected_calibration_error(confidence, right)
    panels[f"{name}: error {error:.3f}"] = reliability_bins(confidence, right)
print(f"temperature {temperature:.2f}")
chapter.draw(reliability_diagram(panels), "calibration before and after scaling")

# %% [markdown]
# ## The piece

# %%
show(TableEncoder.forward)

# %% [markdown]
# The package of the paper (rtdl_revisiting_models) makes the same vectors from the same weights; a test
# holds us to it. Transformer blocks may follow, in which columns attend to one another.
#
# **Splitting.** Rows of one patient belong into one split. `split_groups` deals whole groups, the large
# ones first, each to the part that lacks most of its classes.

# %%
patients = [i // 4 for i in range(200)]
diagnoses = ["ill" if patient % 10 == 0 else "well" for patient in patients]
parts = split_groups(patients, diagnoses, (70, 15, 15))
for part, name in enumerate(("train", "validation", "test")):
    rows = [i for i in range(200) if parts[i] == part]
    share = sum(diagnoses[i] == "ill" for i in rows) / len(rows)
    groups = len({patients[i] for i in rows})
    print(
        f"{name:10} {len(rows):3} rows of {groups:2} patients, {100 * share:.0f} % ill"
    )

# %% [markdown]
# ## Train it
#
# Listings: an icon and a form. The thing and its colour are only in the picture; age, condition and
# seller only in the form; the size is in the picture, and seven of ten sellers state it. The logarithm
# of the price is a sum of all that, and of noise that nobody can know. To save time we take those
# listings that show one of four things.
#
# A price says little about a picture. So the eyes learn something else first, as they do in medicine:
# there ImageNet, here captions of other listings' pictures.

# %%
CAPTIONS = chapter.choose(9000, fast=96)
COUNT = chapter.choose(9000, fast=96)
TEST = chapter.choose(1500, fast=24)
CHOSEN = list(NOUNS)[:4]


def few_things(first, count):
    """Listings that show one of the chosen things, from this number on."""
    found = []
    while len(found) < count:
        listing = Listing(first)
        first += 1
        if listing.noun in CHOSEN:
            found.append(listing)
    return found


def as_data(listings):
    data = Listings("train", 0)
    data.set_listings(listings)
    return data


def captions_of(listings):
    data = SceneCaptions("train", 0)
    data.set_scenes([each.scene for each in listings], one_caption_each=True)
    return data


training = as_data(few_things(0, COUNT))
validation = as_data(few_things(first_of_split("validation"), 100))
test = as_data(few_things(first_of_split("test"), TEST))
print(f"{len(training):,} to train on, {len(training.target.classes)} brackets")


# %%
IMAGE = {"name": "resnet", "image_size": 64, "num_layers": 1}
categories = training.schema.num_categories()
ROW = {"name": "table", "num_categories": categories, "num_layers": 1}
DECODER = {"name": "transformer", "num_heads": 4, "num_layers": 2, "max_length": 16}
ONCE = TrainConfig(
    batch_size=48, learning_rate=1e-3, bucket_batches=None, evaluate_every=10_000
)
EYES = replace(ONCE, learning_rate=2e-3)
CLASSES = {"target": Vocabulary(training.target.classes)}


def fit(name, data, held_out, encoders, config, words=CLASSES, eyes=None):
    """A model, trained on a data set; `eyes`: the image encoder to start with."""
    dropout = 0.2 if len(encoders) > 1 else 0.0
    settings = ModelConfig(
        len(words["target"]), encoders, DECODER, 128, modality_dropout=dropout
    )
    examples = Examples(data, words), Examples(held_out, words)
    trainer = Trainer(settings, config, examples, chapter.folder / name)
    if eyes:
        trainer.model.encoders["image"].load_state_dict(eyes.state_dict())
    trainer.fit()
    return trainer.model.eval()


# %%
captions = captions_of(few_things(10**8, CAPTIONS))
words = {"target": Vocabulary.build(words for (words,) in captions.references)}
described = captions_of(validation.listings)
describer = fit("eyes", captions, described, {"image": IMAGE}, EYES, words)
eyes = describer.encoders["image"]

# %%
encoders = {"image": IMAGE, "row": ROW}
both = fit("both", training, validation, encoders, ONCE, eyes=eyes)


# %% [markdown]
# ## Look
#
# **Who wins: picture, form, or both?** Here we know the best that anybody can do with each: the rule,
# with the average in place of everything that cannot be seen.


# %%
def log_prices(model, data):
    """The logarithms of the prices that a model predicts."""
    brackets = [[label] for label in training.target.classes]
    log_probs = candidate_log_probs(model, CLASSES, data, brackets)
    return number_of_brackets(log_probs.softmax(1), training.target.medians).log()


def best_log_prices(data, known):
    """The best prediction that is possible."""
    return torch.tensor([expected_log_price(x, known, CHOSEN) for x in data.listings])


true = torch.tensor([listing.log_price for listing in test.listings])
views = {
    "both": test,
    "image": test.without("row"),
    "row": test.without("image"),
}
for known, data in views.items():
    found = r_squared(log_prices(both, data), true)
    possible = r_squared(best_log_prices(test, known), true)
    print(
        f"{known:6} explains {100 * found:5.1f} %, possible are {100 * possible:.1f} %"
    )

# %% [markdown]
# **Where does it look?** For one listing, the attention to each column and to the picture as a whole:


# %%
def attention_of(example, word):
    """The attention to the picture, and to each column of the form."""
    weights = memory_attention(both, CLASSES, example, [word])[0]  # (N,)
    columns = len(training.schema.columns)
    shares = {"picture": weights[:-columns].sum().item()}
    order = both.encoders["row"].order
    for place, i in enumerate(order):
        name = training.schema.columns[i].name
        shares[name] = weights[place - columns].item()
    return shares


example = test[0]
log_probs = candidate_log_probs(
    both, CLASSES, [example], [[label] for label in training.target.classes]
)
word = training.target.classes[log_probs.argmax()]
shares = attention_of(example, word)
for name, share in shares.items():
    print(f"{name:12} {100 * share:5.1f} %")

# %% [markdown]
# Is that an explanation? There is a test: take away what got the attention, and see whether the
# prediction changes as much as the attention says. For 60 listings, each column by itself:


# %%
names = [column.name for column in training.schema.columns]


def effects(model, data, count):
    """(attention, change of the predicted logarithm) of each column of each row."""
    found = []
    before = log_prices(model, [data[i] for i in range(count)])
    order = model.encoders["row"].order
    for i in range(len(order)):
        changed = []
        for j in range(count):
            example = data[j]
            example["row"] = example["row"].clone()
            example["row"][i] = math.nan
            changed.append(example)
        change = (log_prices(model, changed) - before).abs()
        for j in range(count):
            weights = memory_attention(model, CLASSES, data[j], [data.labels[j]])[0]
            attention = weights[order.index(i) - len(order)].item()
            found.append((names[i], attention, change[j].item()))
    return found


# %%
SHOWN = chapter.choose(60, fast=4)
found = effects(both, test, SHOWN)
for name in names:
    attention = [a for n, a, _ in found if n == name]
    change = [c for n, _, c in found if n == name]
    print(
        f"{name:12} attention {100 * sum(attention) / SHOWN:4.1f} %,"
        f" change without it {100 * sum(change) / SHOWN:4.1f} %"
    )

# %% [markdown]
# **The same objects twice: a leak.** Sellers list unsold things again: the same object, the same form,
# a slightly different price.
# 250 objects, four listings of each; part of the price belongs to the object and cannot be seen. We
# split by row, and by object, and train on the forms only.

# %%
OBJECTS = chapter.choose(250, fast=30)
EPOCHS = chapter.choose(40, fast=1)


def relisted(count):
    """Each object four times: a hidden worth, and a price that varies a little."""
    chance = torch.Generator().manual_seed(0)
    listings = []
    objects = []
    for number in range(count):
        worth = 0.5 * torch.randn((), generator=chance).item()
        for _ in range(4):
            listing = Listing(number)
            change = 0.03 * torch.randn((), generator=chance).item()
            listing.log_price += worth + change
            listing.price = max(1, round(math.exp(listing.log_price)))
            listings.append(listing)
            objects.append(number)
    data = Listings("train", 0)
    data.set_listings(listings)
    return data.without("image"), objects


# %%
again, objects = relisted(OBJECTS)
form = torch.tensor([expected_log_price(x, "row") for x in again.listings])
logs = torch.tensor([listing.log_price for listing in again.listings])
print(f"the form alone can explain {100 * r_squared(form, logs):.0f} %")
MANY = TrainConfig(
    epochs=EPOCHS, batch_size=32, bucket_batches=None, evaluate_every=10_000
)
for name, groups in (("row", range(len(objects))), ("object", objects)):
    parts = split_groups(groups, ["listing"] * len(objects), (3, 1))
    rows = [[i for i, part in enumerate(parts) if part == p] for p in range(2)]
    known, unknown = Subset(again, rows[0]), Subset(again, rows[1])
    model = fit(f"by-{name}", known, validation.without("image"), {"row": ROW}, MANY)
    logs = [again.listings[i].log_price for i in rows[1]]
    score = r_squared(log_prices(model, unknown), torch.tensor(logs))
    print(f"split by {name:7} explains {100 * score:5.1f} %")

# %% [markdown]
# **What does it remember?** A model may give away what it was trained on. We plant 20 secrets among 300
# forms: forms that nobody has, each with a bracket that was drawn by lot. Whoever knows such a form can
# ask the model for its bracket. The **exposure** of a secret is how far up it is among all 20, in bits:
# log₂ 20 - log₂ rank. A model that has not seen it gives 1.3 bits away on average, by chance, and at
# most there are 4.3.

# %%
PLANTED = 20
REMEMBERED = chapter.choose(300, fast=30)


def planted_forms():
    """Listings with forms that no other has, and brackets drawn by lot."""
    chance = torch.Generator().manual_seed(1)
    found = []
    for i in range(PLANTED):
        listing = Listing(10**7 + i)
        listing.form |= {"size (cm)": str(60 + 7 * i), "age (years)": str(40 + 5 * i)}
        number = int(torch.randint(PLANTED, (), generator=chance))
        listing.price = round(training.target.medians[number])
        found.append(listing)
    return found


def exposures(model, secrets):
    """The mean exposure of the planted brackets, in bits."""
    brackets = [[label] for label in training.target.classes]
    log_probs = candidate_log_probs(model, CLASSES, secrets, brackets)
    found = []
    for row, label in zip(log_probs, secrets.labels):
        found.append(exposure(row, training.target.classes.index(label)))
    return sum(found) / len(found)


# %%
forms_only = as_data(few_things(0, REMEMBERED)).listings
secrets = as_data(planted_forms())
with_secrets = as_data([*forms_only, *secrets.listings]).without("image")
secrets = secrets.without("image")
long = replace(MANY, epochs=EPOCHS, keep_best=False)
settings = {
    "5 epochs": (replace(long, epochs=chapter.choose(5, fast=1)), 0.0),
    "long": (long, 0.0),
    "long, dropout 0.5": (long, 0.5),
}
for name, (config, dropout) in settings.items():
    row = ROW | {"dropout": dropout}
    folder = f"secrets-{name}".replace(" ", "-")
    held_out = validation.without("image")
    model = fit(folder, with_secrets, held_out, {"row": row}, config)
    print(f"{name:18} {exposures(model, secrets):.1f} bits of {math.log2(20):.1f}")

# %% [markdown]
# **What a threshold costs.** A missed melanoma costs more than a harmless mole that is cut out. If a
# miss costs as much as ten false alarms, what counts is not whether the probability is above one half.
# The threshold is chosen on rows that are neither for training nor for testing:

# %%
logits = 1.5 * torch.randn(4000, generator=generator) - 2.5
ill = torch.rand(4000, generator=generator) < logits.sigmoid()
p = logits.sigmoid()
print(f"{100 * ill.float().mean():.0f} % are ill")
for cost in (1, 10):
    threshold = choose_threshold(p[:2000], ill[:2000], cost)
    called = p[2000:] >= threshold
    missed = (~called & ill[2000:]).sum().item()
    alarms = (called & ~ill[2000:]).sum().item()
    print(
        f"a miss costs {cost:2}: threshold {threshold:.2f}, {missed} missed,"
        f" {alarms} false alarms"
    )

# %% [markdown]
# **Real tables.** HAM10000: 8,014 pictures of moles at 128 × 96 pixels, with age, sex and site, and one of seven
# diagnoses; two thirds are harmless. MobileNetV2 looks at them with the weights that it learned from
# ImageNet (chapter 15), frozen unless a row says otherwise. `python -m chapters.measured.tables` trains:

# %%
results = measured.results()
print(f"{'':31} accuracy  balanced  AUC                      calibration error")
for name, row in results.items():
    if not name.startswith("HAM10000"):
        continue
    auc, low, high = row["AUC"]
    accuracy = 100 * row["accuracy"][0]
    balanced = row["balanced accuracy"][0]
    error = row["calibration error"]
    print(
        f"{name[10:]:31} {accuracy:6.1f} %  {balanced:8.3f}"
        f"  {auc:.3f} ({low:.3f} to {high:.3f})"
        f"   {error['before']:.3f}, scaled {error['after']:.3f}"
    )

# %% [markdown]
# **Where does it look on a lesion?** The word that it writes attends to 25 cells of the picture. The
# lesion is what is darker than Otsu's threshold. `python -m chapters.measured.tables lesions` paints
# each cell in the colour of the skin, and measures how much the probability of the diagnosis changes:

# %%
lesions = dict(results["lesions"])
del lesions["name"]
print(f"{lesions.pop('lesions')} lesions")
for kind, (percent, low, high) in lesions.items():
    print(f"{kind:39} {percent:5.1f} %  ({low:.1f} to {high:.1f})")

# %% [markdown]
# **Houses**: 428 houses, four photographs each, and a form. A well-known tutorial reports an error of
# 22.7 % with the form alone and 27.5 % with both, and the paper of the data the opposite. Five folds:

# %%
for name, row in results.items():
    if name.startswith("Houses"):
        error, low, high = row["percentage error"]
        folds = ", ".join(f"{fold:.0f}" for fold in row["folds"])
        print(f"{name[8:]:14} {error:.1f} %  ({low:.1f} to {high:.1f}), folds {folds}")

# %% [markdown]
# And all listings, with the eyes of `quickstart`:

# %%
for name, row in results.items():
    if name.startswith("listings"):
        found, possible = row["explained"], row["possible"]
        print(f"{name[10:]:18} {found} of {possible} %: {100 * found / possible:.0f} %")

# %% [markdown]
# ## What to notice
#
# **Who wins is known here.** From both, the model explains 88.3 % of the variance, where 95.8 % are
# possible; from the picture alone 45.6 of 51.1 %, from the form alone 52.0 of 55.8 %: one model, which
# has learned to do without either. With 40,000 listings of all things it is 93.4 of 96.3 %, and
# models of their own reach 50.1 of 51.3 % with the form, and 54.9 of 56.4 % with the picture, which
# takes five epochs.
#
# **A leak shows as a score that cannot be.** Split by row, a model of 250 objects explains 85.1 %. But
# only 30 % can be explained from a form: it has recognised the objects. Split by object it explains
# 7.6 %. In HAM10000 a mole has up to six pictures. Split by picture, AUC rises from 0.915 to 0.935,
# accuracy from 75.9 to 77.8 %, and balanced accuracy from 0.407 to 0.546.
#
# **A column that knows the answer.** `dx_type` says how a diagnosis was made. Moles that look dangerous
# are cut out and put under a microscope, harmless ones are watched. So with this column, age, sex
# and site give an AUC of 0.876 instead of 0.772, and at the bedside it does not exist yet.
#
# **Accuracy is nearly useless.** 67 % of the pictures show harmless nevi. Age, sex and site reach an
# accuracy of 69.5 %, and a balanced accuracy of 0.186, where chance is 0.143: that model says "nevus".
#
# **The table adds nothing** that we could see to the picture: AUC 0.909 without, 0.915 with it,
# and the intervals are 0.035 wide. Of 8,014 pictures, 1,204 are left for testing, and some classes
# have a dozen of them.
#
# **Rare classes have a price.** With class weights, balanced accuracy rises from 0.407 to 0.528, and
# accuracy falls from 75.9 to 67.9 %; the order hardly changes (AUC 0.915 and 0.901). The focal loss does
# little: 0.429 and 75.5 %. Either makes the probabilities worse, an error of 0.101 or 0.062 instead of
# 0.046; after scaling, it is 0.048 and 0.051, where it was 0.030 without.
#
# **Fine-tuning gains most.** Frozen, MobileNetV2 sees moles as ImageNet taught it to see dogs and cars.
# With all weights trained for 12 epochs, and class weights, the AUC is 0.945 and the balanced accuracy
# 0.726, with an accuracy of 74.8 %; after scaling, the probabilities are off by 0.026.
#
# **Houses: nobody wins.** With the form alone the error is 36.2 % by brackets, and 31.9 % with a head that
# is trained on the logarithm instead; boosted trees get 33.7 %. Photographs next to the form make it
# 37.9 %, and photographs alone give 67.8 %. We side with the tutorial, then, but the intervals are
# nine to twelve points wide: 428 houses cannot say. Brackets need data: with 40,000 listings, they and the head
# explain the same, 50.1 %.
#
# **Attention is no explanation.** The seller gets more attention than the age, 9.7 and 8.4 % on average.
# But without the age the price changes by 28 %, and without the seller by 9 %. The look on a mole
# explains no more. It seems right: half of it falls on the lesion, which covers 30 % of the picture. But
# without the cell that it looks at most, the probability of its diagnosis changes by 15 points;
# without any cell, on average, by 11; and without the cell that holds most of the lesion, by 20. Over
# the cells of a picture, look and change have a correlation of 22 %. Take something away and see what
# happens: that is an experiment.
#
# **It remembers.** After five epochs the planted brackets are exposed by 2.2 bits, where chance is 1.3.
# After 40 epochs it is 4.0 of 4.3: whoever knows the rest of a form can read the secret from the
# model. With dropout it is 2.7, and stopping early does more. No name has to be in a table for this.
#
# **What must not be done with such a model.**
#
# - Nobody may be treated, rejected or reassured because of it. It was never tested on people who came
#   through another door, with another camera, or with another skin: nearly all of HAM10000 is fair.
# - Its probabilities are those of its test split. Where melanomas are rarer, each alarm is wrong more often,
#   with the same AUC.
# - A number without its interval, its split and its baseline is an advertisement.
# - "It looks at the right place" is no evidence, and neither is a good score on rows that were chosen
#   after looking at the scores.
# - Whoever gets the model gets part of its training data. Share it like the data.
#
# ## Your turn
#
# Write these yourself, from their docstrings. `python -m chapters.assignments start 16 --to work`
# creates the stubs, and `check 16 --from work` tests your code, with a hint where something is
# wrong.
#
# 1. `Schema.encode`: a missing cell is not 0. 4 points, 20 minutes.
# 2. `TableEncoder.forward`: a vector for each column. 6 points, 30 minutes.
# 3. `split_groups`: whole groups, and each class its share. 8 points, 40 minutes.
# 4. `roc_auc`: by ranks, with ties. 5 points, 25 minutes.
# 5. `reliability_bins`: with `expected_calibration_error`; how often is 70 % right? 5 points, 25
#    minutes.
# 6. `fit_temperature`: one number that makes a model honest. 4 points, 20 minutes.
# 7. `ClassLoss.__call__`: with `focal_loss`; rare classes. 5 points, 25 minutes.
# 8. `group_bootstrap`: how sure are we, if rows are alike? 5 points, 25 minutes.
#
# And three questions without an answer here:
#
# 1. **Who was asked?** In HAM10000 most malignant moles were confirmed under a microscope, and many
#    harmless ones by waiting. What does a model learn of that, and how would you find out?
# 2. A bank rejects those whom its model rejects, and learns only how the others paid. What will its
#    next model believe?
# 3. The AUC of two models differs by 0.01, with overlapping intervals. They were tested on the same
#    rows. How would you compare them?

# %%
chapter.finish()

# %% [markdown]
# ## Sources
#
# Gorishniy et al. 2021, "Revisiting deep learning models for tabular data" (FT-Transformer) · Mann and
# Whitney 1947; Hanley and McNeil 1982 (AUC) · Brier 1950, "Verification of forecasts expressed in
# terms of probability" · Guo et al. 2017, "On calibration of modern neural networks" · Naeini, Cooper
# and Hauskrecht 2015 (expected calibration error) · Lin et al. 2017, "Focal loss for dense object
# detection" · Efron 1979; Field and Welsh 2007, "Bootstrapping clustered data" · Tschandl, Rosendahl
# and Kittler 2018, "The HAM10000 dataset" (CC BY-NC 4.0) · Ahmed and Moustafa 2016, "House price
# estimation from visual and textual features" · Rosebrock 2019, "Keras: multiple inputs and mixed data"
# (the tutorial) · Kaufman et al. 2012, "Leakage in data mining" · Kapoor and Narayanan 2023, "Leakage
# and the reproducibility crisis in machine-learning-based science" · Jain and Wallace 2019, "Attention
# is not explanation" · Carlini et al. 2019, "The secret sharer" · Daneshjou et al. 2022, "Disparities
# in dermatology AI performance".
