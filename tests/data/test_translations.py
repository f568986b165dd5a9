"""Translations: drawn scenes in two languages, and Multi30k."""

import gzip
import itertools
import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch
from grey_pictures import greys, save

from mmscratch.data.captions import SceneCaptions
from mmscratch.data.dataset import Subset
from mmscratch.data.judge import judge
from mmscratch.data.language import LANGUAGES, caption, mask_colours, mask_noun, name_object
from mmscratch.data.scenes import Scene
from mmscratch.data.translations import Multi30k, SceneTranslation, read_lines
from mmscratch.text import MASKED, detokenize, tokenize

REPOSITORY = Path(__file__).parents[2]
OFFICIAL = REPOSITORY.parent / "shared/flickr8k"
OFFICIAL_TRANSLATIONS = REPOSITORY.parent / "shared/multi30k"


@pytest.mark.parametrize("source, target", [*itertools.permutations(LANGUAGES, 2)])
def test_source_and_target_say_the_same_and_are_true(source, target):
    data = SceneTranslation("validation", 61, (source, target), size=0)
    assert (
        len(data) == len(data.columns["source"]) == len(data.references) == 61
        and data.names[3] == "validation 3"
    )
    phrases = []
    for i, (tokens, [translation]) in enumerate(zip(data.columns["source"], data.texts)):
        scene = data.scenes[i]
        assert (
            data.references[i] == [tokenize(translation)]
            and scene.seed == SceneCaptions("validation", 61).scenes[i].seed
        )
        if i % 6 == 5:
            phrases.append(
                [k for k in range(3) if tokens == tokenize(name_object(scene, k, source))]
            )
            assert [k for k in range(3) if translation == name_object(scene, k, target)] == phrases[
                -1
            ]
        else:
            assert tokens == tokenize(caption(scene, i % 5, source)) and translation == caption(
                scene, i % 5, target
            )
            for text, language in ((detokenize(tokens), source), (translation, target)):
                judgement = judge(text, scene, language)
                assert judgement.true and judgement.well_formed
    assert sorted(map(str, phrases)) == sorted(["[0]", "[1]", "[2]"] * 3 + ["[0]"])


def test_the_default_languages_are_english_and_german():
    data = SceneTranslation("train", 7, size=0)
    assert data.columns["source"][1] == tokenize(caption(Scene(1), 1)) and data.texts[1] == [
        caption(Scene(1), 1, "de")
    ]


@pytest.mark.parametrize("source, target", [("en", "de"), ("de", "zh"), ("zh", "en")])
def test_words_are_hidden_in_the_source_only(source, target):
    plain, colours, noun = (
        SceneTranslation("train", 97, (source, target), 0, hidden)
        for hidden in ("", "colours", "noun")
    )
    assert (
        colours.texts == noun.texts == plain.texts
        and colours.references == noun.references == plain.references
    )
    for whole, no_colour, no_noun in zip(
        plain.columns["source"], colours.columns["source"], noun.columns["source"]
    ):
        text, mentions = detokenize(whole), mask_colours(detokenize(whole), source).count(MASKED)
        assert (
            no_colour
            == tokenize(mask_colours(text, source))
            == tokenize(mask_colours(detokenize(no_colour), source))
        )
        assert no_colour.count(MASKED) == mentions and MASKED not in whole
        assert no_noun.count(MASKED) == 1 and no_noun in [
            tokenize(mask_noun(text, which, source)) for which in range(3)
        ]
        for tokens in (no_colour, no_noun):
            assert ("an", MASKED) not in zip(tokens, tokens[1:])
    places = {
        tokenize(mask_noun(detokenize(whole), 0, source)) == masked
        for whole, masked in zip(plain.columns["source"], noun.columns["source"])
    }
    assert places == {True, False}  # not always the first noun


def test_some_hides_each_kind_in_a_third_of_the_sentences():
    plain, some = (SceneTranslation("train", 540, size=0, hidden=hidden) for hidden in ("", "some"))
    of_each, of_phrases = Counter(), Counter()
    for i, (whole, tokens) in enumerate(zip(plain.columns["source"], some.columns["source"])):
        kind = (
            ""
            if tokens == whole
            else "colours"
            if tokens == tokenize(mask_colours(detokenize(whole)))
            else "noun"
        )
        if i % 6 < 5:
            of_each[i % 5, kind] += 1
        else:
            left_out = next(
                k for k in range(3) if whole == tokenize(name_object(plain.scenes[i], k))
            )
            of_phrases[left_out, kind] += 1
    assert of_each == {
        (phrasing, kind): 30 for phrasing in range(5) for kind in ("", "colours", "noun")
    }
    expected = {(left_out, kind): 10 for left_out in (0, 2) for kind in ("", "colours", "noun")}
    assert of_phrases == expected | {
        (1, ""): 20,
        (1, "noun"): 10,
    }  # a phrase without its colour has none to hide
    assert some.texts == plain.texts


