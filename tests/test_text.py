"""Text to numbers and back: tokenizers, the vocabulary, and byte pair encoding."""

import gzip
import hashlib
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch

from mmscratch.text import (
    printable,
    BOS,
    EOS,
    MASKED,
    PAD,
    SPECIALS,
    UNK,
    BytePairEncoding,
    Vocabulary,
    caption_tokenize,
    detokenize,
    tokenize,
    vocabulary_from,
)

try:
    from hypothesis import example, given, settings
    from hypothesis import strategies as st
except ImportError:  # not needed to check an exercise: tests that draw their examples are skipped

    class Nothing:
        """Replaces the strategies."""

        def __getattr__(self, name):
            return lambda *_, **__: self

        def __or__(self, other):
            return self

    def settings(**_):
        return pytest.mark.skip(reason="needs hypothesis")

    def given(*_):
        return lambda test: test

    st, example = Nothing(), given

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
        ("एक काला कुत्ता", ["एक", "काला", "कुत्ता"]),
        ("İki köpek", ["i\u0307ki", "köpek"]),
        ("می\u200cدود.", ["می\u200cدود", "."]),
        ("👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥👍🏽🇩🇪🇫🇷", ["👨\u200d👩\u200d👧", "❤\ufe0f\u200d🔥", "👍🏽", "🇩🇪", "🇫🇷"]),
        ("𠀀猫", ["𠀀", "猫"]),
        ("", []),
    ],
)
def test_tokenize(text, tokens):
    assert tokenize(text) == tokens


def test_composed_and_decomposed_umlauts_are_the_same_word():
    text = "Fünf Äpfel über Käthes Größe, naïve Señorita"
    composed = unicodedata.normalize("NFC", text)
    decomposed = unicodedata.normalize("NFD", text)
    assert composed != decomposed
    assert tokenize(composed) == tokenize(decomposed) == composed.lower().replace(",", " ,").split()


@pytest.mark.parametrize(
    "text",
    [
        "don't go, käthe!",
        "is it (really) 3.5 or 1,000?",
        "一只红色的猫，在左边。",
        "图中有a [v] star, [v]!",
        "50%: yes; no...",
    ],
)
def test_detokenize_spaces_tokens_as_people_do(text):
    assert detokenize(tokenize(text)) == detokenize(iter(tokenize(text))) == text


# every one of these is a token by itself
HAN = [
    chr(code)
    for first, last in ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
    for code in range(first, last + 1)
]
PIECES = ["Don't", "it’s", "T-Shirt", "ÄPFEL", "u\u0308", "ß", "Straße", "3", "3.5", "1,000", "一", "只", "猫", "。",
          "，", "！", "《", "》", "（", "）", "[v]", "[V]", "[", "v", "]", "(", ")", "{", "}", ".", ",", "…", "'", "’", "-",
          "%", "_", " ", "\u0301", "\u0338", "=", "<", "が", "か\u3099", "Σ",
          "İ", "<eos>", "\n", "豈", "𠀀", "🐱", "कु", "\u094d", "\u200d", "\u200c", "\ufe0f", "🏽", "👍",
          "🇩", "🇪"]  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.text()
    | st.lists(st.sampled_from(PIECES)).map("".join)
    | st.lists(st.sampled_from(PIECES)).map(" ".join)
)
@example("[ v ]")
@example("3 . 5, 1 , 000")
@example("a ' b - c ’ d")
@example("= \u0338 ( \u0301 。 \u3099 か \u3099")
def test_tokenize_inverts_detokenize(text):
    tokens = tokenize(text)
    assert tokenize(detokenize(tokens)) == tokens


LETTERS = st.characters(categories=["L", "M"], exclude_characters=HAN)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.text(LETTERS, min_size=1).map(lambda s: "ब" + s), min_size=1))
def test_words_of_every_script_stay_whole(words):
    """Unicode's letters, each with its marks: as many words come out, and the text again."""
    text = " ".join(words)
    tokens = tokenize(text)
    assert len(tokens) == len(words)
    assert detokenize(tokens) == unicodedata.normalize("NFC", text.lower())


