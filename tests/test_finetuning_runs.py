"""A run that begins with another run."""

import json
from dataclasses import asdict

import pytest
import torch
from torch.testing import assert_close

from mmscratch.finetuning import adapt, load_run, save_run, vocabularies, words_state
from mmscratch.model import ModelConfig, build_model, table
from mmscratch.reliability import write_atomically
from mmscratch.text import BytePairEncoding, Vocabulary


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder with the best model of a run, that model, and what was written."""
    monkeypatch.setattr("mmscratch.finetuning.pick_device", lambda: torch.device("cpu"))
    config = ModelConfig(7, depth=(1, 1), width=5, image_size=37, embed_dim=22, hidden_size=13)
    model = build_model(config)
    model.encoders["image"].backbone.bn1.running_mean.normal_()
    saved = {
        "model": model.state_dict(),
        "model_config": asdict(config),
        "words": ["a", "red", "circle"],
        "facts": {"data": "x"},
    }
    write_atomically(tmp_path / "best.pt", saved)
    return tmp_path, model, saved


def test_a_run_is_loaded_as_it_was(run):
    folder, model, saved = run
    for where in (folder, str(folder)):
        loaded, vocabulary, checkpoint = load_run(where)
        assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
        assert vocabulary.words[4:] == saved["words"] and not loaded.training
        assert checkpoint["facts"] == {"data": "x"} and checkpoint["model_config"] == saved["model_config"]


def test_a_run_that_was_saved_before_there_were_sources_is_loaded(run):
    folder, model, saved = run
    since = ("source_vocab_size", "source_layers", "joint_vocabulary", "modality_dropout", "feedforward_size")
    old = saved | {"model_config": {name: value for name, value in saved["model_config"].items() if name not in since}}
    write_atomically(folder / "best.pt", old)
    loaded, vocabulary, checkpoint = load_run(folder)
    assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert "source_words" not in old and vocabularies(checkpoint)[1] is None
    assert vocabularies(checkpoint)[0].words == vocabulary.words


ENGLISH, GERMAN = Vocabulary(["a", "red", "circle", "in", "rot"]), Vocabulary(["rot", "ein", "kreis", "in", "a", "und", "ist"])
PIECES = BytePairEncoding.learn([["kreis", "kreise", "kreisel"], ["circle", "circles"]], 7)


@pytest.mark.parametrize("written, read", [(GERMAN, ENGLISH), (PIECES, ENGLISH), (GERMAN, PIECES), (GERMAN, None), (PIECES, None)])
def test_vocabularies_that_are_apart_come_back(written, read):
    state = json.loads(json.dumps(words_state(written, read)))  # plain values only
    first, second = vocabularies(state | {"model_config": {"source_vocab_size": len(read or ())}})
    assert type(first) is type(written) and first.words == written.words and first.state() == written.state()
    assert type(second) is type(read) and (read is None or second.state() == read.state())


@pytest.mark.parametrize("vocabulary", [GERMAN, PIECES], ids=["words", "pieces"])
@pytest.mark.parametrize("joint", [True, False])
def test_one_vocabulary_for_both_is_kept_once_and_comes_back_as_one(vocabulary, joint):
    state = words_state(vocabulary, vocabulary)
    assert state["words"] == vocabulary.state() and state["source_words"] is None
    sizes = {"vocab_size": len(vocabulary), "source_vocab_size": len(vocabulary), "joint_vocabulary": joint}
    first, second = vocabularies(state | {"model_config": sizes})
    assert first is second and first.state() == vocabulary.state()


SEEN = {"depth": (1, 1), "width": 5, "image_size": 37, "embed_dim": 22, "hidden_size": 13, "num_heads": 2}


def translator(written, read, **part):
    return ModelConfig(len(written), source_vocab_size=len(read), **SEEN | part)


@pytest.fixture(params=["lstm", "transformer"])
def saved_translator(request, tmp_path, monkeypatch):
    """Writes a translator's run, and gives its config, its model and the folder."""
    monkeypatch.setattr("mmscratch.finetuning.pick_device", lambda: torch.device("cpu"))

    def make(written, read, **part):
        config = translator(written, read, decoder=request.param, **part)
        model = build_model(config)
        save_run(tmp_path, model, config, written, {"task": "translation"}, read)
        return config, model, tmp_path

    return make


