"""Questions with answers: folders in every format, easy-VQA, VQA-RAD; faults are reported."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from grey_pictures import greys, save

from mmscratch.data.answers import (
    LAYOUTS,
    VQARAD,
    EasyVQA,
    FolderQuestions,
    SceneQuestions,
    kind_of,
)
from mmscratch.data.questions import KINDS
from mmscratch.text import tokenize

REPOSITORY = Path(__file__).parents[2]
VQA_RAD = REPOSITORY.parent / "shared/vqa-rad"
EASY_VQA = REPOSITORY / "data/easy-vqa"
SPLITS = ("train", "validation", "test")


def read(folder):
    """{(file name, question): answers} of the three splits together, and what was skipped."""
    found, problems = {}, set()
    for split in SPLITS:
        data = FolderQuestions(folder, split, size=7)
        for i, name in enumerate(pictures_of(data)):
            found[Path(name).relative_to(folder).as_posix(), data.questions[i]] = data.texts[i]
        problems.update(data.problems)
    return found, problems


def pictures_of(data):
    """The picture's path of each example."""
    return [name.partition(": ")[0] for name in data.names]


def are_disjoint(sets):
    return sum(map(len, sets)) == len(set().union(*sets))


# -------------------------------------------------------------------------------------------------
# Scenes.


def shares(kinds):
    """The fraction of each kind of question."""
    return {kind: kinds.count(kind) / len(kinds) for kind in KINDS}


def test_a_curriculum_begins_without_comparisons_and_ends_with_many():
    data = SceneQuestions("train", 1201, size=0, curriculum=True)
    early = shares(data.kinds[:600])  # a quarter of the pairs, two examples each
    late = shares(data.kinds[602:])
    assert early["compare"] == 0
    for kind in KINDS:
        if kind != "compare":
            assert early[kind] == pytest.approx(1 / 6, abs=0.06)
    assert late["compare"] == pytest.approx(6 / 16, abs=0.05)
    assert late["two-step"] == pytest.approx(3 / 16, abs=0.04)
    assert min(late.values()) > 0.03


def test_without_a_curriculum_all_kinds_are_equally_frequent():
    for kinds in (SceneQuestions(split, 1201, size=0).kinds for split in ("train", "test")):
        for part in (kinds[:1200], kinds[1200:]):
            for share in shares(part).values():
                assert share == pytest.approx(1 / 7, abs=0.07)


# -------------------------------------------------------------------------------------------------
# A folder of one's own.

ROWS = 'a.png,Is it red?,Yes\nc.png,"How many, in all?",2\nsub/d.png,Wo?,"a ""d"""\n'


@pytest.mark.parametrize(
    "table, text",
    [
        ("csv", "file_name,question,answer\n" + ROWS),
        ("csv", ROWS.strip()),
        ("csv", '\ufeffAnswers , QUESTION, Image\r\nYes,Is it red?,A.PNG\r\n\r\n'
                '2,"How many, in all?",./c.png\r\n"a ""d""",Wo?,sub\\d.png\r\n'),
        ("tsv", "file\tid\tquestion\tanswer\na.png\t1\tIs it red?\tYes\n"
                'c.png\t2\tHow many, in all?\t2\nsub/d.png\t3\tWo?\ta "d"\n'),
        ("json", '[{"file_name": "a.png", "question": "Is it red?", "answer": "Yes"},'
                 '{"image": "c.png", "question": "How many, in all?", "answer": 2},'
                 '{"file": "sub/d.png", "question": "Wo?", "answers": ["a \\"d\\""]}]'),
        ("jsonl", '{"file_name": "a.png", "question": "Is it red?", "answer": "Yes"}\n\n'
                  '{"image": "c.png", "question": "How many, in all?", "answer": [2]}\r\n'
                  '{"file": "sub/d.png", "question": "Wo?", "answers": "a \\"d\\""}'),
    ],
    ids=["csv", "no column names", "other spellings", "tsv", "json", "jsonl"],
)  # fmt: skip
def test_questions_are_read_in_every_format(table, text, folder):
    (folder / f"questions.{table}").write_bytes(text.encode())
    expected = {
        ("a.png", "Is it red?"): ["Yes"],
        ("c.png", "How many, in all?"): ["2"],
        ("sub/d.png", "Wo?"): ['a "d"'],
    }
    assert read(folder) == (expected, {f"{folder / 'b.png'}: has no question"})


