"""A run that begins with another run."""

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
from mmscratch.model import ModelConfig, build_model, table
from mmscratch.text import BytePairEncoding, Vocabulary

SEEN = IMAGE | {"depth": (1, 1), "image_size": 37}
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
    """A folder with the best model of a run, that model, and what was written."""
    config = ModelConfig(7, {"image": SEEN}, {"name": "lstm", "hidden_size": 13}, D)
    model = build_model(config)
    model.encoders["image"].backbone.bn1.running_mean.normal_()
    save_run(tmp_path, model, config, {"target": Vocabulary(["a", "red", "circle"])}, {"data": "x"})
    return tmp_path, model, read_checkpoint(tmp_path / "best.pt")


def test_a_run_is_loaded_as_it_was(run):
    folder, model, saved = run
    for where in (folder, str(folder)):
        loaded, vocabularies, checkpoint = load_run(where)
        assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
        assert vocabularies.keys() == {"target"} and vocabularies["target"].words[4:] == [
            "a",
            "red",
            "circle",
        ]
        assert not loaded.training
        assert (
            checkpoint["metadata"] == {"data": "x"}
            and checkpoint["model_config"] == saved["model_config"]
        )
        assert checkpoint["version"] == VERSION


@pytest.mark.parametrize("version", [None, 1, VERSION + 1])
def test_a_run_of_another_layout_is_refused_in_one_line_that_says_what_to_do(version, run):
    folder, _, saved = run
    other = {name: value for name, value in saved.items() if name != "version"}
    if version is not None:
        other["version"] = version
    torch.save(other, folder / "best.pt")
    for read in (
        lambda: load_run(folder),
        lambda: prepare_for_finetuning(build_model(ModelConfig(7)), {}, str(folder)),
    ):
        with pytest.raises(
            ValueError, match=f"is of layout {version or 1}.*reads layout {VERSION}: train it again"
        ) as caught:
            read()
        assert (
            str(folder / "best.pt") in str(caught.value)
            and len(str(caught.value).splitlines()) == 1
        )


ENGLISH, GERMAN = (
    Vocabulary(["a", "red", "circle", "in", "rot"]),
    Vocabulary(["rot", "ein", "kreis", "in", "a", "und", "ist"]),
)
PIECES = BytePairEncoding.learn([["kreis", "kreise", "kreisel"], ["circle", "circles"]], 7)


@pytest.mark.parametrize(
    "written, read",
    [(GERMAN, ENGLISH), (PIECES, ENGLISH), (GERMAN, PIECES), (GERMAN, None), (PIECES, None)],
)
def test_vocabularies_that_are_apart_come_back(written, read):
    vocabularies = {"target": written} | ({"source": read} if read else {})
    states = json.loads(json.dumps(vocabulary_states(vocabularies)))  # plain values only
    back = vocabularies_from(states)
    assert back.keys() == vocabularies.keys()
    for name, vocabulary in vocabularies.items():
        assert type(back[name]) is type(vocabulary)
        assert back[name].words == vocabulary.words and back[name].state() == vocabulary.state()


@pytest.mark.parametrize("vocabulary", [GERMAN, PIECES], ids=["words", "pieces"])
def test_one_vocabulary_for_both_is_kept_once_and_comes_back_as_one(vocabulary):
    states = vocabulary_states({"source": vocabulary, "target": vocabulary})
    assert states == {"source": "target", "target": vocabulary.state()}
    back = vocabularies_from(json.loads(json.dumps(states)))
    assert back["source"] is back["target"] and back["target"].state() == vocabulary.state()


def translator(kind, written, read, image=SEEN, **settings):
    """The config of a tiny translator, with pictures or, with image=None, without."""
    encoders = {"image": image} if image else {}
    encoders["source"] = {"name": kind, "vocab_size": len(read)} | SIZES[kind]
    return ModelConfig(len(written), encoders, {"name": kind} | SIZES[kind], D, **settings)


@pytest.fixture(params=["lstm", "transformer"])
def kind(request):
    return request.param


@pytest.fixture
def saved_translator(kind, tmp_path):
    """Writes a translator's run, and gives its config, its model and the folder."""

    def make(written, read, **settings):
        config = translator(kind, written, read, **settings)
        model = build_model(config)
        save_run(
            tmp_path, model, config, {"target": written, "source": read}, {"task": "translation"}
        )
        return config, model, tmp_path

    return make