def test_scene_translation_has_pictures_unless_size_is_0():
    data, none = SceneTranslation("test", 5, size=23), SceneTranslation("test", 5, size=0)
    assert data.count("image") == 5 and none.count("image") == 0
    assert data.columns["source"] == none.columns["source"] and list(none[3]) == ["source"]
    for i in range(5):
        assert torch.equal(data[i]["image"], SceneCaptions("test", 5, size=23)[i]["image"])


@pytest.mark.parametrize("arguments, says", [
    (("train", 3, ("en", "de"), 0, "nouns"), "`hidden` must be one of .*'noun', 'some'.*not 'nouns'"),
    (("train", 3, ("de", "de")), "'de' is the language of source and target: choose two"),
    (("train", 3, ("en", "fr")), "fr"),
    (("train", 3, ("cs", "en")), "cs"),
    (("val", 3), "no split 'val'"),
])  # fmt: skip
def test_scene_translation_refuses_bad_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        SceneTranslation(*arguments)


ENGLISH = ["Two dogs, running.", "A man's \u2028hat", "  A café  ", "Snow."]
GERMAN = ["Zwei Hunde.", "Ein Hut", "Ein Käfer", "Schnee fällt."]
IMAGES = ["1000.jpg", "20.jpg", "333.jpg", "4.jpg"]


def multi30k(root, split="train", images=None, **languages):
    """The official layout with these files, each a list of lines or its bytes; en_gz is compressed."""
    raw, splits = root / "data/task1/raw", root / "data/task1/image_splits"
    for language, lines in languages.items():
        content = (
            lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
        )
        raw.mkdir(parents=True, exist_ok=True)
        packed = language.endswith("_gz")
        (raw / f"{split}.{language.replace('_', '.')}").write_bytes(
            gzip.compress(content, mtime=0) if packed else content
        )
    if images is not None:
        splits.mkdir(parents=True, exist_ok=True)
        (splits / f"{split}.txt").write_text("".join(f"{name}\n" for name in images))
    return root


@pytest.fixture
def shown(tmp_path):
    """Multi30k with four photographs, of grey 10, 20, 30 and 40, named as in either data set."""
    for i, name in enumerate(["1000.jpg", "20_0a1b.jpg", "333.JPG", "4_99_f.png", "55.jpg"]):
        save(tmp_path / "photographs" / name, 10 * (i + 1))
    return multi30k(tmp_path, en=ENGLISH, de=GERMAN, images=IMAGES)


@pytest.mark.parametrize(
    "start, end", [("", "\n"), ("", "\r\n"), ("\ufeff", "\n"), ("\ufeff", "\r\n")]
)
@pytest.mark.parametrize("packed", ["", "_gz"], ids=["plain", "packed"])
def test_multi30k_is_read_plain_and_compressed(packed, start, end, tmp_path):
    files = {
        "en" + packed: (start + end.join(ENGLISH) + end * (end == "\n")).encode(),
        "de": GERMAN,
    }
    data = Multi30k(multi30k(tmp_path, **files))
    assert data.columns["source"] == [
        ["two", "dogs", ",", "running", "."],
        ["a", "man's", "hat"],
        ["a", "café"],
        ["snow", "."],
    ]
    assert data.texts == [[text] for text in GERMAN] and data.references[3] == [
        ["schnee", "fällt", "."]
    ]
    assert data.count("image") == 0 and not data.problems and len(data) == 4
    assert data.names[2] == f"{tmp_path / 'data/task1/raw/train.en'}{packed.replace('_', '.')}:3"
    assert data[1] == {"source": ["a", "man's", "hat"]}


def test_any_two_languages_of_multi30k_are_read(tmp_path):
    multi30k(tmp_path, cs=["pes"], fr=["Un chien."], de=["ein Hund"], en=["a dog"])
    texts = {"cs": "pes", "fr": "Un chien.", "de": "ein Hund", "en": "a dog"}
    for source, target in itertools.permutations(texts, 2):
        data = Multi30k(tmp_path, "train", (source, target))
        assert data.columns["source"] == [tokenize(texts[source])] and data.texts == [
            [texts[target]]
        ]
    with pytest.raises(ValueError, match="'de' is the language of source and target"):
        Multi30k(tmp_path, "train", ("de", "de"))


