"""Retrieval from the command line: drawn scenes and a folder of photographs; measuring and finding."""

import json
import math
import os
import random
import re
import shlex
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import error_of, run_command, train_tiny_captioner
from PIL import Image
from torch.testing import assert_close

from mmscratch.__main__ import main
from mmscratch.batches import collate, encode_words
from mmscratch.contrastive import DualEncoder
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.judge import judge
from mmscratch.data.scenes import Scene, render
from mmscratch.finetuning import load_run
from mmscratch.images import open_image, to_tensor
from mmscratch.tasks.retrieval import Retrieval
from mmscratch.text import tokenize
from mmscratch.training import Trainer

pytestmark = pytest.mark.xdist_group("retrieval")  # the tests share trained runs

TRAIN = "train --task retrieval --epochs 1 --batch-size 11 --precision float32"
ON_SCENES = f"{TRAIN} --data scenes --scenes 37 --image-size 32"
ON_PHOTOS = f"{TRAIN} --data photos --image-size 16"
PHOTOS = """\
file_name,caption,split
0.png,A dog on a beach.,train
0.png,a wet dog,train
0.png,a dog,train
1.png,Two men in snow,train
1.png,a dog,train
2.png,a red car,train
text.png,not a picture,train
3.png,A dog on a beach.,val
4.png,two men,val
4.png,men in the snow,val
4.png,people,val
5.png,a car,val
5.png,a red car,val
6.png,a cat,val
9.png,no such picture,val
a line without a caption
"""


def make_small(monkeypatch):
    monkeypatch.setattr("mmscratch.tasks.retrieval.VALIDATION_SCENES", 7)
    monkeypatch.setattr("mmscratch.tasks.retrieval.TEST_SCENES", 13)
    monkeypatch.setattr("mmscratch.tasks.captioning.VALIDATION_SCENES", 3)
    monkeypatch.setattr("mmscratch.tasks.captioning.TEST_SCENES", 3)


@pytest.fixture(scope="module")
def retrievers(tmp_path_factory):
    """A folder with runs on scenes and photos, and a captioner; what training printed."""
    folder = tmp_path_factory.mktemp("retrievers")
    photos = folder / "photos"
    photos.mkdir()
    for i in range(7):
        render(Scene(i), 24).save(photos / f"{i}.png")
    (photos / "text.png").write_text("no picture")
    (photos / "captions.csv").write_text(PHOTOS)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        make_small(monkeypatch)
        outputs = [run_command(ON_SCENES), run_command(ON_PHOTOS)]
        train_tiny_captioner("captioner")
    assert [status for status, _ in outputs] == [0, 0]
    return folder, [out for _, out in outputs]


@pytest.fixture
def retrieval(retrievers, monkeypatch):
    """Change to that folder; the output of the trainings on scenes and photos."""
    folder, outputs = retrievers
    make_small(monkeypatch)
    monkeypatch.chdir(folder)
    return outputs


def blocks(out):
    """What is printed in each direction: {heading: its four lines}."""
    found = {}
    for line in out.splitlines():
        if line.startswith(("caption to picture: ", "picture to caption: ")):
            found[line] = []
        elif line.startswith(("  recall", "  median")):
            list(found.values())[-1].append(line)
    return found


def vector(model, modality, values):
    """The vector of one example, computed alone."""
    with torch.no_grad():
        return model.embed(modality, values.unsqueeze(0))[0]


def sentence_vector(model, vocabularies, text):
    words = encode_words(vocabularies["target"], tokenize(text))
    return vector(model, "target", words)


def score_table(run, data):
    """The similarity of each caption and each picture, as lists; each is embedded alone."""
    model, vocabularies, _ = load_run(run)
    pictures = [vector(model, "image", data[i]["image"]) for i in range(len(data))]
    table = []
    for texts in data.texts:
        for text in texts:
            sentence = sentence_vector(model, vocabularies, text)
            table.append([float(sentence @ picture) for picture in pictures])
    return table


def rank(scores, right):
    """The rank of the best right one: one more than the number of wrong ones before it."""
    best = max(score for score, is_right in zip(scores, right) if is_right)
    return 1 + sum(score >= best for score, is_right in zip(scores, right) if not is_right)


