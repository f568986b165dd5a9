"""GPT-2 as a decoder: its tokenizer and weights against transformers', and in training."""

import json
import re
import shutil

import pytest
import torch
from command_line import error_of
from hypothesis import given, settings, strategies
from tokenizers import ByteLevelBPETokenizer
from tokenizers.pre_tokenizers import ByteLevel
from torch.testing import assert_close
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

from mmscratch.__main__ import main
from mmscratch.attention import Memory
from mmscratch.finetuning import load_run, vocabularies_from, vocabulary_states
from mmscratch.text import BOS, EOS, SPECIALS, UNK, ByteLevelBPE, Vocabulary, byte_symbols
from mmscratch.transformer import TransformerDecoder
from mmscratch.weights import gpt2_decoder_state, gpt2_settings, gpt2_vocabulary

TEXT = """A small dog runs in the snow, and two dogs don't. We'll see: it's 12 o'clock, 3.5 metres!
Der große Hund läuft; die Katze schläft. 两只狗在雪地里跑。 Un chien, «deux chats»… naïve café 🐶🐕
    indented   lines\tand tabs\r\nthe the the then there they're I'd you've he'll"""
END = "<|endoftext|>"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A folder with a tiny random GPT-2, as transformers saves it."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([TEXT] * 3, vocab_size=400, min_frequency=2, special_tokens=[END])
    tokenizer.save_model(str(folder))
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_embd=24, n_head=2, n_layer=2, n_positions=150
    )
    model = GPT2LMHeadModel(config)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vocabulary(gpt2):
    return gpt2_vocabulary(gpt2)


@pytest.fixture(scope="module")
def theirs(gpt2):
    return GPT2TokenizerFast(str(gpt2 / "vocab.json"), str(gpt2 / "merges.txt"))


def their_numbers(gpt2, vocabulary, text, theirs):
    """The tokens of a text by transformers' tokenizer, under our numbers."""
    return [vocabulary.index[token] for token in theirs.tokenize(text)]


NASTY = [
    "",
    " ",
    "   ",
    "a",
    " a  b   c ",
    "\n\n\n",
    "x\n\n y\t\tz\r\n",
    "don't DON'T we'll they're I'd 'tis ''s 's't",
    "12 345.67 ½ Ⅻ ٣ 一二三",
    "\x00\x01\x1c\x1f\x7f\x85\xa0\u2028\u200b\ufeff",
    "e\u0301 é ﬁ İ ß ẞ",
    "🐶👩‍👩‍👧‍👦🇩🇪",
    "两只狗 مرحبا שלום สวัสดี हिन्दी",
    "\U0010ffff\ue000",
    "_under_score-hyphen…«»",
    "a" * 300,
    TEXT,
]


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_tokens_are_those_of_transformers(gpt2, vocabulary, theirs, text):
    numbers = vocabulary.encode_text(text)
    assert numbers == their_numbers(gpt2, vocabulary, text, theirs)
    assert vocabulary.decode_text(numbers) == text
    expected = list(numbers)
    numbers.append(0)
    assert vocabulary.encode_text(text) == expected  # the cache is not handed out


@settings(max_examples=300, deadline=None)
@given(strategies.text(strategies.characters(exclude_categories=["Cs", "Cn"])))
def test_tokens_of_any_text_are_those_of_transformers(gpt2, vocabulary, theirs, text):
    numbers = vocabulary.encode_text(text)
    assert numbers == their_numbers(gpt2, vocabulary, text, theirs)
    assert vocabulary.decode_text(numbers) == text


def test_the_symbols_of_bytes_are_those_of_tokenizers():
    assert sorted(byte_symbols()) == sorted(ByteLevel.alphabet())
    assert [byte_symbols()[byte] for byte in b"a! "] == ["a", "!", "Ġ"]


def test_text_never_becomes_a_special(vocabulary):
    for special in (END, *SPECIALS):
        numbers = vocabulary.encode_text(special)
        assert min(numbers) >= len(SPECIALS) and vocabulary.decode_text(numbers) == special
    assert END not in vocabulary.words


def test_it_is_a_vocabulary_of_words(vocabulary):
    words = ["two", "dogs", "don't", "run", ",", "一", "3.5", "."]
    numbers = vocabulary.encode(words)
    assert numbers == vocabulary.encode_text(" two dogs don't run,一3.5.")
    assert vocabulary.decode([BOS, *numbers, EOS, 77]) == [
        "two",
        "dogs",
        "don't",
        "run",
        ",",
        "一",
        "3.5",
        ".",
    ]
    states = vocabulary_states({"target": vocabulary})
    again = vocabularies_from(json.loads(json.dumps(states)))["target"]
    assert again.words == vocabulary.words and again.encode_text(TEXT) == vocabulary.encode_text(
        TEXT
    )


def test_half_a_character_becomes_the_replacement_character(vocabulary):
    numbers = vocabulary.encode_text("猫")
    assert vocabulary.decode_text(numbers[:1]) == "\ufffd"