def test_the_columns_of_an_example(folder):
    rows = [
        "a.png,What  COLOUR?,Dark red,train",
        "c.png,Is it left?,no,train",
        "a.png,Is it left?,yes,train",
        "b.png,How many?,3,test",
        "sub/d.png,Why?,no idea,train",
    ]
    (folder / "questions.csv").write_text("\n".join(["file,question,answer,split", *rows]))
    data = FolderQuestions(folder, "train", 7)
    assert len(data) == 4 and not data.problems and data.pairs == []
    assert data.questions == ["What  COLOUR?", "Is it left?", "Is it left?", "Why?"]
    assert data.columns["source"] == [tokenize(question) for question in data.questions]
    assert data.texts == [["Dark red"], ["no"], ["yes"], ["no idea"]]
    assert data.references == [[["dark", "red"]], [["no"]], [["yes"]], [["no", "idea"]]]
    assert data.kinds == ["other", "yes/no", "yes/no", "other"]
    assert data.name(0) == f"{folder / 'a.png'}: What COLOUR?"
    assert greys(data) == [10, 30, 10, 40]
    assert data[0]["image"].shape == (3, 7, 7) and data[0]["image"].dtype == torch.uint8
    assert data[0]["source"] == ["what", "colour", "?"]
    assert [data.may_flip(i, 0) for i in range(4)] == [True, False, False, True]


def test_lines_about_the_same_picture_and_question_are_one_example_with_several_answers(folder):
    rows = [
        "a.png,Is it red?,yes",
        "b.png,Is it red?,no",
        "./A.png,is it  red ?,Yes",
        "a.png,Is it new?,no",
        "a.png,Is it red?,no",
    ]
    (folder / "questions.csv").write_text("\n".join(rows))
    found, _ = read(folder)
    assert found == {
        ("a.png", "Is it red?"): ["yes", "Yes", "no"],
        ("b.png", "Is it red?"): ["no"],
        ("a.png", "Is it new?"): ["no"],
    }
    entry = {"file": "a.png", "question": "Is it red?", "answers": ["yes", "Yes", "no"]}
    (folder / "questions.csv").unlink()
    (folder / "questions.jsonl").write_text(json.dumps(entry))
    found, _ = read(folder)
    assert found == {("a.png", "Is it red?"): ["yes", "Yes", "no"]}


@pytest.mark.parametrize(
    "answers, kind",
    [
        (["yes"], "yes/no"),
        (["Yes.", "no"], "yes/no"),
        (["yes", "maybe"], "other"),
        (["3"], "number"),
        (["three", "3", "10", "1,000", "2.5"], "number"),
        (["0", "no"], "other"),
        (["3 dogs"], "other"),
        (["one", "red"], "other"),
        (["red"], "other"),
    ],
)
def test_the_kind_of_a_question_follows_from_all_its_answers(answers, kind):
    assert kind_of(answers) == kind


def test_the_kind_is_that_of_the_answers_of_all_lines(folder):
    answers = [("a", "3"), ("a", "three"), ("b", "no"), ("b", "0")]
    lines = [f"{name}.png,How many?,{answer},test" for name, answer in answers]
    (folder / "questions.csv").write_text("\n".join(["image,question,answer,split", *lines]))
    assert FolderQuestions(folder, "test", 7).kinds == ["number", "other"]


EXPECTED = "questions.jsonl:2: a file name, a question and an answer were expected, not "


