"""Saved runs, and runs that start from another run."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from command_line import train_tiny_captioner
from helpers import IMAGE
from torch.testing import assert_close

from mmscratch.engine.runs import VERSION, read_checkpoint
from mmscratch.finetuning import (
    load_run,
    prepare_for_finetuning,
    save_run,
    vocabularies_from,
    vocabulary_states,
)
from mmscratch.model import ModelConfig, build_model, token_embedding
from mmscratch.text import BytePairEncoding, Vocabulary

SMALL_IMAGE = IMAGE | {"depth": (1, 1), "image_size": 37}
SIZES = {
    "lstm": {"hidden_size": 13, "num_layers": 1},
    "transformer": {"num_heads": 2, "num_layers": 1},
}
D = 22  # embed_dim


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setattr("mmscratch.finetuning.pick_device", lambda: torch.device("cpu"))


@pytest.fixture
def run(tmp_path):
    """A folder with the best model of a run, that model, and its checkpoint."""
    config = ModelConfig(7, {"image": SMALL_IMAGE}, {"name": "lstm", "hidden_size": 13}, D)
    model = build_model(config)
    model.encoders["image"].backbone.bn1.running_mean.normal_()
    save_run(tmp_path, model, config, {"target": Vocabulary(["a", "red", "circle"])}, {"data": "x"})
    return tmp_path, model, read_checkpoint(tmp_path / "best.pt")


def test_loaded_run_equals_the_saved_one(run):
    folder, model, saved = run
    for where in (folder, str(folder)):
        loaded, vocabularies, checkpoint = load_run(where)
        assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
        assert vocabularies.keys() == {"target"}
        assert vocabularies["target"].words[4:] == ["a", "red", "circle"]
        assert not loaded.training
        assert checkpoint["metadata"] == {"data": "x"}
        assert checkpoint["model_config"] == saved["model_config"]
        assert checkpoint["version"] == VERSION


@pytest.mark.parametrize("version", [None, 1, VERSION + 1])
def test_run_of_another_layout_is_refused_with_advice(version, run):
    folder, _, saved = run
    other = {name: value for name, value in saved.items() if name != "version"}
    if version is not None:
        other["version"] = version
    torch.save(other, folder / "best.pt")
    message = f"is of layout {version or 1}.*reads layout {VERSION}: train it again"
    for read in (
        lambda: load_run(folder),
        lambda: prepare_for_finetuning(build_model(ModelConfig(7)), {}, str(folder)),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            read()
        assert str(folder / "best.pt") in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


ENGLISH = Vocabulary(["a", "red", "circle", "in", "rot"])
GERMAN = Vocabulary(["rot", "ein", "kreis", "in", "a", "und", "ist"])
PIECES = BytePairEncoding.learn([["kreis", "kreise", "kreisel"], ["circle", "circles"]], 7)


@pytest.mark.parametrize(
    "target, source",
    [(GERMAN, ENGLISH), (PIECES, ENGLISH), (GERMAN, PIECES), (GERMAN, None), (PIECES, None)],
)
def test_separate_vocabularies_are_restored(target, source):
    vocabularies = {"target": target}
    if source:
        vocabularies["source"] = source
    states = json.loads(json.dumps(vocabulary_states(vocabularies)))  # plain values only
    back = vocabularies_from(states)
    assert back.keys() == vocabularies.keys()
    for name, vocabulary in vocabularies.items():
        assert type(back[name]) is type(vocabulary)
        assert back[name].words == vocabulary.words and back[name].state() == vocabulary.state()


@pytest.mark.parametrize("vocabulary", [GERMAN, PIECES], ids=["words", "pieces"])
def test_joint_vocabulary_is_saved_once_and_restored_as_one(vocabulary):
    states = vocabulary_states({"source": vocabulary, "target": vocabulary})
    assert states == {"source": "target", "target": vocabulary.state()}
    back = vocabularies_from(json.loads(json.dumps(states)))
    assert back["source"] is back["target"] and back["target"].state() == vocabulary.state()


def translator(kind, target, source, image=SMALL_IMAGE, **settings):
    """The config of a tiny translation model with pictures or, with image=None, without."""
    encoders = {"image": image} if image else {}
    encoders["source"] = {"name": kind, "vocab_size": len(source)} | SIZES[kind]
    return ModelConfig(len(target), encoders, {"name": kind} | SIZES[kind], D, **settings)


@pytest.fixture(params=["lstm", "transformer"])
def kind(request):
    return request.param


@pytest.fixture
def saved_translator(kind, tmp_path):
    """Saves a translation run, and returns its config, its model and the folder."""

    def make(target, source, **settings):
        config = translator(kind, target, source, **settings)
        model = build_model(config)
        vocabularies = {"target": target, "source": source}
        save_run(tmp_path, model, config, vocabularies, {"task": "translation"})
        return config, model, tmp_path

    return make


@pytest.mark.parametrize("target, source, settings", [
    (GERMAN, ENGLISH, {}), (GERMAN, ENGLISH, {"image": None}), (PIECES, PIECES, {"joint_vocabulary": True}),
], ids=["separate", "no pictures", "joint"])  # fmt: skip
def test_loaded_translator_equals_the_saved_one(target, source, settings, saved_translator):
    config, model, folder = saved_translator(target, source, **settings)
    loaded, vocabularies, checkpoint = load_run(folder)
    assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert not loaded.training and checkpoint["metadata"] == {"task": "translation"}
    assert ModelConfig(**checkpoint["model_config"]) == config
    states = {name: vocabulary.state() for name, vocabulary in vocabularies.items()}
    assert states == {"target": target.state(), "source": source.state()}


def rows(module, vocabulary):
    """The rows of its token embedding by word."""
    return dict(zip(vocabulary.words, token_embedding(module).weight.detach().clone()))


def test_each_embedding_of_a_translator_keeps_the_rows_of_common_words(kind, saved_translator):
    config, base, folder = saved_translator(GERMAN, ENGLISH)
    target = Vocabulary(["in", "kreis", "blau", "circle", "ein"])
    source = Vocabulary(["circle", "kreis", "in", "blue", "green", "a"])
    model = build_model(translator(kind, target, source))

    def both_rows(network, targets, sources):
        return rows(network.decoder, targets), rows(network.encoders["source"], sources)

    new = both_rows(model, target, source)
    old = both_rows(base, GERMAN, ENGLISH)
    prepare_for_finetuning(model, {"target": target, "source": source}, str(folder))
    now = both_rows(model, target, source)
    for i, common in enumerate([{"in", "kreis", "ein"}, {"circle", "in", "a"}]):
        common = common | {"<pad>", "<bos>", "<eos>", "<unk>"}
        assert len(now[i]) > len(common) + 1
        for word, row in now[i].items():
            expected = old[i] if word in common else new[i]
            assert_close(row, expected[word], rtol=0, atol=0)
    state = base.state_dict()
    others = [name for name in state if "embedding" not in name and name != "decoder.bias"]
    for name in others:
        assert_close(model.state_dict()[name], state[name], rtol=0, atol=0)


def test_larger_joint_vocabulary_keeps_its_rows_and_stays_joint(kind, saved_translator):
    config, base, folder = saved_translator(GERMAN, GERMAN, joint_vocabulary=True)
    more = Vocabulary(["blau", *GERMAN.state()[::-1], "circle"])
    model = build_model(translator(kind, more, more, joint_vocabulary=True))
    prepare_for_finetuning(model, {"target": more, "source": more}, str(folder))
    assert token_embedding(model.encoders["source"]).weight is token_embedding(model.decoder).weight
    now = rows(model.decoder, more)
    old = rows(base.decoder, GERMAN)
    assert len(now) == len(old) + 2
    for word, row in old.items():
        assert_close(now[word], row, rtol=0, atol=0)


def test_lora_run_trains_only_embeddings_with_new_words(kind, saved_translator):
    config, _, folder = saved_translator(GERMAN, ENGLISH)
    more = Vocabulary([*ENGLISH.state(), "green"])
    model = build_model(translator(kind, GERMAN, more))
    prepare_for_finetuning(model, {"target": GERMAN, "source": more}, str(folder), lora=2)
    trained = set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "lora" not in name:
            trained.add(name.removesuffix(".weight").removesuffix(".words"))
    assert trained == {"encoders.source.embedding"}


@pytest.mark.parametrize(
    "kind",
    ["a list", "weights alone", "another option", "another encoder", "another size", "no words"],
)
def test_checkpoint_of_something_else_is_refused_in_one_line(run, kind):
    folder, _, saved = run
    config = saved["model_config"]
    states = {
        "a list": [1, 2],
        "weights alone": saved["model"],
        "another option": saved | {"model_config": config | {"heads": 3}},
        "another encoder": saved
        | {"model_config": config | {"encoders": {"image": {"name": "alexnet"}}}},
        "another size": saved | {"model_config": config | {"embed_dim": 26}},
        "no words": saved | {"vocabularies": {}},
    }
    torch.save(states[kind], folder / "best.pt")
    with pytest.raises(ValueError) as caught:
        load_run(folder)
    assert str(folder / "best.pt") in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_run_is_saved_as_plain_values(run):
    _, model, saved = run
    assert json.loads(json.dumps(saved["vocabularies"])) == saved["vocabularies"]
    keys = {"version", "model", "model_config", "train_config", "vocabularies", "metadata"}
    assert set(saved) == keys
    assert saved["model_config"] == asdict(ModelConfig(**saved["model_config"]))


# -------------------------------------------------------------------------------------------------
# From a run of another task: the encoders that both have, and a decoder of the same shapes.


def answering(kind="lstm", film="source", **image):
    """The config of a model that answers questions, whose question steers the pictures' encoder."""
    return translator(kind, GERMAN, ENGLISH, SMALL_IMAGE | {"film": film} | image)