def test_tokens_contain_the_whole_text_except_spaces():
    text = "Ein großer Hund; (zwei) 猫! 3.5%, <eos> [v]"
    assert "".join(tokenize(text)) == text.lower().replace(" ", "")


def test_specials_come_first():
    assert (PAD, BOS, EOS, UNK) == (0, 1, 2, 3)
    vocabulary = Vocabulary(["a", "b"])
    assert vocabulary.words == ["<pad>", "<bos>", "<eos>", "<unk>", "a", "b"]
    assert len(vocabulary) == 6
    assert vocabulary.encode(["b", "a"]) == [5, 4]


def test_build_sorts_by_frequency_then_alphabetically():
    assert Vocabulary.build(SENTENCES).words[4:] == ["a", "cat", "dog", "and", "bird", "or"]
    assert Vocabulary.build(SENTENCES[::-1]).words == Vocabulary.build(SENTENCES).words
    assert Vocabulary.build(iter(SENTENCES)).words == Vocabulary.build(SENTENCES).words


def test_build_drops_words_below_min_freq():
    assert Vocabulary.build(SENTENCES, min_freq=2).words[4:] == ["a", "cat", "dog"]
    assert Vocabulary.build(SENTENCES, min_freq=5).words[4:] == ["a"]
    assert Vocabulary.build(SENTENCES, min_freq=7).words == list(SPECIALS)


def test_unknown_words_become_unk():
    vocabulary = Vocabulary.build(SENTENCES, min_freq=2)
    ids = vocabulary.encode(["a", "zebra", "dog", "bird"])
    assert ids == [4, UNK, 6, UNK]
    assert vocabulary.decode(ids) == ["a", "<unk>", "dog", "<unk>"]
    assert vocabulary.encode(iter(["a", "zebra"])) == [4, UNK]


@pytest.mark.parametrize("special", SPECIALS)
def test_specials_in_text_are_ordinary_words(special):
    vocabulary = Vocabulary.build([*SENTENCES, ["a", special, "dog"], tokenize(f"a {special} dog")])
    assert vocabulary.words.count(special) == 1
    assert vocabulary.encode(["a", special, "dog"])[1] == UNK
    assert min(vocabulary.encode(tokenize(f"a {special} dog"))) > UNK
    with pytest.raises(ValueError, match="<pad>"):
        Vocabulary(["a", special])


def test_duplicate_words_are_refused():
    with pytest.raises(ValueError, match="different"):
        Vocabulary(["a", "b", "a"])


def test_encode_refuses_a_string():
    with pytest.raises(TypeError):
        Vocabulary(["a", "d"]).encode("a dad")


def test_decode_stops_at_the_first_eos():
    vocabulary = Vocabulary(["a", "b"])
    assert vocabulary.decode([BOS, 4, PAD, 5, EOS, 4, EOS, PAD]) == ["a", "b"]
    assert vocabulary.decode([EOS, 4]) == vocabulary.decode([]) == []
    assert vocabulary.decode([5, 4, 5]) == ["b", "a", "b"]
    assert vocabulary.decode(iter([BOS, 4, 5, EOS, 4])) == ["a", "b"]


def test_decode_inverts_encode():
    vocabulary = Vocabulary.build(SENTENCES)
    for sentence in SENTENCES:
        assert vocabulary.decode([BOS, *vocabulary.encode(sentence), EOS, PAD]) == sentence


# -------------------------------------------------------------------------------------------------
# Pieces of words.

MULTI30K = Path(__file__).parents[2] / "shared/multi30k/data/task1/raw"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# The example of Sennrich et al.
LOWEST = [["low"] * 5, ["lower"] * 2 + ["newest"] * 6, ["widest"] * 3]
ODD = ["", " ", "▁", "▁▁a", "a▁b", "猫", "🐱", "u\u0308", "\ud800", "\udc31", "\x00", "\n", "ﬁ",
       "<0xE4>", "<0x", *SPECIALS]  # fmt: skip