@pytest.mark.parametrize("written, read, part", [
    (GERMAN, ENGLISH, {}), (GERMAN, ENGLISH, {"backbone": ""}), (PIECES, PIECES, {"joint_vocabulary": True}),
], ids=["apart", "no pictures", "joint"])  # fmt: skip
def test_a_translator_is_loaded_as_it_was(written, read, part, saved_translator):
    config, model, folder = saved_translator(written, read, **part)
    loaded, vocabulary, checkpoint = load_run(folder)
    assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert not loaded.training and checkpoint["facts"] == {"task": "translation"}
    assert ModelConfig(**checkpoint["model_config"]) == config
    assert vocabulary.state() == written.state()
    assert [v.state() for v in vocabularies(checkpoint)] == [written.state(), read.state()]


def rows(reader, vocabulary):
    return dict(zip(vocabulary.words, table(reader).weight.detach().clone()))


def test_a_translator_begins_with_another_and_each_table_keeps_the_rows_of_its_own_words(saved_translator):
    config, base, folder = saved_translator(GERMAN, ENGLISH)
    written = Vocabulary(["in", "kreis", "blau", "circle", "ein"])
    read = Vocabulary(["circle", "kreis", "in", "blue", "green", "a"])
    model = build_model(translator(written, read, decoder=config.decoder))
    fresh = [rows(reader, v) for reader, v in ((model.decoder, written), (model.encoders["source"], read))]
    adapt(model, written, str(folder), source_vocabulary=read)
    for now, old, new, common in (
        (rows(model.decoder, written), rows(base.decoder, GERMAN), fresh[0], {"in", "kreis", "ein"}),
        (rows(model.encoders["source"], read), rows(base.encoders["source"], ENGLISH), fresh[1], {"circle", "in", "a"}),
    ):
        common = common | {"<pad>", "<bos>", "<eos>", "<unk>"}
        assert len(now) > len(common) + 1
        for word, row in now.items():
            assert_close(row, (old if word in common else new)[word], rtol=0, atol=0)
    others = [name for name in base.state_dict() if "embedding" not in name and name != "decoder.bias"]
    assert_close({n: model.state_dict()[n] for n in others}, {n: base.state_dict()[n] for n in others}, rtol=0, atol=0)


def test_a_joint_vocabulary_that_has_grown_keeps_its_rows_and_stays_joint(saved_translator):
    config, base, folder = saved_translator(GERMAN, GERMAN, joint_vocabulary=True)
    more = Vocabulary(["blau", *GERMAN.state()[::-1], "circle"])
    model = build_model(translator(more, more, decoder=config.decoder, joint_vocabulary=True))
    adapt(model, more, str(folder), source_vocabulary=more)
    assert table(model.encoders["source"]).weight is table(model.decoder).weight
    now, old = rows(model.decoder, more), rows(base.decoder, GERMAN)
    assert len(now) == len(old) + 2
    for word, row in old.items():
        assert_close(now[word], row, rtol=0, atol=0)


def test_with_a_lora_the_tables_of_other_words_are_trained_and_no_other(saved_translator):
    config, _, folder = saved_translator(GERMAN, ENGLISH)
    more = Vocabulary([*ENGLISH.state(), "green"])
    model = build_model(translator(GERMAN, more, decoder=config.decoder))
    adapt(model, GERMAN, str(folder), 2, source_vocabulary=more)
    trained = {name for name, p in model.named_parameters() if p.requires_grad and "lora" not in name}
    assert {name.removesuffix(".words.weight").removesuffix(".weight") for name in trained} == {"encoders.source.embedding"}


@pytest.mark.parametrize("what", ["a list", "weights alone", "another option", "another size"])
def test_the_checkpoint_of_something_else_is_refused_in_one_line(run, what):
    folder, _, saved = run
    config = saved["model_config"]
    states = {
        "a list": [1, 2],
        "weights alone": saved["model"],
        "another option": saved | {"model_config": config | {"heads": 3}},
        "another size": saved | {"model_config": config | {"width": 7}},
    }
    torch.save(states[what], folder / "best.pt")
    with pytest.raises(ValueError) as caught:
        load_run(folder)
    assert str(folder / "best.pt") in str(caught.value) and len(str(caught.value).splitlines()) == 1