@pytest.mark.parametrize("written, read, settings", [
    (GERMAN, ENGLISH, {}), (GERMAN, ENGLISH, {"image": None}), (PIECES, PIECES, {"joint_vocabulary": True}),
], ids=["apart", "no pictures", "joint"])  # fmt: skip
def test_a_translator_is_loaded_as_it_was(written, read, settings, saved_translator):
    config, model, folder = saved_translator(written, read, **settings)
    loaded, vocabularies, checkpoint = load_run(folder)
    assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert not loaded.training and checkpoint["metadata"] == {"task": "translation"}
    assert ModelConfig(**checkpoint["model_config"]) == config
    assert {name: vocabulary.state() for name, vocabulary in vocabularies.items()} == {
        "target": written.state(),
        "source": read.state(),
    }


def rows(reader, vocabulary):
    return dict(zip(vocabulary.words, table(reader).weight.detach().clone()))


def test_a_translator_begins_with_another_and_each_table_keeps_the_rows_of_its_own_words(
    kind, saved_translator
):
    config, base, folder = saved_translator(GERMAN, ENGLISH)
    written = Vocabulary(["in", "kreis", "blau", "circle", "ein"])
    read = Vocabulary(["circle", "kreis", "in", "blue", "green", "a"])
    model = build_model(translator(kind, written, read))
    fresh = [
        rows(reader, v)
        for reader, v in ((model.decoder, written), (model.encoders["source"], read))
    ]
    prepare_for_finetuning(model, {"target": written, "source": read}, str(folder))
    for now, old, new, common in (
        (
            rows(model.decoder, written),
            rows(base.decoder, GERMAN),
            fresh[0],
            {"in", "kreis", "ein"},
        ),
        (
            rows(model.encoders["source"], read),
            rows(base.encoders["source"], ENGLISH),
            fresh[1],
            {"circle", "in", "a"},
        ),
    ):
        common = common | {"<pad>", "<bos>", "<eos>", "<unk>"}
        assert len(now) > len(common) + 1
        for word, row in now.items():
            assert_close(row, (old if word in common else new)[word], rtol=0, atol=0)
    others = [
        name for name in base.state_dict() if "embedding" not in name and name != "decoder.bias"
    ]
    assert_close(
        {n: model.state_dict()[n] for n in others},
        {n: base.state_dict()[n] for n in others},
        rtol=0,
        atol=0,
    )


def test_a_joint_vocabulary_that_has_grown_keeps_its_rows_and_stays_joint(kind, saved_translator):
    config, base, folder = saved_translator(GERMAN, GERMAN, joint_vocabulary=True)
    more = Vocabulary(["blau", *GERMAN.state()[::-1], "circle"])
    model = build_model(translator(kind, more, more, joint_vocabulary=True))
    prepare_for_finetuning(model, {"target": more, "source": more}, str(folder))
    assert table(model.encoders["source"]).weight is table(model.decoder).weight
    now, old = rows(model.decoder, more), rows(base.decoder, GERMAN)
    assert len(now) == len(old) + 2
    for word, row in old.items():
        assert_close(now[word], row, rtol=0, atol=0)


def test_with_a_lora_the_tables_of_other_words_are_trained_and_no_other(kind, saved_translator):
    config, _, folder = saved_translator(GERMAN, ENGLISH)
    more = Vocabulary([*ENGLISH.state(), "green"])
    model = build_model(translator(kind, GERMAN, more))
    prepare_for_finetuning(model, {"target": GERMAN, "source": more}, str(folder), 2)
    trained = {
        name for name, p in model.named_parameters() if p.requires_grad and "lora" not in name
    }
    assert {name.removesuffix(".words.weight").removesuffix(".weight") for name in trained} == {
        "encoders.source.embedding"
    }


@pytest.mark.parametrize(
    "what",
    ["a list", "weights alone", "another option", "another encoder", "another size", "no words"],
)
def test_the_checkpoint_of_something_else_is_refused_in_one_line(run, what):
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
    torch.save(states[what], folder / "best.pt")
    with pytest.raises(ValueError) as caught:
        load_run(folder)
    assert str(folder / "best.pt") in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_plain_values_only_are_kept_of_a_run(run):
    _, model, saved = run
    assert json.loads(json.dumps(saved["vocabularies"])) == saved["vocabularies"]
    assert set(saved) == {
        "version",
        "model",
        "model_config",
        "train_config",
        "vocabularies",
        "metadata",
    }
    assert saved["model_config"] == asdict(ModelConfig(**saved["model_config"]))