def spelled(encoding, tokens):
    return [encoding.words[i] for i in encoding.encode(tokens)]


def naive_state(sentences, merges):
    """What `BytePairEncoding.learn(...).state()` should be: all pairs are recounted for each merge."""
    tokens = [token for sentence in sentences for token in sentence]
    counts = Counter("".join(tokens))
    characters = sorted(c for c in counts if counts[c] > 1 and c != "▁")
    pieces = ["▁", *characters]
    learned = []
    parts = []
    for token in tokens:
        known = "".join(c if c in characters else "\n" for c in token)  # bytes are never merged
        parts += [list(part) for part in f"▁{known}".split("\n")]
    while len(learned) < merges:
        counts = Counter(pair for part in parts for pair in zip(part, part[1:]))
        frequent = []
        for pair, count in counts.items():
            if count > 1 and "".join(pair) not in (*SPECIALS, *BYTES):
                frequent.append((-count, pieces.index(pair[0]), pieces.index(pair[1]), pair))
        if not frequent:
            break
        *_, best = min(frequent)
        learned.append(list(best))
        pieces.append("".join(best))
        for part in parts:
            for i in range(len(part)):
                if tuple(part[i : i + 2]) == best:
                    part[i : i + 2] = ["".join(best)]
    return {"characters": "".join(characters), "merges": learned}


TOKENS = (
    st.text("abc", max_size=7)
    | st.text("aä▁", max_size=4)
    | st.sampled_from(["<pad>", "<pa", "d>", "d<pad>", *BYTES[:2]])
)


@settings(max_examples=113, deadline=None, derandomize=True)
@given(st.lists(st.lists(TOKENS, max_size=11), max_size=5), st.integers(0, 23))
@example([["aaaaa", "aaaa", "aaa", "aaaaaaaaaaa"]], 23)
@example([["ab", "cd"] * 3, ["ba", "dc"] * 3, ["abcd", "dcba"]], 23)
@example([["x<pad>y", "<pad>", "<0x00><0x00>"] * 2], 23)
def test_learning_agrees_with_a_naive_implementation(sentences, merges):
    assert BytePairEncoding.learn(sentences, merges).state() == naive_state(sentences, merges)


def test_bpe_example_of_the_paper():
    encoding = BytePairEncoding.learn(LOWEST, merges=10)
    merges = encoding.state()["merges"]
    assert merges[:5] == [["e", "s"], ["es", "t"], ["▁", "l"], ["o", "w"], ["▁l", "ow"]]
    assert spelled(encoding, ["lowest", "low"]) == ["▁low", "est", "▁low"]
    characters = "deilnorstw"
    merged = [left + right for left, right in merges]
    assert encoding.words == [*SPECIALS, *BYTES, "▁", *characters, *merged]
    assert len(encoding) == 4 + 256 + 1 + 10 + 10
    assert encoding.encode(["猫"]) == [260, 4 + 0xE7, 4 + 0x8C, 4 + 0xAB]


def test_merges_are_applied_in_the_order_they_were_learned():
    merges = [["b", "c"], ["a", "b"], ["▁", "a"], ["c", "a"], ["bc", "a"]]
    encoding = BytePairEncoding("abc", merges)
    assert spelled(encoding, ["abc"]) == ["▁a", "bc"]
    assert spelled(encoding, ["ab"]) == ["▁", "ab"]
    assert spelled(encoding, ["cab"]) == ["▁", "c", "ab"]
    assert spelled(encoding, ["abca"]) == ["▁a", "bca"]


def assert_as_hugging_face(monkeypatch, sentences, merges, others):
    """The learned merges, including ties, and the pieces of other words."""
    tokenizers = pytest.importorskip("tokenizers")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    ours = BytePairEncoding.learn(sentences, merges)
    learned = ours.state()["merges"]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    first = [*SPECIALS, *BYTES, "▁"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=5 * merges, min_frequency=2, special_tokens=first, show_progress=False
    )
    lines = [" ".join(f"▁{token}" for token in sentence) for sentence in sentences]
    theirs.train_from_iterator(lines, trainer)
    assert len(learned) == merges
    assert learned == json.loads(theirs.to_str())["model"]["merges"][:merges]
    pairs = list(map(tuple, learned))
    model = tokenizers.models.BPE(vocab=ours.index, merges=pairs, byte_fallback=True)
    for word in others:
        assert ours.encode([word]) == [piece.id for piece in model.tokenize(f"▁{word}")], word