def moved(model):
    """Every tensor of the model is away from where it starts, running statistics too."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand_like(tensor) + 0.1)
    return model


def start(config, folder, target=GERMAN, source=ENGLISH):
    """A new model, its tensors when it was new, and those when it starts from the run."""
    model = build_model(config)
    new = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prepare_for_finetuning(model, {"target": target, "source": source}, str(folder))
    return model, new, model.state_dict()


@pytest.fixture
def captioner(tmp_path):
    """The folder of a captioner's run, and its tensors."""
    config = ModelConfig(
        len(GERMAN), {"image": SMALL_IMAGE}, {"name": "lstm", "hidden_size": 13}, D
    )
    model = moved(build_model(config))
    save_run(tmp_path, model, config, {"target": GERMAN}, {"task": "captioning"})
    return tmp_path, model.state_dict()


@pytest.mark.parametrize("film", ["", "source"])
def test_answering_starts_from_the_encoder_and_the_decoder_of_a_captioner(film, captioner, capsys):
    folder, old = captioner
    model, new, now = start(answering(film=film), folder)
    for name, tensor in now.items():
        expected = old if name in old else new
        assert_close(tensor, expected[name], rtol=0, atol=0, msg=lambda text: f"{name}: {text}")
    assert "encoders.image.backbone.bn1.running_mean" in old and old.keys() < now.keys()
    assert ("encoders.image.film.linear.weight" in now) == bool(film)
    assert all(parameter.requires_grad for parameter in model.parameters())
    printed = capsys.readouterr().out
    assert printed == f"from {folder}: encoders.image and decoder\nall else is new\n"