@pytest.mark.parametrize(
    "table, content, problem",
    [
        ("csv", b"missing.png,why?,yes", "questions.csv:2: there is no picture 'missing.png'"),
        ("csv", b"../secret.png,why?,yes", "questions.csv:2: there is no picture '../secret.png'"),
        ("csv", b"b.png,,yes", "questions.csv:2: the question about 'b.png' is empty"),
        ("csv", b'b.png," \t ",yes', "questions.csv:2: the question about 'b.png' is empty"),
        ("csv", b"b.png,why?,", "questions.csv:2: an answer about 'b.png' is empty"),
        ("csv", b"b.png,yes", "questions.csv:2: 2 columns where 3 were expected"),
        ("csv", b"b.png,why, you?,yes",
         "questions.csv:2: 4 columns where 3 were expected; a question with a comma needs"),
        ("csv", b"b.png,why?,caf\xe9", "questions.csv:2: not UTF-8"),
        ("csv", b'b.png,"why?,yes', "questions.csv:2: unexpected end of data"),
        ("tsv", b"b.png\twhy?", "questions.tsv:2: 2 columns where 3 were expected"),
        ("jsonl", b'{"file_name": "b.png", "question": "why?"', "questions.jsonl:2: not JSON: "),
        ("jsonl", b'{"file_name": "b.png", "question": "why?"}', EXPECTED),
        ("jsonl", b'{"file_name": "b.png", "answer": "yes"}', EXPECTED),
        ("jsonl", b'{"question": "why?", "answer": "yes"}', EXPECTED),
        ("jsonl", b'{"image": "b.png", "question": 7, "answer": "yes"}', EXPECTED),
        ("jsonl", b'{"image": "b.png", "question": "why?", "answer": true}', EXPECTED),
        ("jsonl", b'{"image": "b.png", "question": "why?", "answer": null}', EXPECTED),
        ("jsonl", b'{"image": "b.png", "question": "why?", "answers": []}', EXPECTED),
        ("jsonl", b'{"image": "b.png", "question": "why?", "answers": [["a"]]}', EXPECTED),
        ("jsonl", b'{"image": "b.png", "answer": "1", "answer": "2"}',
         "questions.jsonl:2: not JSON: 'answer' occurs twice: give it a list of answers instead"),
        ("json", b'{"image": "b.png", "question": "why?", "answer": ""}',
         "questions.json, entry 2: an answer about 'b.png' is empty"),
        ("json", b'["b.png", "why?", "yes"]', "questions.json, entry 2: a file name, a"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)  # fmt: skip
def test_a_broken_line_is_reported_and_the_others_are_kept(table, content, problem, folder):
    first = b'{"file_name": "a.png", "question": "who?", "answer": "me"}'
    last = b'{"file_name": "c.png", "question": "who?", "answer": "you"}'
    lines = {
        "csv": [b"a.png,who?,me", content, b"c.png,who?,you"],
        "tsv": [b"a.png\twho?\tme", content, b"c.png\twho?\tyou"],
        "jsonl": [first, content, last],
        "json": [b"[" + first + b",", content + b",", last + b"]"],
    }
    (folder / f"questions.{table}").write_bytes(b"\n".join(lines[table]))
    found, problems = read(folder)
    assert found == {("a.png", "who?"): ["me"], ("c.png", "who?"): ["you"]}
    [named] = [problem for problem in problems if not problem.endswith("has no question")]
    assert named.startswith(f"{folder}{os.sep}{problem}") and "\n" not in named


def test_an_empty_answer_is_left_out_and_the_others_are_kept(folder):
    entry = {"file_name": "a.png", "question": "Why?", "answers": ["", "because", " "]}
    (folder / "questions.json").write_text(json.dumps([entry]))
    found, problems = read(folder)
    assert found == {("a.png", "Why?"): ["because"]}
    assert f"{folder / 'questions.json'}, entry 1: an answer about 'a.png' is empty" in problems


def test_corrupt_pictures_are_reported_and_the_others_keep_their_questions(folder):
    (folder / "b.png").write_text("<html>not found</html>")
    lines = []
    for name in ("c.png", "b.png", "a.png", "b.png", "c.png"):
        number = len(lines)
        lines.append(f"{name},what is {number}?,number {number},test")
    (folder / "questions.csv").write_text("\n".join(["image,question,answer,split", *lines]))
    for _ in range(2):  # the second time from the cache
        data = FolderQuestions(folder, "test", 7)
        assert greys(data) == [30, 10, 30]
        assert data.texts == [["number 0"], ["number 2"], ["number 4"]]
        assert data.columns["source"] == [["what", "is", str(i), "?"] for i in (0, 2, 4)]
        assert [Path(name).name for name in pictures_of(data)] == ["c.png", "a.png", "c.png"]
        named = [problem for problem in data.problems if not problem.endswith("has no question")]
        assert len(named) == 1 and named[0].startswith(f"{folder / 'b.png'}: not a picture")


def test_size_zero_means_no_pictures_are_decoded(folder, cache):
    (folder / "b.png").write_text("<html>not found</html>")
    lines = ["image,question,answer,split", "b.png,why?,so,test", "x.png,why?,so,test"]
    (folder / "questions.csv").write_text("\n".join(lines))
    data = FolderQuestions(folder, "test", 0)
    assert [data[i] for i in range(len(data))] == [{"source": ["why", "?"]}]
    assert data.count("image") == 0 and not cache.exists()
    assert any("there is no picture 'x.png'" in problem for problem in data.problems)


def test_a_first_line_with_some_of_the_column_names_is_an_example(folder):
    (folder / "questions.csv").write_text("a.png,question,answer\nb.png,image?,yes\n")
    found, _ = read(folder)
    assert found == {("a.png", "question"): ["answer"], ("b.png", "image?"): ["yes"]}


def test_names_that_differ_only_in_case_are_reported_once(folder):
    save(folder / "A.png", 50)
    if len(list(folder.glob("?.png"))) < 4:
        pytest.skip("this file system does not distinguish a.png from A.png")
    lines = ["image,question,answer,split", *(f"a.png,why {i}?,so,test" for i in range(3))]
    (folder / "questions.csv").write_text("\n".join(lines))
    problems = FolderQuestions(folder, "test", 7).problems
    problem = f"{folder / 'questions.csv'}:2: A.png and a.png differ only in upper and lower case"
    assert [text for text in problems if "upper and lower" in text] == [problem]


@pytest.fixture
def fifty(tmp_path):
    """Fifty pictures, picture i of grey i, with three questions each."""
    lines = []
    for i in range(50):
        save(tmp_path / f"fifty/{i}.png", i)
    for i in range(150):
        lines.append(f"{7 * i % 50}.png,question {i // 50}?,{7 * i}")
    (tmp_path / "fifty/questions.csv").write_text("\n".join(lines))
    return tmp_path / "fifty"


def test_without_a_split_column_every_tenth_picture_is_held_out_with_all_its_questions(fifty):
    splits = [FolderQuestions(fifty, split, 5) for split in SPLITS]
    assert [len(data) for data in splits] == [120, 15, 15]
    pictures = [set(pictures_of(data)) for data in splits]
    names = sorted(str(path) for path in fifty.glob("*.png"))
    assert pictures[1:] == [set(names[::10]), set(names[5::10])]
    assert len(pictures[0]) == 40 and are_disjoint(pictures)
    for data in splits:
        assert set(Counter(pictures_of(data)).values()) == {3}
        for i, grey in enumerate(greys(data)):
            assert int(data.texts[i][0]) % 50 == grey


@pytest.mark.parametrize(
    "files, split, words",
    [
        ({}, "train",
         "no questions.csv, questions.tsv, questions.json, questions.jsonl: exactly one"),
        ({"captions.csv": b"a.png,a dog"}, "train", "no questions.csv"),
        ({"questions.csv": b"", "questions.jsonl": b""}, "train",
         "questions.csv and questions.jsonl: exactly one"),
        ({"questions.csv": b"a.png,why?,so"}, "val",
         "no split 'val': choose train, validation or test"),
        ({"questions.json": b"[{"}, "train", "questions.json: not JSON"),
        ({"questions.json": b'{"a.png": "why?"}'}, "train", "questions.json: a list was expected"),
    ],
)  # fmt: skip
def test_an_unusable_folder_raises_an_error_of_one_line(files, split, words, folder):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        FolderQuestions(folder, split)
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        FolderQuestions(tmp_path / "nowhere")


# -------------------------------------------------------------------------------------------------
# easy-VQA.

COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")


@pytest.fixture
def easy(tmp_path):
    """The layout of easy-VQA: picture i of grey i; 23 pictures in train/, 7 in test/."""
    root = tmp_path / "easy-vqa"
    for part, count in (("train", 23), ("test", 7)):
        entries = []
        for i in range(count):
            save(root / part / f"images/{i}.png", i)
            entries.append(["what color is the shape?", COLOURS[i % 8], i])
            entries.append(["what shape is in the image?", "circle", i])
            entries.append([f"is there a {part} shape?", "no", i])
        (root / part / "questions.json").write_text(json.dumps(entries))
    return root


def test_easy_vqa_in_its_official_layout(easy):
    train, validation, test = (LAYOUTS["easy-vqa"](easy, split, 5) for split in SPLITS)
    assert not train.problems + validation.problems + test.problems
    held_out = [0, 10, 20]
    assert greys(validation)[::3] == held_out
    assert greys(train)[::3] == [i for i in range(23) if i not in held_out]
    assert greys(test)[::3] == list(range(7)) and len(test) == 21
    assert train.kinds[:3] == ["colour", "shape", "yes/no"]
    assert test.texts[3:6] == [["blue"], ["circle"], ["no"]]
    assert validation.questions[2] == "is there a train shape?"
    assert test.questions[2] == "is there a test shape?"
    assert {kind for text, kind in zip(train.texts, train.kinds) if text[0] in COLOURS} == {
        "colour"
    }


def test_easy_vqa_with_faults(easy):
    table = easy / "test/questions.json"
    entries = json.loads(table.read_text())
    entries += [
        ["what?", "red"],
        {"question": "what?"},
        ["what?", "red", "3"],
        ["what?", "red", 99],
    ]
    entries += [["", "red", 3], ["what?", "", 3]]
    table.write_text(json.dumps(entries))
    (easy / "test/images/5.png").write_bytes(b"")
    data = EasyVQA(easy, "test", 5)
    assert greys(data) == [i for i in (0, 1, 2, 3, 4, 6) for _ in range(3)]
    expected = [
        f"{table}, entry 22: [question, answer, number of the picture] was expected, not [",
        f"{table}, entry 23: [question, answer, number of the picture] was expected, not {{",
        f"{table}, entry 24: [question, answer, number of the picture] was expected, not [",
        f"{table}, entry 25: there is no picture '99.png'",
        f"{table}, entry 26: the question about '3.png' is empty",
        f"{table}, entry 27: an answer about '3.png' is empty",
        f"{easy / 'test/images/5.png'}: ",
    ]
    assert len(data.problems) == len(expected)
    for problem, words in zip(data.problems, expected):
        assert problem.startswith(words)


@pytest.mark.parametrize("path", ["train/questions.json", "train/images"])
def test_easy_vqa_reports_which_file_is_missing(path, easy):
    (easy / path).rename(easy / "elsewhere")
    with pytest.raises(
        FileNotFoundError, match=f"{path}: not found; is .* easy-VQA in its official"
    ):
        EasyVQA(easy, "validation", 5)
    assert len(EasyVQA(easy, "test", 5)) == 21


@pytest.mark.parametrize("layout", ["easy-vqa", "vqa-rad", "vqa-rad-by-picture"])
def test_an_unknown_split_is_refused(layout, tmp_path):
    with pytest.raises(ValueError, match="no split 'val': choose train, validation or test"):
        LAYOUTS[layout](tmp_path, "val", 5)


@pytest.mark.parametrize("content, words", [("[", "not JSON"), ("{}", "a list was expected")])
def test_a_broken_file_of_easy_vqa_is_an_error_of_one_line(content, words, easy):
    (easy / "test/questions.json").write_text(content)
    with pytest.raises(ValueError, match=f"questions.json: {words}") as error:
        EasyVQA(easy, "test", 5)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not EASY_VQA.is_dir(), reason="easy-VQA is not here")
def test_easy_vqa_has_its_official_numbers():
    train, validation, test = (EasyVQA(EASY_VQA, split, 0) for split in SPLITS)
    assert len(train) + len(validation) == 38_575 and len(test) == 9673
    pictures = [len(set(pictures_of(data))) for data in (train, validation, test)]
    assert pictures == [3600, 400, 1000]
    assert Counter(test.kinds) == {"yes/no": 7136, "colour": 1280, "shape": 1257}
    assert not train.problems + validation.problems + test.problems


# -------------------------------------------------------------------------------------------------
# VQA-RAD.


def rad_entry(name, question, answer, answer_type="CLOSED"):
    values = {"image_name": name, "question": question, "answer": answer}
    return values | {"answer_type": answer_type, "qid": 7, "phrase_type": "para"}


@pytest.fixture
def rad(tmp_path):
    """The layout of VQA-RAD: 31 pictures, three questions each, the last for testing."""
    root = tmp_path / "vqa-rad"
    training, testing = [], []
    for i in range(31):
        name = f"synpic{100 + i}.jpg"
        save(root / "images" / name, 7 * i)
        training.append(rad_entry(name, "Is it large?", "Yes", "CLOSED "))
        training.append(rad_entry(name, "How many?", i, "OPEN"))
        testing.append(rad_entry(name, "Is it a CT?", "no"))
    (root / "trainset.json").write_text(json.dumps(training))
    (root / "testset.json").write_text(json.dumps(testing))
    return root


def test_vqa_rad_in_its_official_layout(rad):
    train, validation, test = (LAYOUTS["vqa-rad"](rad, split, 5) for split in SPLITS)
    assert [len(data) for data in (train, validation, test)] == [55, 7, 31]
    assert not train.problems + validation.problems + test.problems
    assert greys(validation) == [35 * i for i in range(7)]  # question 10 i is about picture 5 i
    assert train.kinds[:3] == ["open", "closed", "open"] and train.texts[0] == ["0"]
    assert set(test.questions) == {"Is it a CT?"} and set(test.kinds) == {"closed"}
    assert train.references[1] == [["yes"]] and train.texts[1] == ["Yes"]


def test_vqa_rad_split_by_picture(rad):
    make = LAYOUTS["vqa-rad-by-picture"]
    splits = [make(rad, split, 5) for split in SPLITS]
    assert sum(len(data) for data in splits) == 93
    pictures = [set(pictures_of(data)) for data in splits]
    assert [len(names) for names in pictures] == [22, 3, 6] and are_disjoint(pictures)
    for data in splits:
        assert set(Counter(pictures_of(data)).values()) == {3}


def test_the_same_question_twice_is_two_examples_of_one_split(rad):
    table = rad / "trainset.json"
    entries = json.loads(table.read_text())
    again = rad_entry("synpic100.jpg", "is it  large?", "No")  # the first goes to validation
    table.write_text(json.dumps([*entries, again]))
    train, validation = (VQARAD(rad, split, 5) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (55, 8)
    assert validation.texts[0] == ["Yes"] and validation.texts[-1] == ["No"]


def test_vqa_rad_with_faults(rad):
    table = rad / "testset.json"
    entries = json.loads(table.read_text())
    lacking = rad_entry("synpic100.jpg", "What?", "that")
    del lacking["answer_type"]
    entries += [lacking, rad_entry("synpic100.jpg", "What?", None), "What?"]
    entries.append(rad_entry("synpic9.jpg", "What?", "that"))
    entries.append(rad_entry("../trainset.json", "What?", "that"))
    entries.append(rad_entry("synpic100.jpg", "What?", " "))
    table.write_text(json.dumps(entries))
    data = VQARAD(rad, "test", 5)
    assert len(data) == 31
    expected = "an image_name, a question, an answer and an answer_type were expected, not"
    words = [expected] * 3
    words += ["there is no picture 'synpic9.jpg'", "there is no picture '../trainset.json'"]
    words.append("an answer about 'synpic100.jpg' is empty")
    assert len(data.problems) == 6
    for number, (problem, start) in enumerate(zip(data.problems, words), 32):
        assert problem.startswith(f"{table}, entry {number}: {start}")


@pytest.mark.parametrize("path", ["trainset.json", "testset.json", "images"])
def test_vqa_rad_reports_which_file_is_missing(path, rad):
    (rad / path).rename(rad / "elsewhere")
    with pytest.raises(
        FileNotFoundError, match=f"{path}: not found; is .* VQA-RAD in its official"
    ):
        VQARAD(rad, "train", 5)


@pytest.mark.skipif(not VQA_RAD.is_dir(), reason="VQA-RAD is not here")
def test_vqa_rad_has_its_official_numbers():
    train, validation, test = (VQARAD(VQA_RAD, split, 0) for split in SPLITS)
    assert len(train) + len(validation) == 3064 and len(test) == 451
    assert Counter(test.kinds) == {"closed": 272, "open": 179}
    assert Counter(train.kinds + validation.kinds) == {"closed": 1823, "open": 1241}
    trained = set(pictures_of(train) + pictures_of(validation))
    assert len(trained) == 314 and len(set(pictures_of(test)) & trained) == 203
    assert not train.problems + validation.problems + test.problems
    asked = [
        set(zip(pictures_of(data), map(tuple, data.columns["source"])))
        for data in (train, validation)
    ]
    assert are_disjoint(asked)


@pytest.mark.skipif(not VQA_RAD.is_dir(), reason="VQA-RAD is not here")
def test_vqa_rad_split_by_picture_has_every_question_once_and_no_picture_twice():
    splits = [VQARAD(VQA_RAD, split, 0, by_picture=True) for split in SPLITS]
    assert sum(len(data) for data in splits) == 3515
    pictures = [set(pictures_of(data)) for data in splits]
    assert [len(names) for names in pictures] == [221, 31, 62] and are_disjoint(pictures)
    slices_of_one_scan = {str(VQA_RAD / f"images/synpic{i}.jpg") for i in (39086, 39088)}
    assert slices_of_one_scan <= pictures[0]