def test_bpe_agrees_with_hugging_face(monkeypatch):
    draw = random.Random(0)
    words = ["".join(draw.choices("aaabcdé猫", k=draw.randint(1, 13))) for _ in range(499)]
    sentences = []
    for _ in range(199):
        length = draw.randint(1, 17)
        sentences.append(draw.choices(words[:-97], weights=range(402, 0, -1), k=length))
    others = [*words, "unknown", "a🐱b", "aaaaaaaaa", "\x00é"]
    assert_as_hugging_face(monkeypatch, sentences, 311, others)


@pytest.mark.skipif(not MULTI30K.exists(), reason="no Multi30k")
def test_bpe_agrees_with_hugging_face_on_english_and_german(monkeypatch):
    training = []
    words = set()
    for language in ("en", "de"):
        with gzip.open(MULTI30K / f"val.{language}.gz", "rt", encoding="utf-8") as file:
            sentences = [tokenize(line) for line in file]
        training += sentences[7:]
        words.update(*sentences)
    assert_as_hugging_face(monkeypatch, training, 997, words)


@cache
def learned():
    sentence = tokenize("zwei Hunde, zwei Häuser; two dogs, two houses")
    return BytePairEncoding.learn([*LOWEST, sentence, ODD, ODD[4:]])


@settings(max_examples=157, deadline=None, derandomize=True)
@given(st.lists(st.text(st.characters(), max_size=13) | st.sampled_from([*ODD, "lower", "hunde"])))
@example([])
@example(["lower", *ODD, "".join(ODD), "<eos>"])
@example(["\ud800\udc00", "\udc00\ud800a\udc31\ud800"])
def test_any_tokens_survive_encoding_and_decoding(tokens):
    ids = learned().encode(tokens)
    assert learned().decode([BOS, *ids, EOS, PAD]) == tokens and min(ids, default=4) > UNK
    assert learned().encode(tokens) == ids  # also of tokens that were encoded before


@settings(max_examples=83, deadline=None, derandomize=True)
@given(st.text(st.characters() | st.sampled_from(" ▁<>")))
def test_any_text_survives_encoding_and_decoding(text):
    assert " ".join(learned().decode(learned().encode(text.split(" ")))) == text


@settings(max_examples=97, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 331) | st.integers(4, 261)))
def test_any_generated_ids_can_be_decoded(ids):
    content = ids[: ids.index(EOS)] if EOS in ids else ids
    begins = [learned().words[i][0] == "▁" for i in content if i not in (PAD, BOS)]
    expected = sum(begins)
    if begins and not begins[0]:
        expected += 1  # the first piece always starts a token
    assert len(learned().decode(ids)) == expected


def test_invalid_utf8_becomes_the_replacement_character():
    start = 260
    cat = [4 + byte for byte in "猫".encode()]
    assert learned().decode([start, *cat, *cat[:2], start, *cat]) == ["猫\ufffd", "猫"]
    assert learned().decode([*cat[2:], 4 + 0x41, start, 4 + 0xFF]) == ["\ufffdA", "\ufffd"]
    # no character extends over two tokens
    assert learned().decode([*cat[:1], start, *cat[1:]]) == ["\ufffd", "\ufffd\ufffd"]


def test_rare_and_unprintable_characters_become_bytes():
    sentences = [["aä", "a▁", "a▁"], ["ü", "aü"], ["\n\x00\ud800\udc31\u200d"] * 2]
    encoding = BytePairEncoding.learn(sentences)
    assert encoding.state()["characters"] == "aü"  # ä occurs once
    umlaut = ["<0xC3>", "<0xA4>"]
    mark = ["<0xE2>", "<0x96>", "<0x81>"]
    assert spelled(encoding, ["äü▁"]) == ["▁", *umlaut, "ü", *mark]
    assert encoding.state()["merges"] == [["▁", "a"]]  # bytes that occur twice are not merged