@pytest.mark.parametrize("decoder", [{"hidden_size": 17}, {"name": "transformer"}], ids=str)
def test_decoder_of_other_shapes_stays_new(decoder, captioner, capsys):
    folder, old = captioner
    config = answering()
    config.decoder = SIZES.get(decoder.get("name"), {}) | {"name": "lstm"} | decoder
    _, new, now = start(config, folder)
    for name, tensor in now.items():
        expected = old if name in old and name.startswith("encoders.") else new
        assert_close(tensor, expected[name], rtol=0, atol=0)
    assert capsys.readouterr().out == f"from {folder}: encoders.image\nall else is new\n"


def test_words_of_a_shared_decoder_keep_their_rows(captioner):
    folder, old = captioner
    target = Vocabulary(["grün", "kreis", "rot"])
    config = translator("lstm", target, ENGLISH)
    model, new, _ = start(config, folder, target)
    now = dict(zip(target.words, model.decoder.embedding.weight))
    for word in ("kreis", "rot", "<eos>"):
        row = old["decoder.embedding.weight"][GERMAN.words.index(word)]
        assert_close(now[word].detach(), row, rtol=0, atol=0)
    row = new["decoder.embedding.weight"][target.words.index("grün")]
    assert_close(now["grün"].detach(), row, rtol=0, atol=0)


