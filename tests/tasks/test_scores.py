"""score: text files against references, and percentages with their intervals."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import error_of, expected_scores, fraction, parse_scores

from mmscratch.__main__ import main
from mmscratch.metrics import bleu
from mmscratch.tasks.scores import mean_percentage, percentage
from mmscratch.text import caption_tokenize, tokenize

HYPOTHESES = ["A man's T-shirt (red).", "a dog, and a cat!", "", "two dogs play in the snow ."]
REFERENCES = [
    "A man's red T-shirt.",
    "A dog and a cat.",
    "Nothing.",
    "Two dogs are playing in the snow.",
]
OTHERS = ["a shirt (red) of a man", "", " \t ", "two dogs play in the snow"]


def test_groups_of_different_sizes_count_by_their_scores():
    scores = [1, 1, 1, 0, 0, 1, 0]
    groups = [4, 4, 4, 4, 9, 2, 2]
    rng = np.random.default_rng(12345)
    members = {group: [s for s, g in zip(scores, groups) if g == group] for group in (2, 4, 9)}
    means = []
    for _ in range(1000):
        drawn = rng.integers(3, size=3)
        chosen = [score for i in drawn for score in members[[2, 4, 9][i]]]
        means.append(100 * sum(chosen) / len(chosen))
    means.sort()
    expected = f"{400 / 7:.1f} %  ({means[25]:.1f} to {means[-26]:.1f})"
    assert mean_percentage(scores, groups) == expected


def write_lines(name, lines, end="\n"):
    Path(name).write_bytes((end.join(lines) + end).encode())


@pytest.mark.parametrize("option, split", [(None, caption_tokenize), ("caption", caption_tokenize), ("words", tokenize),
                                           ("none", str.split)])  # fmt: skip
@pytest.mark.parametrize("files", [1, 2])
def test_score_of_text_files(tmp_path, monkeypatch, capsys, option, split, files):
    monkeypatch.chdir(tmp_path)
    write_lines("h.txt", HYPOTHESES)
    write_lines("1.txt", REFERENCES)
    write_lines("2.txt", OTHERS)
    tokenizer = ["--tokenize", option] if option else []
    assert main(["score", *tokenizer, *["h.txt", "1.txt", "2.txt"][: 1 + files]]) == 0
    out = capsys.readouterr().out
    references = [
        [split(one)] + [split(other)] * bool(files == 2 and other.strip())
        for one, other in zip(REFERENCES, OTHERS)
    ]
    hypotheses = list(map(split, HYPOTHESES))
    assert parse_scores(out) == expected_scores(hypotheses, references)
    whole = bleu(hypotheses, references)
    assert (
        f"{whole.sys_len / 4:.1f}, closest references {whole.ref_len / 4:.1f}; brevity penalty {whole.bp:.3f}\n"
        in out
    )
    assert out.startswith("h.txt, 4 sentences") and len(out.splitlines()) == 9


def test_the_three_tokenizers_differ():
    scores = []
    for split in (caption_tokenize, tokenize, str.split):
        scores.append(
            bleu(list(map(split, HYPOTHESES)), [[split(line)] for line in REFERENCES]).score
        )
    assert len({f"{score:.1f}" for score in scores}) == 3


def test_score_reads_every_kind_of_text_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [
        "ein Käfer sitzt auf dem Blatt",
        "a dog\u2028in\u0085the \x0csnow \x1cand",
        "一只猫",
        "a cat sits",
    ]
    whole = "\n".join(lines).encode()
    crlf = whole.replace(b"\n", b"\r\n")
    contents = [
        whole + b"\n",
        whole,
        crlf,
        crlf + b"\r\n",
        b"\xef\xbb\xbf" + whole,
        b"\xef\xbb\xbf" + crlf + b"\r\n",
    ]
    contents.append(re.sub("[\x85\x0c\x1c]", " ", whole.decode()).encode())  # these end no line
    for name, content in zip("abcdefg", contents):
        Path(name).write_bytes(content)
    for tokenizer in ("caption", "none"):
        for names in (
            ("a", "b"),
            ("a", "c"),
            ("d", "a"),
            ("e", "b"),
            ("a", "e"),
            ("f", "a"),
            ("a", "g"),
            ("b", "f", "e", "d"),
        ):
            assert main(["score", *names, "--tokenize", tokenizer]) == 0
            found = parse_scores(capsys.readouterr().out)
            assert found["exact match"] == ["100.0"] * 3 and found["BLEU-1"] == ["100.0"] * 3


@pytest.mark.parametrize(
    "files, says",
    [
        ([b"a\nb\nc\n", b"a\nb\n"], "h.txt has 3 lines, but 1.txt 2"),
        ([b"a\nb\n", b"a\nb\n", b"a\nb\n\n"], "h.txt has 2 lines, but 2.txt 3"),
        ([b"a\n" * 1234, b"a"], "h.txt has 1,234 lines, but 1.txt 1"),
        (
            [b"a dog\nein K\xe4fer\n", b"a\nb\n"],
            "h.txt: byte 11 is not UTF-8 text; save it as UTF-8",
        ),
        ([b"a\n", "a cat".encode("utf-16")], "1.txt: byte 0 is not UTF-8"),
        ([b"", b""], "h.txt: the file is empty"),
        ([b"a\n", b"\xef\xbb\xbf"], "1.txt: the file is empty"),
        ([b"a\n"], "1.txt"),
        ([b"a\nb\nc\n", b"a\n\nc\n"], "line 2 has no reference: it is empty in 1.txt"),
        (
            [b"a\nb\nc\n", b"a\nb\n \t\r\n", b"\n\n\n"],
            "line 3 has no reference: it is empty in 1.txt, 2.txt",
        ),
        ([b"\n", b"\n"], "line 1 has no reference"),
    ],
)
def test_score_reports_errors_in_one_line(tmp_path, monkeypatch, capsys, files, says):
    monkeypatch.chdir(tmp_path)
    names = ["h.txt", "1.txt", "2.txt"][: max(2, len(files))]
    for name, content in zip(names, files):
        Path(name).write_bytes(content)
    assert main(["score", *names]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("error: ") and says in err


def test_score_reads_compressed_files_and_reports_a_damaged_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_lines("h.txt", REFERENCES)
    Path("r.txt.gz").write_bytes(gzip.compress(Path("h.txt").read_bytes()))
    assert main(["score", "h.txt", "r.txt.gz"]) == 0
    assert parse_scores(capsys.readouterr().out)["exact match"] == ["100.0"] * 3
    Path("r.txt.gz").write_bytes(Path("r.txt.gz").read_bytes()[:-9])
    assert main(["score", "h.txt", "r.txt.gz"]) == 2
    assert "r.txt.gz: damaged" in error_of(capsys)


def test_a_reference_of_punctuation_only_counts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_lines("h.txt", ["a dog", ""])
    write_lines("1.txt", ["a dog", "..."])
    assert main(["score", "h.txt", "1.txt"]) == 0
    assert parse_scores(capsys.readouterr().out)["exact match"] == ["100.0"] * 3


def test_a_percentage_recovers_the_number_of_right_answers():
    rounded_down = [right for right in range(58) if int(100 * (right / 58) * 58 / 100) < right]
    assert rounded_down, "the product is a little too small"
    for right in (0, 58, *rounded_down[:3]):
        value, low, high = fraction(right, 58)
        assert percentage(100 * (right / 58), 58) == f"{value} %  ({low} to {high})"