def test_multi30k_splits_have_our_names_and_those_of_the_files(tmp_path):
    for name in ("train", "val", "test_2016_flickr", "test_2017_mscoco"):
        multi30k(tmp_path, name, en=[f"a {name}"], de=["eins"])
    for split, name in (("train", "train"), ("validation", "val"), ("val", "val"), ("test", "test_2016_flickr"),
                        ("test_2016_flickr", "test_2016_flickr"), ("test_2017_mscoco", "test_2017_mscoco")):  # fmt: skip
        assert Multi30k(tmp_path, split).columns["source"] == [tokenize(f"a {name}")]


def test_photographs_are_found_by_the_names_of_both_data_sets(shown):
    data = Multi30k(shown, photographs=shown / "photographs", size=7)
    assert data.count("image") == 4 and greys(data) == [10, 20, 30, 40] and not data.problems
    assert data[0]["image"].shape == (3, 7, 7)
    again = pickle.loads(pickle.dumps(data))
    assert greys(again) == [10, 20, 30, 40] and again.columns["source"] == data.columns["source"]
    assert len(pickle.dumps(data)) < 10_000, "the pictures are not sent"


def test_photographs_are_found_by_names_with_folder_and_caption_number(shown):
    multi30k(shown, images=["flickr30k-images/1000.jpg", " 20.jpg#0", "333.jpg#1", "5.jpg"])
    data = Multi30k(shown, photographs=str(shown / "photographs"), size=7)
    assert greys(data) == [10, 20, 30, None] and data.count("image") == 3


def test_some_sentences_have_a_photograph(shown):
    (shown / "photographs/1000.jpg").unlink()
    (shown / "photographs/333.JPG").write_text("no picture")
    data = Multi30k(shown, "train", ("de", "en"), shown / "photographs", 7)
    (problem,) = data.problems
    assert problem.startswith(f"{shown / 'photographs/333.JPG'}: not a picture")
    assert len(data) == 4 and data.count("image") == 2 and greys(data) == [None, 20, None, 40]
    assert list(data[0]) == ["source"] and list(data[1]) == ["source", "image"]
    with_one = Subset(data, [i for i in range(4) if "image" in data[i]])
    assert with_one.columns["source"] == [["ein", "hut"], ["schnee", "fällt", "."]]
    assert with_one.count("image") == len(with_one) == 2 and greys(with_one) == [20, 40]
    assert with_one.texts == [[ENGLISH[1]], [ENGLISH[3]]]
    assert [with_one.name(i).rpartition(":")[2] for i in range(2)] == ["2", "4"]
    blind = data.without("image")
    assert (
        greys(blind) == [None] * 4
        and blind.references == data.references
        and data.count("image") == 2
    )


def test_empty_sentences_are_reported_and_the_others_keep_their_photographs(shown):
    multi30k(
        shown, en=["", "A man's hat", " \t", "Snow."], de=["Zwei Hunde.", "", "\u00a0", "Schnee."]
    )
    data = Multi30k(shown, photographs=shown / "photographs", size=7)
    raw = shown / "data/task1/raw"
    assert data.problems == [f"{raw / 'train.en'}:1: the sentence is empty", f"{raw / 'train.de'}:2: the sentence is empty",
                             f"{raw / 'train.en'}:3: the sentence is empty"]  # fmt: skip
    assert (
        data.columns["source"] == [["snow", "."]]
        and greys(data) == [40]
        and data.names == [f"{raw / 'train.en'}:4"]
    )


def test_photographs_of_other_sentences_are_ignored(shown):
    multi30k(shown, images=["6.jpg", "7.jpg", "8.jpg", "9.jpg"])
    data = Multi30k(shown, photographs=shown / "photographs", size=7)
    assert data.count("image") == 0 and greys(data) == [None] * 4 and len(data) == 4


def not_to_be_read(root, **options):
    """The error, one line."""
    with pytest.raises((ValueError, OSError)) as caught:
        Multi30k(root, **options)
    (line,) = str(caught.value).splitlines()
    return line


def test_files_that_are_not_parallel_are_reported_with_their_lengths(shown):
    raw = shown / "data/task1/raw"
    multi30k(shown, de=GERMAN[:3])
    assert (
        f"{raw / 'train.en'} has 4 lines, but {raw / 'train.de'} 3: they must be in parallel"
        == not_to_be_read(shown)
    )
    multi30k(shown, de=GERMAN, images=[*IMAGES, "5.jpg"])
    photographs = shown / "photographs"
    assert f"{shown / 'data/task1/image_splits/train.txt'} 5: they" in not_to_be_read(
        shown, photographs=photographs
    )
    assert len(Multi30k(shown)) == 4  # the list of photographs is not read