def test_film_stays_new(captioner):
    folder, _ = captioner
    model, _, now = start(answering(), folder)
    assert (now["encoders.image.film.linear.weight"] == 0).all()
    pictures = torch.randint(256, (2, 3, 37, 37), dtype=torch.uint8)
    base, _, _ = load_run(folder)
    steered = model.eval().encoders["image"](pictures, torch.randn(2, D))
    assert_close(tuple(steered), tuple(base.encoders["image"](pictures)), rtol=0, atol=0)


def test_words_of_a_shared_encoder_keep_their_rows(kind, tmp_path, capsys):
    """From text alone to text with pictures: the encoder of the source is in both."""
    config = translator(kind, GERMAN, GERMAN, image=None)
    base = moved(build_model(config))
    save_run(tmp_path, base, config, {"target": GERMAN, "source": GERMAN}, {})
    old = base.state_dict()
    old_rows = rows(base.encoders["source"], GERMAN)
    model, new, now = start(answering(kind), tmp_path)
    now_rows = rows(model.encoders["source"], ENGLISH)
    embedding = "encoders.source.embedding"
    for word in ("a", "in", "rot", "<eos>"):
        assert_close(now_rows[word], old_rows[word], rtol=0, atol=0)
    for name, tensor in now.items():
        if not name.startswith(embedding):
            expected = new if name.startswith("encoders.image.") else old
            assert_close(tensor, expected[name], rtol=0, atol=0)
    number = ENGLISH.words.index("circle")
    new_rows = [tensor for name, tensor in new.items() if name.startswith(embedding)][0]
    assert_close(now_rows["circle"], new_rows[number], rtol=0, atol=0)
    assert ": encoders.source and decoder\nall else is new" in capsys.readouterr().out


def test_both_encoders_are_shared_with_a_third(kind, tmp_path, capsys):
    config = translator(kind, GERMAN, ENGLISH)
    config.encoders["sound"] = SMALL_IMAGE
    base = moved(build_model(config))
    save_run(tmp_path, base, config, {"target": GERMAN, "source": ENGLISH}, {})
    _, _, now = start(answering(kind, film=""), tmp_path)
    for name, tensor in now.items():
        assert_close(tensor, base.state_dict()[name], rtol=0, atol=0)
    printed = capsys.readouterr().out
    assert ": encoders.image and encoders.source and decoder\nall else is new" in printed


@pytest.mark.parametrize("captioner_first", [True, False])
def test_parts_come_from_several_runs(captioner, tmp_path, captioner_first, capsys):
    folder, captions = captioner
    config = translator("lstm", GERMAN, ENGLISH)
    other = moved(build_model(config))
    save_run(tmp_path / "other", other, config, {"target": GERMAN, "source": ENGLISH}, {})
    config = translator("lstm", GERMAN, ENGLISH)
    config.encoders["sound"] = SMALL_IMAGE
    folders = [str(folder), str(tmp_path / "other")]
    owners = [captions, other.state_dict()]
    parts = ["encoders.image and decoder", "encoders.image and encoders.source and decoder"]
    if not captioner_first:
        folders, owners, parts = folders[::-1], owners[::-1], parts[::-1]
    _, new, now = start(config, ",".join(folders))
    for name, tensor in now.items():
        expected = next((owner for owner in owners if name in owner), new)
        assert_close(tensor, expected[name], rtol=0, atol=0, msg=lambda text: f"{name}: {text}")
    lines = [f"from {name}: {taken}" for name, taken in zip(folders, parts)]
    assert capsys.readouterr().out.splitlines() == [*lines, "all else is new"]


def test_lora_changes_one_run_only(captioner):
    folder, _ = captioner
    model = build_model(answering())
    vocabularies = {"target": GERMAN, "source": ENGLISH}
    with pytest.raises(ValueError, match="^a LoRA would change one run, not several: "):
        prepare_for_finetuning(model, vocabularies, f"{folder},{folder}", lora=2)


def one_line_of(config, folder):
    """The message of the ValueError that refuses to start from the run; it has one line."""
    with pytest.raises(ValueError) as caught:
        start(config, folder)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and str(folder) in message
    return message