def test_pieces_have_distinct_names():
    for word in (*SPECIALS, *BYTES):
        encoding = BytePairEncoding.learn([[f"x{word}", f"y{word}", word] * 3])
        assert encoding.words.count(word) == 1
        assert len(set(encoding.words)) == len(encoding)
        assert encoding.state()["merges"]
        assert encoding.words.index(word) not in encoding.encode([word, f"x{word}"])


def test_learning_stops_when_no_pair_occurs_twice():
    sentences = [["ab", "ab"], ["ba"]]
    merges = [["▁", "a"], ["▁a", "b"]]
    assert BytePairEncoding.learn(sentences).state()["merges"] == merges
    assert BytePairEncoding.learn(sentences, merges=1).state()["merges"] == merges[:1]
    for sentences in ([["ab"]], []):
        assert BytePairEncoding.learn(sentences).words == [*SPECIALS, *BYTES, "▁"]


def test_learning_ignores_the_order_of_sentences():
    sentences = [[f"{a}{b}{c}"] for a in "xyz" for b in "uvw" for c in "rst"] * 3
    expected = BytePairEncoding.learn(sentences).state()
    assert len(expected["merges"]) > 30
    assert BytePairEncoding.learn(iter(sentences)).state() == expected
    for seed in range(5):
        random.Random(seed).shuffle(sentences)
        assert BytePairEncoding.learn(sentences).state() == expected


def test_learning_does_not_depend_on_the_hash_seed():
    code = (
        "from mmscratch.text import BytePairEncoding;"
        "sentences = [[*'zyxwvu'], ['uvw', 'xyz'] * 2] * 3;"
        "print(BytePairEncoding.learn(sentences).words[261:])"
    )
    printed = set()
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        printed.add(run.stdout)
    assert len(printed) == 1 and "vw" in printed.pop()


def test_bpe_takes_tokens_and_no_string():
    with pytest.raises(TypeError):
        learned().encode("lower")


def test_bpe_has_the_interface_of_a_vocabulary():
    lower = learned().encode(["lower"])
    hunde = learned().encode(["hunde"])
    assert learned().encode(iter(["lower", "hunde"])) == lower + hunde
    assert learned().decode([BOS, *lower, PAD, *hunde, EOS, *lower, EOS, PAD]) == ["lower", "hunde"]
    assert learned().decode(iter([BOS, *lower, EOS, *hunde])) == ["lower"]
    assert learned().decode([EOS, *lower]) == learned().decode([]) == learned().encode([]) == []
    learned().encode(["lower"]).append(UNK)
    assert UNK not in learned().encode(["lower"])  # the cache is not handed out


def test_bpe_can_be_pickled():
    copy = pickle.loads(pickle.dumps(learned()))
    assert copy.words == learned().words
    assert copy.encode(["lowest", *ODD]) == learned().encode(["lowest", *ODD])