def test_a_missing_language_or_split_is_reported_with_those_found(tmp_path):
    line = not_to_be_read(multi30k(tmp_path, en_gz=ENGLISH, de=GERMAN), languages=("en", "fr"))
    assert (
        f"{tmp_path / 'data/task1/raw/train.fr'}: not found, nor train.fr.gz; its folder has train.de, train.en"
        == line
    )
    assert "val.en: not found" in not_to_be_read(tmp_path, split="validation")
    assert not_to_be_read(tmp_path / "nowhere").endswith("its folder has nothing")


def test_missing_photographs_are_reported(shown):
    assert "nowhere: no such folder of photographs" in not_to_be_read(
        shown, photographs=shown / "nowhere"
    )
    assert f"{shown / 'data'}: no pictures in this folder" == not_to_be_read(
        shown, photographs=shown / "data"
    )
    (shown / "data/task1/image_splits/train.txt").unlink()
    assert "image_splits/train.txt" in not_to_be_read(shown, photographs=shown / "photographs")


PACKED = gzip.compress("ein Käfer\nund noch ein Käfer\n".encode(), mtime=0)


@pytest.mark.parametrize("name, content, lines", [
    ("a", b"a\nb\n", ["a", "b"]), ("a", b"a\n\nb", ["a", "", "b"]), ("a", b"\n", [""]), ("a", b"a\n\n", ["a", ""]),
    ("a", b"\xef\xbb\xbfa\r\nb\r\n", ["a", "b"]), ("a.txt", "a\u2028b\x85c\x0cd\n".encode(), ["a\u2028b\x85c\x0cd"]),
    ("a.en.gz", PACKED, ["ein Käfer", "und noch ein Käfer"]), ("a.gz", gzip.compress(b"\xef\xbb\xbfa\r\n\r\nb", mtime=0), ["a", "", "b"]),
])  # fmt: skip
def test_empty_lines_are_kept(name, content, lines, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert read_lines(tmp_path / name) == lines


@pytest.mark.parametrize("name, content, says", [
    ("a", b"", "the file is empty"), ("a", b"\xef\xbb\xbf", "the file is empty"), ("a.gz", b"", "the file is empty"),
    ("a.gz", gzip.compress(b"", mtime=0), "the file is empty"), ("a.gz", gzip.compress(b"\xff", mtime=0), "byte 0 is not UTF-8"),
    ("a", b"ein K\xe4fer", "byte 5 is not UTF-8 text; save it as UTF-8"),
    ("a.gz", PACKED[:-3], "damaged, .*; fetch it again"), ("a.gz", PACKED[:-8] + bytes(8), "damaged, .*; fetch it again"),
    ("a.gz", PACKED[:20] + b"\0\0\0" + PACKED[23:], "damaged, .*; fetch it again"),
    ("a.gz", PACKED[:10] + b"\xff" + PACKED[11:], "damaged, .*; fetch it again"),  # not a valid kind of block
    ("a.gz", b"a plain text\n", "damaged, .*; fetch it again"),
])  # fmt: skip
def test_unreadable_text_files_are_reported(name, content, says, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        read_lines(tmp_path / name)
    assert (
        str(caught.value).startswith(f"{tmp_path / name}: ")
        and len(str(caught.value).splitlines()) == 1
    )


@pytest.mark.skipif(not OFFICIAL_TRANSLATIONS.is_dir(), reason="the official files are not here")
@pytest.mark.parametrize(
    "split, count, pictured", [("train", 29000, 6043), ("validation", 1014, 210)]
)
def test_the_official_multi30k_has_its_sentences_and_photographs(
    split, count, pictured, monkeypatch
):
    paths = []
    # decoding takes a while
    monkeypatch.setattr(
        "mmscratch.data.photographs._decode_once", lambda found, size: (paths.extend(found), {})
    )
    photographs = OFFICIAL / "Flicker8k_Dataset" if OFFICIAL.is_dir() else None
    data = Multi30k(OFFICIAL_TRANSLATIONS, split, photographs=photographs)
    assert (len(data), len(data.columns["source"]), data.problems) == (count, count, [])
    assert data.count("image") == (pictured if photographs else 0)
    listed = read_lines(
        OFFICIAL_TRANSLATIONS / f"data/task1/image_splits/{split.removesuffix('idation')}.txt"
    )
    places = data.columns["image"].keys if photographs else []
    for name, place in zip(data.names, places):
        number = listed[int(name.rpartition(":")[2]) - 1].removesuffix(".jpg")
        assert place is None or paths[place].name.startswith(f"{number}_")
