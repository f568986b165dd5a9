"""Saved runs, and runs that start from another run."""

import json
from dataclasses import asdict

import pytest
import torch
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
    prepare_for_finetuning(model, {"target": GERMAN, "source": more}, str(folder), 2)
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