def expected_lines(ranks_by_picture, among):
    """The four lines of a direction, from the ranks of each picture's queries."""
    ranks = np.concatenate(ranks_by_picture)
    rng = np.random.default_rng(12345)
    resampled = []
    for _ in range(1000):
        drawn = rng.integers(len(ranks_by_picture), size=len(ranks_by_picture))
        resampled.append(np.concatenate([ranks_by_picture[i] for i in drawn]))
    lines = []
    for k in (1, 5, 10):
        shares = sorted(100 * (drawn <= k).mean() for drawn in resampled)
        interval = f"({shares[25]:.1f} to {shares[-26]:.1f})"
        value = 100 * (ranks <= k).mean()
        lines.append(f"  recall at {k:<10} {value:.1f} %  {interval} {among}")
    medians = sorted(np.median(drawn) for drawn in resampled)
    interval = f"({medians[25]:g} to {medians[-26]:g})"
    lines.append(f"  median rank          {np.median(ranks):g}  {interval} {among}")
    return lines


def rows_of(run, split):
    lines = Path(run, f"retrieval-{split}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def state_of(run):
    return load_run(run)[0].state_dict()


def similar_scenes(first):
    """Twelve scenes with numbers from `first`; every other has the objects of the one before it."""
    scenes = []
    for i in (4, 5, 6, 7, 24, 25):
        scene = Scene(i)
        attributes = [(obj.size, obj.colour, obj.noun) for obj in scene.objects]
        scenes += [scene, Scene.compose(random.Random(i), attributes)]
    for i, scene in enumerate(scenes):
        scene.seed = first + i
    return scenes


@pytest.fixture
def ambiguous(retrieval, monkeypatch):
    """The task reads scenes of which many have the same objects."""

    def read(task, metadata, split, image_size):
        data = SceneCaptions(split, 1, size=image_size)
        first = {"train": 100, "validation": 1000}.get(split, 2000)
        data.set_scenes(similar_scenes(first), "en", image_size, split != "test")
        return data

    monkeypatch.setattr(Retrieval, "read", read)


# -------------------------------------------------------------------------------------------------
# Training.


def test_model_of_scenes_is_trained_and_measured(retrieval, capsys):
    out = retrieval[0]
    assert "train: 37 examples with 37 texts (37 with image); 0 problems" in out
    assert "validation: 7 examples with 7 texts (7 with image); 0 problems" in out
    assert "runs/retrieval, 13 pictures of the test split" in out
    model, vocabularies, saved = load_run("runs/retrieval")
    assert isinstance(model, DualEncoder) and vocabularies.keys() == {"target"}
    metadata = {"task": "retrieval", "data": "scenes", "layout": "scenes", "scenes": 37}
    assert saved["metadata"] == metadata | {"spoken": None}
    assert main(["evaluate", "runs/retrieval"]) == 0
    assert blocks(capsys.readouterr().out) == blocks(out)
    assert len(blocks(out)) == 2  # no caption fits two of these scenes


def test_command_that_training_suggests_finds_the_picture(retrieval, capsys):
    for out, count in zip(retrieval, (13, 8)):
        command = out.splitlines()[-1].split("mmscratch ")[1]
        assert main([*shlex.split(command), "--top", "100"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert f"{count - (count == 8)} new" in lines[0] and len(lines) == count + (count != 8) + 1


def test_broken_lines_and_pictures_are_reported_and_skipped(retrieval):
    out = retrieval[1]
    assert "train: 3 examples with 6 texts (3 with image)" in out
    assert "validation: 4 examples with 7 texts (4 with image)" in out
    assert "runs/photos, 4 pictures of the validation split" in out
    assert "text.png: not a picture" in Path("runs/photos/problems-train.txt").read_text()
    problems = Path("runs/photos/problems-validation.txt").read_text()
    assert "captions.csv:16: there is no picture '9.png'" in problems
    assert "captions.csv:17: 1 columns where 3 were expected" in problems


def test_stopped_training_resumes(retrieval, monkeypatch, capsys):
    step = Trainer._train_step

    def pressing(trainer, batch):
        if trainer.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer, batch)

    command = [*ON_SCENES.split(), "--to", "runs/stopped"]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", pressing)
        assert main(command) == 130
    assert "the same command" in capsys.readouterr().err
    assert main(command) == 0
    assert "resuming runs/stopped at step 2 of 4" in capsys.readouterr().out
    assert_close(state_of("runs/stopped"), state_of("runs/retrieval"), rtol=0, atol=0)


def loss_by_loops(model, batch, fits):
    """The symmetric cross-entropy; fits[i][j]: caption j is right for picture i as well."""
    with torch.no_grad():
        a, b = model(batch)
    logits = (model.log_scale.exp() * a @ b.T).tolist()
    count = len(logits)
    total = 0.0
    for i in range(count):
        columns = [j for j in range(count) if j == i or not fits[i][j]]
        rows = [j for j in range(count) if j == i or not fits[j][i]]
        total += math.log(sum(math.exp(logits[i][j]) for j in columns)) - logits[i][i]
        total += math.log(sum(math.exp(logits[j][i]) for j in rows)) - logits[i][i]
    return total / 2


@pytest.mark.parametrize("start", ["", "--from runs/retrieval", "--from captioner"])
@pytest.mark.parametrize("part", ["train", "validation"])
def test_true_captions_of_scenes_are_no_negatives(ambiguous, no_training, start, part):
    command = f"{TRAIN} --data scenes --image-size 32 --to runs/judged {start}"
    assert main(command.split()) == 130
    (trainer,) = no_training
    model = trainer.model.eval()
    examples = getattr(trainer, part)
    scenes = examples.data.scenes
    captions = [text for (text,) in examples.data.texts]
    fits = [[judge(text, scene).true for text in captions] for scene in scenes]
    assert sum(map(sum, fits)) > 12 and fits != [list(column) for column in zip(*fits)]
    batch = collate([examples[i] for i in range(12)])
    for i in range(12):
        for j in range(12):
            fits[i][j] = fits[i][j] or captions[i] == captions[j]
    loss, count = model.loss(batch)
    assert count == 12
    assert loss.item() == pytest.approx(loss_by_loops(model, batch, fits), rel=1e-5)
    nothing = [[False] * 12] * 12
    assert abs(loss.item() - loss_by_loops(model, batch, nothing)) > 0.01


def test_true_captions_are_no_negatives_after_resuming(ambiguous, monkeypatch, capsys):
    seen = []
    step = Trainer._train_step

    def watching(trainer, batch):
        seen.append(trainer.model.same(torch.arange(12)).sum() > 12)
        if len(seen) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer, batch)

    monkeypatch.setattr(Trainer, "_train_step", watching)
    command = f"{TRAIN} --epochs 2 --data scenes --image-size 32 --to runs/again".split()
    assert main(command) == 130
    assert main(command) == 0
    assert len(seen) == 4 and all(seen)
    assert "resuming" in capsys.readouterr().out


def test_captions_of_one_photograph_are_no_negatives(retrieval, no_training):
    assert main(f"{ON_PHOTOS} --to runs/numbered".split()) == 130
    (trainer,) = no_training
    model = trainer.model.eval()
    assert len(trainer.train) == 6
    batch = collate([trainer.train[i] for i in range(6)])
    batch.pop("augmentation")
    assert batch["number"].tolist() == [0, 0, 0, 1, 1, 2]
    pictures = [0, 0, 0, 1, 1, 2]
    texts = ["beach", "wet", "a dog", "men", "a dog", "car"]
    fits = []
    for i in range(6):
        row = [pictures[i] == pictures[j] or texts[i] == texts[j] for j in range(6)]
        fits.append(row)
    loss, _ = model.loss(batch)
    assert loss.item() == pytest.approx(loss_by_loops(model, batch, fits), rel=1e-5)


# -------------------------------------------------------------------------------------------------
# Measurements.


def test_measures_of_scenes_equal_those_of_loops(ambiguous, capsys):
    assert main(["evaluate", "runs/retrieval"]) == 0
    found = blocks(capsys.readouterr().out)
    data = Retrieval().read({}, "test", 32)
    captions = [text for texts in data.texts for text in texts]
    table = score_table("runs/retrieval", data)
    fits = [[judge(text, scene).true for scene in data.scenes] for text in captions]
    ranks = [rank(scores, right) for scores, right in zip(table, fits)]
    by_picture = [ranks[i : i + 5] for i in range(0, 60, 5)]
    alone = []
    for first in range(0, 60, 5):
        chosen = [ranks[i] for i in range(first, first + 5) if sum(fits[i]) == 1]
        if chosen:
            alone.append(chosen)
    count = sum(map(len, alone))
    assert 0 < count < 60 and len({len(chosen) for chosen in alone}) > 1
    backwards = []
    for j in range(12):
        column = [scores[j] for scores in table]
        backwards.append([rank(column, [right[j] for right in fits])])
    assert found == {
        f"caption to picture: {count} captions; {60 - count} that fit several pictures are left out":
            expected_lines(alone, "among 12 pictures"),
        "caption to picture: 60 captions; any picture that fits is right":
            expected_lines(by_picture, "among 12 pictures"),
        "picture to caption: 12 pictures; any caption that fits is right":
            expected_lines(backwards, "among 60 captions"),
    }  # fmt: skip
    rows = rows_of("runs/retrieval", "test")
    assert [row["rank"] for row in rows] == ranks
    assert [row["caption"] for row in rows] == captions
    for row, scores in zip(rows, table):
        assert scores[data.names.index(row["found"])] == pytest.approx(max(scores), abs=1e-6)
    assert [row["picture"] for row in rows] == [name for name in data.names for _ in range(5)]
    with Image.open("runs/retrieval/retrieval-test.png") as sheet:
        assert min(sheet.size) > 500


def test_measures_of_photographs_equal_those_of_loops(retrieval, capsys):
    assert main("evaluate runs/photos".split()) == 0
    found = blocks(capsys.readouterr().out)
    assert found == blocks(retrieval[1])
    metadata = load_run("runs/photos")[2]["metadata"]
    data = Retrieval().read(metadata, "validation", 16)
    table = score_table("runs/photos", data)
    pictures = [0, 1, 1, 1, 2, 2, 3]  # of the captions
    by_picture = [[], [], [], []]
    for scores, picture in zip(table, pictures):
        by_picture[picture].append(rank(scores, [j == picture for j in range(4)]))
    backwards = []
    for j in range(4):
        column = [scores[j] for scores in table]
        backwards.append([rank(column, [picture == j for picture in pictures])])
    assert found == {
        "caption to picture: 7 captions": expected_lines(by_picture, "among 4 pictures"),
        "picture to caption: 4 pictures; any caption that fits is right":
            expected_lines(backwards, "among 7 captions"),
    }  # fmt: skip
    rows = rows_of("runs/photos", "validation")
    assert [row["rank"] for row in rows] == [rank for ranks in by_picture for rank in ranks]
    assert [Path(row["picture"]).name for row in rows] == [f"{3 + i}.png" for i in pictures]


def test_run_is_evaluated_on_other_splits_and_data(retrieval, capsys):
    assert main("evaluate runs/retrieval --split compositional_test".split()) == 0
    assert "13 pictures of the compositional_test split" in capsys.readouterr().out
    assert main("evaluate runs/retrieval --data photos".split()) == 0
    out = capsys.readouterr().out
    assert "runs/retrieval, 4 pictures of the validation split" in out
    assert "caption to picture: 7 captions\n" in out
    assert main("evaluate runs/photos --data scenes".split()) == 0
    assert "among 65 captions" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------
# Finding.


@pytest.fixture
def album(retrieval, tmp_path):
    """A folder of five pictures and a file that is no picture; and the run, with no index yet."""
    folder = tmp_path / "album"
    folder.mkdir()
    for i in range(5):
        render(Scene(20 + i), 40).save(folder / f"{i}.png")
    (folder / "text.jpg").write_text("no picture")
    Path("runs/retrieval/index.pt").unlink(missing_ok=True)
    return folder


def found_in(out):
    """The pictures that were found: [(similarity, name), …]."""
    lines = re.findall(r"^(-?[\d.]+)  (.*)$", out, re.M)
    return [(float(score), Path(path).name) for score, path in lines]


def similarities(query, folder):
    """[(similarity, name), …] of the pictures of a folder, the best first."""
    model = load_run("runs/retrieval")[0]
    found = []
    for path in folder.glob("*.png"):
        picture = vector(model, "image", to_tensor(open_image(path), 32))
        found.append((float(query @ picture), path.name))
    return sorted(found, reverse=True)


def test_find_ranks_the_pictures_by_similarity(album, capsys):
    sentence = "A big red star, and a small BLUE cat"
    assert main(["find", sentence, str(album)]) == 0  # runs/retrieval is the default
    out, err = capsys.readouterr()
    model, vocabularies, _ = load_run("runs/retrieval")
    expected = similarities(sentence_vector(model, vocabularies, sentence), album)
    found = found_in(out)
    assert [name for _, name in found] == [name for _, name in expected]
    for (score, _), (right, _) in zip(found, expected):
        assert score == pytest.approx(right, abs=2e-3)  # float16, and three digits
    assert f"skipped: {album / 'text.jpg'}: not a picture" in err
    with Image.open("runs/retrieval/found.png") as sheet:
        assert min(sheet.size) > 240
    assert "Look at runs/retrieval/found.png" in out


def test_find_by_a_picture_finds_the_picture_first(album, capsys):
    likeness = album / "3.png"
    assert main(["find", str(album), "--like", str(likeness), "--top", "2"]) == 0
    found = found_in(capsys.readouterr().out)
    model = load_run("runs/retrieval")[0]
    query = vector(model, "image", to_tensor(open_image(likeness), 32))
    expected = similarities(query, album)[:2]
    assert [name for _, name in found] == [name for _, name in expected]
    assert found[0] == (1.0, "3.png")


def test_index_is_updated_and_reused(album, monkeypatch, capsys):
    calls = []
    embed = DualEncoder.embed

    def counting(model, modality, *inputs):
        calls.append((modality, len(inputs[0])))
        return embed(model, modality, *inputs)

    monkeypatch.setattr(DualEncoder, "embed", counting)
    command = ["find", "a star", str(album), "--index", str(album / "vectors.pt")]
    changes = []
    for step in range(4):
        if step == 2:
            render(Scene(77), 41).save(album / "1.png")
            render(Scene(78), 41).save(album / "new.png")
            (album / "2.png").unlink()
        assert main(command) == 0
        changes.append(capsys.readouterr().out.splitlines()[0].split(": ")[1])
    assert changes == [
        "5 new, 0 changed, 0 vanished, 1 unreadable",
        "0 new, 0 changed, 0 vanished, 1 unreadable",
        "1 new, 1 changed, 1 vanished, 1 unreadable",
        "0 new, 0 changed, 0 vanished, 1 unreadable",
    ]
    assert [call for call in calls if call[0] == "image"] == [("image", 5), ("image", 2)]
    assert not Path("runs/retrieval/index.pt").exists()


def test_find_searches_several_folders(album, capsys):
    assert main(["find", "a star", str(album), "photos", "--top", "30"]) == 0
    names = [name for _, name in found_in(capsys.readouterr().out)]
    assert sorted(names) == sorted([f"{i}.png" for i in range(5)] + [f"{i}.png" for i in range(7)])


def test_only_five_unreadable_pictures_are_named(album, capsys):
    for i in range(7):
        (album / f"broken{i}.gif").write_text("no picture")
    assert main(["find", "a star", str(album)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6 and lines[-1] == "skipped: 3 more"


def test_unknown_words_are_named(album, capsys):
    assert main(["find", "a zebra, a star and a quagga", str(album)]) == 0
    err = capsys.readouterr().err
    assert err.splitlines()[0] == "not in the model's vocabulary: zebra, quagga"


def test_index_of_another_model_is_refused(album, capsys):
    index = str(album / "vectors.pt")
    assert main(["find", "a star", str(album), "--index", index]) == 0
    before = Path(index).read_bytes()
    capsys.readouterr()
    assert main(["find", "a dog", str(album), "--index", index, "--run", "runs/photos"]) == 2
    assert f"{index} is the index of another model" in error_of(capsys)
    assert Path(index).read_bytes() == before


def test_models_with_other_weights_have_other_indices(album, capsys):
    """Only the weights differ, by one bit of one number of the trained ones."""
    index = str(album / "vectors.pt")
    shutil.copytree("runs/retrieval", "runs/changed", dirs_exist_ok=True)
    saved = torch.load("runs/changed/best.pt", weights_only=True)
    weight = saved["model"]["projection.image.weight"]
    weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    torch.save(saved, "runs/changed/best.pt")
    assert main(["find", "a star", str(album), "--index", index]) == 0
    capsys.readouterr()
    assert main(["find", "a star", str(album), "--index", index, "--run", "runs/changed"]) == 2
    assert "another model" in error_of(capsys)


# -------------------------------------------------------------------------------------------------
# Starting from another run.


def test_captioner_starts_from_a_retrieval_run(retrieval, no_training, capsys):
    command = "train --data scenes --scenes 7 --precision float32 --from runs/retrieval --to runs/c"
    assert main(command.split()) == 130
    assert "from runs/retrieval: encoders.image\nall else is new\n" in capsys.readouterr().out
    check_image_encoder(no_training[0].model.state_dict(), state_of("runs/retrieval"))


def test_retrieval_starts_from_a_captioner(retrieval, no_training, capsys):
    assert main(f"{TRAIN} --data photos --from captioner --to runs/d".split()) == 130
    assert "from captioner: encoders.image\nall else is new\n" in capsys.readouterr().out
    check_image_encoder(no_training[0].model.state_dict(), state_of("captioner"))


def check_image_encoder(state, base):
    names = [name for name in state if name.startswith("encoders.image.")]
    assert len(names) > 50
    for name in names:
        assert_close(state[name], base[name], rtol=0, atol=0)


def test_retrieval_continues_on_other_data_and_keeps_its_words(retrieval, no_training):
    assert main(f"{TRAIN} --data photos --from runs/retrieval --to runs/e".split()) == 130
    (trainer,) = no_training
    base, vocabularies, _ = load_run("runs/retrieval")
    words = trainer.train.vocabularies["target"].words
    count = len(vocabularies["target"])
    assert words[:count] == vocabularies["target"].words and "beach" in words[count:]
    state = trainer.model.state_dict()
    for name, tensor in base.state_dict().items():
        now = state[name] if tensor.dim() == 0 else state[name][: len(tensor)]
        assert_close(now, tensor, rtol=0, atol=0)
    assert trainer.model.same is None  # nobody judges captions of photographs


# -------------------------------------------------------------------------------------------------
# Errors.


@pytest.mark.parametrize("arguments, says", [
    ("find star", "name a sentence, or a picture after --like, and then a folder to search"),
    ("find star nowhere", "nowhere: no such folder"),
    ("find star empty", "empty: no pictures in this folder"),
    (
        "find star photos --like photos/1.png",
        "star: no such folder; --like takes the sentence's place",
    ),
    ("find photos --like nothing.png", "nothing.png: no such file"),
    ("find photos --like photos/text.png", "photos/text.png: not a picture"),
    ("find  photos", "the sentence has no words"),
    ("find star photos --top 0", "--top must be at least 1, not 0"),
    ("find star photos --run nowhere", "nowhere holds no trained model: run python"),
    ("find star photos --run captioner", "captioning, and find needs one of the task retrieval"),
    ("find star photos --index photos/text.png", "not an index of pictures that can be read"),
    ("find star photos --index captioner/best.pt", "is not an index of pictures of this version"),
    ("caption photos/1.png --run runs/retrieval", "runs/retrieval is a run of the task retrieval"),
    ("evaluate runs/retrieval --split dev", "the scenes have no split 'dev'"),
    (f"{TRAIN} --data nowhere", "nowhere: no such folder"),
    (f"{TRAIN} --data photos --layout flickr8k", "official layout"),
    (f"{TRAIN} --data photos --layout multi30k", "retrieval has no layout multi30k"),
    (f"{ON_SCENES} --decoder lstm", "retrieval has no decoder: leave out --decoder and --fusion"),
    (f"{ON_SCENES} --fusion prefix", "retrieval has no decoder: leave out --decoder and --fusion"),
    (f"{ON_SCENES} --to x --accumulate 2", "accumulation_steps must be 1 for a DualEncoder"),
    (f"{ON_SCENES} --to x --from runs/retrieval --lora 2", "a DualEncoder has none"),
    (f"{TRAIN} --data scenes --from captioner --image-size 48", "32 in captioner"),
])  # fmt: skip
def test_bad_arguments_give_one_line_and_exit_code_2(retrieval, capsys, arguments, says):
    Path("empty").mkdir(exist_ok=True)
    assert main(arguments.split(" ")) == 2
    assert says in error_of(capsys)


def test_folder_without_readable_pictures_is_an_error(album, capsys):
    for path in album.glob("*.png"):
        path.unlink()
    assert main(["find", "a star", str(album)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "error: none of these pictures can be read" and len(lines) == 2