@torch.no_grad()
def test_the_language_model_is_that_of_transformers(gpt2, vocabulary, theirs):
    """Without a picture. What follows <bos> is what follows the end of a text."""
    decoder_settings, embed_dim = gpt2_settings(gpt2)
    assert decoder_settings.pop("name") == "transformer"
    decoder = TransformerDecoder(len(vocabulary), embed_dim, **decoder_settings).eval()
    decoder.load_state_dict(gpt2_decoder_state(gpt2))
    reference = GPT2LMHeadModel.from_pretrained(gpt2).eval()
    text = " two dogs don't run"
    end = theirs.convert_tokens_to_ids(END)
    expected = reference(torch.tensor([[end, *theirs.encode(text)]])).logits[0]  # (T, V)
    ours = decoder(
        torch.tensor([[BOS, *vocabulary.encode_text(text)]]), Memory.empty(1, embed_dim)
    )[0]
    columns = [theirs.convert_tokens_to_ids(token) for token in vocabulary.words[len(SPECIALS) :]]
    assert_close(ours[:, len(SPECIALS) :], expected[:, columns], rtol=1e-4, atol=1e-4)
    for special in range(UNK + 1):
        assert_close(ours[:, special], expected[:, end], rtol=1e-4, atol=1e-4)


def broken(gpt2, tmp_path, name, content):
    folder = tmp_path / "broken"
    shutil.copytree(gpt2, folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize("name, content, says", [
    ("vocab.json", None, "vocab.json: no such file; put config.json, model.safetensors, vocab.json and merges.txt there, from https://"),
    ("merges.txt", None, "merges.txt: no such file; put config.json"),
    ("config.json", None, "config.json: no such file; put config.json"),
    ("config.json", '{"model_type": "bert"}', '"model_type" is \'bert\', not "gpt2"'),
    ("config.json", "{", "config.json: "),
    ("config.json", '{"model_type": "gpt2"}', 'config.json: "vocab_size" is None'),
    ("config.json", '{"model_type": "gpt2", "vocab_size": 9, "n_embd": 2, "n_head": 1, "n_layer": 1000000000, "n_positions": 5}', "in 1,000,000,000 layers, and the files of weights have"),
    ("config.json", '{"model_type": "gpt2", "vocab_size": 1000000000000, "n_embd": 2, "n_head": 1, "n_layer": 1, "n_positions": 5}', "of 2,000,000,000,058 weights in 1 layers"),
    ("vocab.json", "{", "vocab.json: not GPT-2's vocabulary"),
    ("vocab.json", '{"a": 0}', "its tokens lack"),
    ("vocab.json", '{"a": 0, "b": 2}', "its numbers are not 0, 1, 2"),
    ("merges.txt", "a b c", "merges.txt has a line that is not two tokens"),
    ("merges.txt", "q x", "its tokens lack 'qx'"),
    ("model.safetensors", None, "no weights. Put model.safetensors"),
])  # fmt: skip
def test_wrong_files_are_refused_in_one_line(gpt2, tmp_path, name, content, says):
    folder = broken(gpt2, tmp_path, name, content)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(says)) as error:
        gpt2_settings(folder)
        gpt2_vocabulary(folder)
        gpt2_decoder_state(folder)
    assert "\n" not in str(error.value)


def captioner(gpt2, options, to):
    data = "--data scenes --scenes 48 --image-size 32 --batch-size 16 --precision float32"
    return main(f"train {data} --decoder-from {gpt2} {options} --to {to}".split())


def decoder_tensors(run):
    model, _, saved = load_run(run)
    return model, saved, model.decoder.state_dict()


@pytest.mark.parametrize("options", ["", "--freeze decoder", "--lora 2"])
def test_train_with_gpt2_as_the_decoder(gpt2, tmp_path, monkeypatch, capsys, options):
    """All of it is trained, none of it, or a LoRA; what encodes pictures is trained in any case."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmscratch.tasks.captioning.TEST_SCENES", 20)
    assert captioner(gpt2, options, "run") == 0
    model, saved, tensors = decoder_tensors("run")
    assert isinstance(vocabularies_from(saved["vocabularies"])["target"], ByteLevelBPE)
    before = gpt2_decoder_state(gpt2)
    same = [torch.equal(tensors[name], before[name]) for name in before]
    assert all(same) == (options == "--freeze decoder")
    if options == "--lora 2":
        words = tensors["embedding.words.weight"]
        assert torch.equal(words, before["embedding.words.weight"]) and not all(same)
    torch.manual_seed(0)
    assert model.encoders["image"].norm.weight.ne(1).any()
    capsys.readouterr()
    assert main("evaluate run".split()) == 0
    assert "CIDEr-D" in capsys.readouterr().out


def test_gpt2_does_not_go_with_another_decoder(gpt2, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for options in ("--decoder lstm", "--fusion prefix"):
        assert captioner(gpt2, options, "run") == 2
        assert "--decoder-from takes the place of --decoder" in error_of(capsys)
    assert captioner(gpt2, "--task retrieval", "run") == 2
    assert "whose decoder has a vocabulary of its own" in error_of(capsys)
    assert captioner(tmp_path, "", "run") == 2
    assert "config.json: no such file; put config.json, model.safetensors" in error_of(capsys)


def test_texts_longer_than_its_positions_are_refused(gpt2, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "short"
    model = GPT2LMHeadModel(GPT2Config.from_pretrained(gpt2, n_positions=20))
    shutil.copytree(gpt2, folder)
    model.save_pretrained(folder)
    capsys.readouterr()  # transformers shows its progress
    assert captioner(folder, "", "run") == 2
    assert "has 20 positions: too few for the texts" in error_of(capsys)


def test_other_states_are_no_vocabulary():
    with pytest.raises(ValueError, match="not the state of a vocabulary"):
        vocabularies_from({"target": {"byte_level": [1], "merges": []}})
    assert isinstance(vocabularies_from({"target": ["a"]})["target"], Vocabulary)