def test_run_without_a_shared_encoder_is_refused_in_one_line(captioner, capsys):
    folder, _ = captioner
    message = one_line_of(translator("lstm", GERMAN, ENGLISH, image=None), folder)
    assert message == f"{folder} has encoders for image, and this model for source"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("change", [{"width": 7}, {"depth": (1, 1, 1)}], ids=str)
def test_shared_encoder_of_another_shape_is_refused_in_one_line(change, captioner, capsys):
    folder, _ = captioner
    assert "do not fit this model" in one_line_of(answering(**change), folder)
    assert capsys.readouterr().out == ""


def test_block_that_the_run_lacks_stays_new(captioner):
    folder, base = captioner
    _, new, now = start(answering(depth=(1, 2)), folder)
    blocks = [name for name in now if ".layer2.1." in name]
    assert blocks
    for name in blocks:
        assert_close(now[name], new[name], rtol=0, atol=0)
    name = "encoders.image.backbone.layer2.0.conv1.weight"
    assert_close(now[name], base[name], rtol=0, atol=0)


def test_captioner_starts_from_the_image_encoder_of_a_steered_model(kind, tmp_path, capsys):
    """Its FiLM is left out: a captioner has no question."""
    config = answering(kind)
    base = moved(build_model(config))
    save_run(tmp_path, base, config, {"target": GERMAN, "source": ENGLISH}, {})
    old = base.state_dict()
    captioner = ModelConfig(
        len(GERMAN), {"image": SMALL_IMAGE}, {"name": "lstm", "hidden_size": 13}, D
    )
    _, new, now = start(captioner, tmp_path)
    assert " without encoders.image.film.linear.weight\nall else" in capsys.readouterr().out
    for name, tensor in now.items():
        expected = old if name.startswith("encoders.image.") or kind == "lstm" else new
        assert_close(tensor, expected[name], rtol=0, atol=0)


def test_film_that_both_have_is_taken(kind, tmp_path):
    config = answering(kind)
    config.encoders["sound"] = SMALL_IMAGE
    base = moved(build_model(config))
    save_run(tmp_path, base, config, {"target": GERMAN, "source": ENGLISH}, {})
    _, _, now = start(answering(kind), tmp_path)
    name = "encoders.image.film.linear.weight"
    assert_close(now[name], base.state_dict()[name], rtol=0, atol=0)


def test_film_stays_new_if_both_runs_have_the_same_encoders(kind, tmp_path, capsys):
    """From a translator with pictures to answering."""
    config = answering(kind, film="")
    base = moved(build_model(config))
    save_run(tmp_path, base, config, {"target": GERMAN, "source": ENGLISH}, {})
    _, new, now = start(answering(kind, film="source"), tmp_path)
    for name, tensor in now.items():
        expected = new if ".film." in name else base.state_dict()
        assert_close(tensor, expected[name], rtol=0, atol=0)
    printed = capsys.readouterr().out
    assert ": encoders.image and encoders.source and decoder\nall else is new" in printed


def test_lora_from_a_run_of_another_task_is_refused_in_one_line(captioner):
    folder, _ = captioner
    model = build_model(answering())
    vocabularies = {"target": GERMAN, "source": ENGLISH}
    with pytest.raises(
        ValueError, match="has other encoders: its decoder is no base for a LoRA$"
    ) as caught:
        prepare_for_finetuning(model, vocabularies, str(folder), lora=2)
    assert len(str(caught.value).splitlines()) == 1


def test_a_lora_that_is_its_own_base_is_refused(tmp_path, monkeypatch):
    """Two runs, each of which says that it is a change of the other."""
    monkeypatch.chdir(tmp_path)
    train_tiny_captioner("runs/lora")
    saved = torch.load("runs/lora/best.pt", weights_only=True)
    saved["train_config"]["lora"] = 2
    for name, base in (("lora", "runs/other"), ("other", "runs/lora")):
        Path("runs", name).mkdir(exist_ok=True)
        saved["train_config"]["start_from"] = base
        torch.save(saved, f"runs/{name}/best.pt")
    with pytest.raises(ValueError, match="a run that is, in the end, itself"):
        load_run("runs/lora")
