"""Words to numbers and back: the tokenizer against a property, the vocabulary against its promises."""

import json
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmscratch.text import BOS, EOS, MASKED, PAD, SPECIALS, UNK, Vocabulary, detokenize, tokenize

SENTENCES = [["a", "dog", "and", "a", "cat"], ["a", "cat", "or", "a", "dog"], ["a", "bird"]]


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("A Dog RUNS", ["a", "dog", "runs"]),
        ("Don't go, Käthe!", ["don't", "go", ",", "käthe", "!"]),
        ("  two\n\tlines  ", ["two", "lines"]),
        ("(red,blue)", ["(", "red", ",", "blue", ")"]),
        ('"why?" - "so..."', ['"', "why", "?", '"', "-", '"', "so", ".", ".", ".", '"']),
        ("T-Shirt, Vater-und-Sohn", ["t-shirt", ",", "vater-und-sohn"]),
        ("l’été 'quoted'", ["l’été", "'", "quoted", "'"]),
        ("3.5 of 1,000. 7,", ["3.5", "of", "1,000", ".", "7", ","]),
        ("the 2nd, 3D", ["the", "2nd", ",", "3d"]),
        ("ÄPFEL, Öl, Übung, Größe", ["äpfel", ",", "öl", ",", "übung", ",", "größe"]),
        ("一只红色的猫。", ["一", "只", "红", "色", "的", "猫", "。"]),
        ("2只cat、狗", ["2", "只", "cat", "、", "狗"]),
        ("a [v] star", ["a", MASKED, "star"]),
        ("ein [V]Stern[v]", ["ein", MASKED, "stern", MASKED]),
        ("[x] v", ["[", "x", "]", "v"]),
        ("<eos>", ["<", "eos", ">"]),
        ("", []),
    ],
)
def test_tokenize(text, tokens):
    assert tokenize(text) == tokens


def test_both_spellings_of_an_umlaut_are_the_same_word():
    text = "Fünf Äpfel über Käthes Größe, naïve Señorita"
    composed, decomposed = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    assert composed != decomposed
    assert tokenize(composed) == tokenize(decomposed) == composed.lower().replace(",", " ,").split()


@pytest.mark.parametrize(
    "text",
    ["don't go, käthe!", "is it (really) 3.5 or 1,000?", "一只红色的猫，在左边。", "图中有a [v] star, [v]!", "50%: yes; no..."],
)
def test_detokenize_writes_as_a_person_would(text):
    assert detokenize(tokenize(text)) == text


PIECES = ["Don't", "it’s", "T-Shirt", "ÄPFEL", "u\u0308", "ß", "Straße", "3", "3.5", "1,000", "一", "只", "猫", "。",
          "，", "！", "《", "》", "（", "）", "[v]", "[V]", "[", "v", "]", "(", ")", "{", "}", ".", ",", "…", "'", "’", "-",
          "%", "_", " ", "\u0301", "\u0338", "=", "<", "が", "か\u3099", "Σ",
          "İ", "<eos>", "\n", "豈", "𠀀", "🐱"]  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join) | st.lists(st.sampled_from(PIECES)).map(" ".join))
@example("[ v ]")
@example("3 . 5, 1 , 000")
@example("a ' b - c ’ d")
@example("= \u0338 ( \u0301 。 \u3099 か \u3099")
def test_what_is_joined_is_split_again_in_the_same_way(text):
    tokens = tokenize(text)
    assert tokenize(detokenize(tokens)) == tokens


def test_tokens_hold_all_of_the_text_but_spaces():
    text = "Ein großer Hund; (zwei) 猫! 3.5%, <eos> [v]"
    assert "".join(tokenize(text)) == text.lower().replace(" ", "")


def test_the_specials_come_first():
    assert (PAD, BOS, EOS, UNK) == (0, 1, 2, 3)
    vocabulary = Vocabulary(["a", "b"])
    assert vocabulary.words == ["<pad>", "<bos>", "<eos>", "<unk>", "a", "b"]
    assert len(vocabulary) == 6
    assert vocabulary.encode(["b", "a"]) == [5, 4]


def test_build_orders_by_frequency_then_by_spelling():
    assert Vocabulary.build(SENTENCES).words[4:] == ["a", "cat", "dog", "and", "bird", "or"]
    assert Vocabulary.build(SENTENCES[::-1]).words == Vocabulary.build(SENTENCES).words


def test_build_keeps_what_is_frequent_enough():
    assert Vocabulary.build(SENTENCES, min_freq=2).words[4:] == ["a", "cat", "dog"]
    assert Vocabulary.build(SENTENCES, min_freq=5).words[4:] == ["a"]
    assert Vocabulary.build(SENTENCES, min_freq=7).words == list(SPECIALS)


def test_an_unknown_word_is_unk():
    vocabulary = Vocabulary.build(SENTENCES, min_freq=2)
    ids = vocabulary.encode(["a", "zebra", "dog", "bird"])
    assert ids == [4, UNK, 6, UNK]
    assert vocabulary.decode(ids) == ["a", "<unk>", "dog", "<unk>"]


@pytest.mark.parametrize("special", SPECIALS)
def test_a_special_in_a_text_is_only_a_word(special):
    vocabulary = Vocabulary.build([*SENTENCES, ["a", special, "dog"], tokenize(f"a {special} dog")])
    assert vocabulary.words.count(special) == 1
    assert vocabulary.encode(["a", special, "dog"])[1] == UNK
    assert min(vocabulary.encode(tokenize(f"a {special} dog"))) > UNK
    with pytest.raises(ValueError, match="<pad>"):
        Vocabulary(["a", special])


def test_a_word_twice_is_refused():
    with pytest.raises(ValueError, match="different"):
        Vocabulary(["a", "b", "a"])


def test_encode_refuses_a_string():
    with pytest.raises(TypeError, match="tokenize"):
        Vocabulary(["a", "d"]).encode("a dad")


def test_decode_stops_at_the_first_eos():
    vocabulary = Vocabulary(["a", "b"])
    assert vocabulary.decode([BOS, 4, PAD, 5, EOS, 4, EOS, PAD]) == ["a", "b"]
    assert vocabulary.decode([EOS, 4]) == vocabulary.decode([]) == []
    assert vocabulary.decode([5, 4, 5]) == ["b", "a", "b"]


def test_encode_then_decode_gives_the_sentence_back():
    vocabulary = Vocabulary.build(SENTENCES)
    for sentence in SENTENCES:
        assert vocabulary.decode([BOS, *vocabulary.encode(sentence), EOS, PAD]) == sentence


def test_save_and_load(tmp_path):
    vocabulary = Vocabulary.build([tokenize("Ein großer roter Stern; 一只猫, “so”…"), ["two words", "\n", '"', ""]])
    vocabulary.save(tmp_path / "words.json")
    assert Vocabulary.load(tmp_path / "words.json").words == vocabulary.words
    assert Vocabulary.load(str(tmp_path / "words.json")).index == vocabulary.index


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"a\nb\n", b"\xff\xfe[", b'{"a": 4}', b'"words"', b"7", b'["a", 7]', b'["a", null]', b'["a", "a"]',
     json.dumps(["a", "<eos>"]).encode(), json.dumps([*SPECIALS, "a"]).encode()],
)  # fmt: skip
def test_a_bad_file_is_named(tmp_path, content):
    path = tmp_path / "words.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="words.json"):
        Vocabulary.load(path)