@pytest.mark.parametrize(
    "make", [learned, lambda: BytePairEncoding("bca"), lambda: Vocabulary.build([*SENTENCES, ODD])]
)
def test_vocabulary_from_restores_a_state(tmp_path, make):
    vocabulary = make()
    torch.save(vocabulary.state(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    for state in (vocabulary.state(), loaded, json.loads(json.dumps(vocabulary.state()))):
        again = vocabulary_from(state)
        assert type(again) is type(vocabulary)
        assert again.words == vocabulary.words and again.state() == state
        assert again.encode(["lowest", "a", *ODD]) == vocabulary.encode(["lowest", "a", *ODD])


def test_the_state_of_a_vocabulary_is_a_list_of_words():
    assert Vocabulary(["b", "a"]).state() == ["b", "a"]


@pytest.mark.parametrize(
    "state",
    [None, 7, "words", ["a", 7], ["a", "a"], ["<eos>"], {}, {"characters": "ab"}, {"merges": []},
     {"characters": "ab", "merges": [], "more": 1}, {"characters": ["a", "b"], "merges": []},
     {"characters": "ab", "merges": None}, {"characters": "aba", "merges": []}, {"characters": "a▁", "merges": []},
     {"characters": "ab", "merges": ["ab"]},
     *({"characters": "<pad>b", "merges": merges} for merges in (
         [["a"]], [["a", "b", "a"]], [["a", 7]], [["a", ["b"]]], [["a", "c"]], [["ab", "a"], ["a", "b"]],
         [["a", "b"], ["a", "b"]], [["<0xE4>", "<0xE5>"]], [["a", "<eos>"]], [["<pad>", "a"]],
         [["<", "p"], ["<p", "a"], ["<pa", "d"], ["<pad", ">"]], [["a", "b"], ["b", "a"], ["ab", "a"], ["a", "ba"]]))],
)  # fmt: skip
def test_invalid_states_are_refused(state):
    merge = "the merge of .* must join two known pieces to a new one"
    with pytest.raises(ValueError, match=f"vocabulary|characters|{merge}"):
        vocabulary_from(state)


# -------------------------------------------------------------------------------------------------
# The tokenizer of the COCO evaluation against the Java program, whose output is expected here.

FLICKR8K = Path(__file__).parents[2] / "shared/flickr8k/Flickr8k.token.txt"
# The SHA-256 of the Java program's tokens.
JAVA_SHA256 = "8c370c7d1bca91b6136c39a779e3e2fbd788c15ada88b843cdd401132a9c7754"

# A text and its tokens, separated by spaces; \u00a0 is a space within a token.
CASES = {
    "एक कुत्ता घास पर दौड़ रहा है।": "एक कुत्ता घास पर दौड़ रहा है ।",
    "İki köpek": "i̇ki köpek",
    "می\u200cدود؟ نعم، لا۔": "می دود ؟ نعم ، لا ۔",
    "שָׁלוֹם עולם": "שָׁלוֹם עולם",
    "தமிழ் மொழி": "தமிழ் மொழி",
    "一只猫。": "一只猫 。",
    "հայերեն շուն։": "հայերեն շուն ։",
    "": "",
    " \t ": "",
    "Two Zebras graze .": "two zebras graze",
    # contractions
    "I'm in, she'd go, they'll go, you've won, we're in": "i 'm in she 'd go they 'll go you 've won we 're in",
    "don't WON'T can't, isn't. shouldn't've": "do n't wo n't ca n't is n't should n't 've",
    "cannot CANNOT, gonna Gotta lemme gimme wanna.": "can not can not gon na got ta lem me gim me wan na",
    "cannots gonna-be cannot's gonnabe 'tis 'Twas dunno": "cannots gonna-be cannot 's gonnabe 't is 't was dunno",
    "o'clock O'Brien M'Baku ma'am Y'all c'mon": "o'clock o'brien m'baku ma'am y' all c'mon",
    "d'oeuvres li'l ol' boys 'cause": "d'oeuvres li'l ol' boys 'cause",
    "rock 'n' roll, rock 'n roll, fish'n'chips, get 'em": "rock 'n' roll rock 'n roll fish 'n' chips get 'em",
    "'80s '95 '9 o' 'til 'tiller 'sit n'ts": "'80s '95 9 o 'til 'till er sit n'ts",
    "the cow's bell, cows' bells, James's, TV's JOE'S joe'sx": "the cow 's bell cows bells james 's tv 's joe 's joe sx",
    # quotes
    "\"Stop\" he said, ``so'' 'nice day' ' `x` ''s": "stop he said so nice day x s",
    "“Stop” ‘don’t’ it’s we’ll «so» ‹x›": "stop do n't it 's we 'll so x",
    "a 5'10\" man, 6' 2\", a sign: \"'Go'\"": "a 5 10 man 6 2 a sign go",
    "‘‘a’’ n`t can`t &quot;b&quot; it&apos;s": "a n`t ca n`t b it 's",
    # brackets stay, since "-LRB-" in the list of punctuation is in capitals
    "a (red) [old] {new} thing": "a -lrb- red -rrb- -lsb- old -rsb- -lcb- new -rcb- thing",
    "1 < 2 > 0 <b>bold</b><br/> << >> &lt; <3": "1 < 2 > 0 <b> bold </b> <br/> << >> < < 3",
    "smile :) :-( ;D =) :P :p1": "smile :-rrb- :--lrb- ;d =-rrb- :p p1",
    # full stops and dots
    "Wait... what … no.. a.": "wait what no a.",
    "Wait.... wait...5": "wait wait 5",
    "he sits on a...": "he sits on a.",
    "the end.The next;one,two:three?four!five": "the end.the next one two three?four!five",
    "the U.S. the U.S A U.S.A. at 5 p.m. or 6 a.m.": "the u.s. the u.s a u.s.a. at 5 p.m. or 6 a.m.",
    "Mr. and Mrs. Li of St. Kim Ave. near Mt. Fir, etc.": "mr. and mrs. li of st. kim ave. near mt. fir etc.",
    "on Mon. or Thurs. vs. Co. Ltd., Inc. Jr.": "on mon. or thurs. vs. co. ltd. inc. jr.",
    "Miss. miss. Ill. ill. Wash. wash. Mass. mass.": "miss. miss ill. ill wash. wash mass. mass",
    "Ore. ore. Ariz. ariz. Az. az. Ark. ark.": "ore. ore ariz. ariz. az. az ark. ark",
    "say no. No. 5 nos. 1 fig. 2 pp. 3 ca. 1900 figs.": "say no no. 5 nos. 1 fig. 2 pp. 3 ca. 1900 figs",
    "lbs. in. min. Sun. Sat. May. oz.": "lbs in min sun sat may oz",
    "plan B. The man. plan C. a man, plan D. It": "plan b the man plan c. a man plan d it",
    "T. Mr. X. Red Ph.D. mr.smith etc.so St. St": "t mr. x. red ph.d. mr.smith etc.so st. st",
    "dog., well-known.; AT&T., 20th.: 3.5.,": "dog. well-known. at&t. 20th. 3.5",
    "!! ?! !? a! b? ! ? . , ; : - -- --- ---- -----": "!! ?! !? a b -----",
    # hyphens, dashes and slashes
    "a T-shirt, a 2-year-old, a well‐known café-bar, rock_roll": "a t-shirt a 2-year-old a well‐known café-bar rock_roll",
    "U.S.-made anti-U.S. 1.5-inch 1,000-pound": "u.s.-made anti-u.s. 1.5-inch 1,000-pound",
    "red- -blue x-5.5 x-y.z ex-naïve x-5_d": "red blue x-5 .5 x-y z ex-naïve x-5_d",
    "one--two – three—four ― five - six ---- _ a_b __": "one two three four five six _ a_b __",
    "and/or black/white a/b/c/d w/o red-and-blue/green": "and/or black/white a/b/c / d w/o red-and-blue/green",
    "// a / b café/bar": "/ / a / b café / bar",
    "d'Arc-like l'eau-de O’Neil-s": "d'arc-like l'eau-de o’neil-s",
    # numbers and money
    "1,000 3.5 .5 10:30 12:30pm 20th 1980s 1980's 4x4 5K 49ers": "1,000 3.5 .5 10:30 12:30 pm 20th 1980s 1980 's 4x4 5k 49ers",
    "-5 +5 2-5 1. 7, 2010-12-25 12/25/2010 10/12/13": "-5 +5 2-5 1 7 2010-12-25 12/25/2010 10/12/13",
    "1/2 mile, 1 1/2 cups, 1-1/2 1/2-mile ½ 1½ ¾ ⅔ ⅘": "1/2 mile 1\u00a01/2 cups 1-1/2 1/2-mile 1/2 1 1/2 3/4 2/3 ⅘",
    "$5 US$5 us$5 50% #3 €5 £5 5¢ ¥5 $ # %": "$ 5 us$ 5 us $ 5 50 % # 3 $ 5 # 5 5 cents ¥ 5 $ # %",
    "call (555) 555-1234 or 555-123-4567 555-1234": "call -lrb-555-rrb-\u00a0555-1234 or 555-123-4567\u00a0555 -1234",
    # the web
    "see http://a.org/b?c=d. www.foo.com, Foo.com! me@home.org.": "see http://a.org/b?c=d www.foo.com foo.com me@home.org",
    "@me @me_2 #tag #tag_two #3 @ # ## a@ @@": "@me @me_2 #tag #tag _ two # 3 @ # ## a @ @@",
    "R&B AT&T AT&amp;T at&t a&b cats &amp; dogs": "r&b at&t at&t at & t a & b cats & dogs",
    "& &#39; &nbsp; C++ c# a+b A+B": "& &#39; c++ c# a + b a+b",
    # other letters, spaces and signs
    "Él come ñandú über ÉTÉ e\u0301te\u0301 日本 x² H₂O": "él come ñandú über été e\u0301te\u0301 日本 x ² h ₂ o",
    "a\u00a0b\tc\u3000d\u200be\u00adf\ufeffg": "a b c d ef g",
    "a\nb, 1\n1/2": "a b 1\u00a01/2",
    "90°F © × + = == * ** ^ | \\ • → ™ ¿ ¡": "90 ° f © × + = = = * ** ^ | \\ • → ™ ¿ ¡",
    "a dog 😀🐕 runs\x07 ☺ ❤\ufe0f": "a dog runs ☺ ❤",
}


@pytest.mark.parametrize("text", CASES)
def test_caption_tokenize_agrees_with_java(text):
    assert caption_tokenize(text) == CASES[text].split(" ") * (text.strip() != "")


def test_caption_tokenize_agrees_with_java_on_random_captions(monkeypatch):
    tokenizer = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer").PTBTokenizer()
    if not shutil.which("java"):
        pytest.skip("no java")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dfile.encoding=UTF-8")  # in any locale
    draw = random.Random(0)
    pieces = " ".join(CASES).split() + "a man The dog runs in of red Two people.".split()
    texts = [*CASES, *(" ".join(draw.choices(pieces, k=draw.randint(1, 9))) for _ in range(700))]
    # A third caption in between: in Java, a single letter at the end depends on the next caption.
    captions = {i: [{"caption": text}, {"caption": "between"}] for i, text in enumerate(texts)}
    java = tokenizer.tokenize(captions)
    for i, text in enumerate(texts):
        assert java[i] == [" ".join(caption_tokenize(text)), "between"], text


@pytest.mark.skipif(not FLICKR8K.exists(), reason="no Flickr8k")
def test_caption_tokenize_agrees_with_java_on_flickr8k():
    file = FLICKR8K.read_text(encoding="utf-8")
    captions = [line.split("\t", 1)[1] for line in file.splitlines()]
    lines = "\n".join(" ".join(caption_tokenize(caption)) for caption in captions)
    assert len(captions) == 35000
    assert hashlib.sha256(lines.encode()).hexdigest() == JAVA_SHA256


@pytest.mark.parametrize("wrong", [None, b"a dog", ["a dog"], 3])
def test_caption_tokenize_refuses_anything_but_a_string(wrong):
    message = "takes one caption, a string, not .*: call it for each caption"
    with pytest.raises(TypeError, match=message):
        caption_tokenize(wrong)


def test_printable_leaves_every_script_alone_and_escapes_what_steers_a_terminal():
    for text in ("ein roter Stern", "狗", "می‌دود", "👩‍👩‍👧", "naïve – “quoted”", "a b"):
        assert printable(text) == text
    assert printable("a\x1b[31mb\nc\td\u202ee\udce4\x9bf") == (
        "a\\x1b[31mb\\nc\\td\\u202ee\\udce4\\x9bf"
    )
    assert printable(ValueError("two\nlines")) == "two\\nlines"
