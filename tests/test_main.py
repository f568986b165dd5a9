"""The command line, as a user meets it: what it prints, what it leaves, how it fails."""

import contextlib
import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import tiny_trainer
from PIL import Image
from reference import torchvision

from mmscratch.__main__ import BEST, _share, _show_attention, main
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.judge import truth
from mmscratch.data.language import caption, captions, colour_of
from mmscratch.data.scenes import Scene, render
from mmscratch.data.translations import SceneTranslation
from mmscratch.decoding import write_captions, write_translations
from mmscratch.finetuning import load_run, vocabularies
from mmscratch.images import open_image, to_tensor
from mmscratch.metrics import bleu, bootstrap, caption_scores, caption_tokenize
from mmscratch.text import detokenize, tokenize
from mmscratch.training import TrainConfig, Trainer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of 23 pictures with captions, one corrupt picture, one broken line; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "photos"
    data.mkdir()
    lines = ["file_name,caption"]
    for i in range(23):
        render(Scene(i), 96).save(data / f"{i:02}.png")
        lines += [f'{i:02}.png,"{caption}"' for caption in captions(Scene(i))]
    (data / "text.jpg").write_text("this is not a picture")
    lines += ["text.jpg,a text that was renamed", "a line without a comma"]
    (data / "captions.csv").write_text("\n".join(lines))
    return data


@pytest.fixture
def few_scenes(tmp_path, monkeypatch):
    """quickstart validates with 13 scenes and tests with 13; the working directory is empty."""
    for name in ("VALIDATION_SCENES", "TEST_SCENES"):
        monkeypatch.setattr(f"mmscratch.__main__.{name}", 13)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of a tiny model that has hardly learned anything, of pictures of 32 pixels."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    tiny_trainer(folder).fit()
    return folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of it in the working directory, as "run"; evaluate takes 13 test scenes."""
    monkeypatch.setattr("mmscratch.__main__.TEST_SCENES", 13)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "run")
    return Path("run")


def printed(out) -> dict:
    """Every line that is a name and a score with its interval, as it stands there."""
    lines = re.findall(r"^  ([\w-]+(?: \w+)*) {2,}([\d.]+)(?: %)?  \(([\d.]+) to ([\d.]+)\)(;.*)?$", out, re.M)
    return {name: numbers for name, *numbers, _ in lines}


def expected(hypotheses, references) -> dict:
    """The same, of tokens."""
    scores = {name: [f"{x:.1f}" if "BLEU" in name else f"{x:.3f}" for x in estimate]
              for name, estimate in caption_scores(hypotheses, references).items()}  # fmt: skip
    return scores | {"a reference exactly": share(sum(h in refs for h, refs in zip(hypotheses, references)), len(hypotheses))}


def share(right, count) -> list[str]:
    """That of so many right ones, in %, and its interval."""
    return [f"{x:.1f}" for x in (100 * right / count, *bootstrap([100] * right + [0] * (count - right)))]


def error_of(capsys) -> str:
    """The one line that a failing command prints."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


QUICKSTART = ["quickstart", "--precision", "float32", "--scenes"]


def test_quickstart_then_caption_then_evaluate(few_scenes, tmp_path, capsys):
    assert main([*QUICKSTART, "130"]) == 0
    out = capsys.readouterr().out
    assert "true by judge" in out and "BLEU-4" in out
    run = tmp_path / "runs" / "quickstart"
    for name in ("best.pt", "last.pt", "metrics.jsonl", "captions-test.jsonl"):
        assert (run / name).stat().st_size > 0
    for name in ("learning_curves", "captions-test", "attention"):
        with Image.open(run / f"{name}.png") as picture:
            assert min(picture.size) > 100
    entries = [json.loads(line) for line in (run / "captions-test.jsonl").read_text().splitlines()]
    assert len(entries) == 13 and all(len(entry["references"]) == 5 for entry in entries)

    data = SceneCaptions("test", 13)
    _show_attention(run, data, [captions[0] for captions in data.references])
    assert "% within the thing that a noun or colour names" in capsys.readouterr().out

    assert main(["caption", "runs/quickstart/pictures"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 8
    assert main(["evaluate", "runs/quickstart", "--split", "compositional_test"]) == 0
    assert "13 pictures of the compositional_test split" in capsys.readouterr().out

    before = (run / "best.pt").read_bytes()
    assert main([*QUICKSTART, "130"]) == 0  # a second time: nothing left to train
    assert (run / "best.pt").read_bytes() == before
    assert main([*QUICKSTART, "140"]) == 2
    assert "another run" in error_of(capsys)


@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
@pytest.mark.parametrize("fusion", ["prefix", "cross_attention"])
def test_quickstart_trains_what_is_asked_for_in_a_folder_of_its_own(few_scenes, tmp_path, decoder, fusion):
    best = BEST == {"decoder": decoder, "fusion": fusion}
    command = ["quickstart", "--scenes", "50", "--precision", "float32", "--decoder", decoder, "--fusion", fusion]
    assert main(command) == 0
    [run] = (tmp_path / "runs").iterdir()
    assert run.name == ("quickstart" if best else f"quickstart-{decoder}-{fusion}")
    model, _, _ = load_run(run)
    assert (type(model.decoder).__name__.lower(), model.decoder.fusion) == (f"{decoder}decoder", fusion)
    assert (run / "attention.png").exists() == ((decoder, fusion) != ("lstm", "prefix"))


def test_train_on_a_folder_names_and_skips_what_is_broken(folder, capsys):
    assert main(["train", "--data", "photos", "--epochs", "1", "--image-size", "32"]) == 0
    out = capsys.readouterr().out
    assert "text.jpg" in out and "captions.csv:118" in out
    assert main(["evaluate", "runs/photos"]) == 0
    again = capsys.readouterr().out
    assert "BLEU-4" in again and again.split("BLEU-4")[1] == out.split("BLEU-4")[1].split("\n\nLook")[0] + "\n"
    assert main(["evaluate", "runs/photos", "--data", "photos", "--split", "test"]) == 0


def test_a_corrupt_picture_among_good_ones_is_named_and_the_others_get_captions(folder, capsys):
    main("train --data photos --epochs 1 --image-size 32 --precision float32".split())
    phone = Image.new("RGB", (3000, 2000), "white")
    exif = phone.getexif()
    exif[0x0112] = 6  # held upright
    phone.save("phone.jpg", exif=exif)
    capsys.readouterr()
    assert main(["caption", "photos/text.jpg", "phone.jpg", "missing.jpg", "photos", "--run", "runs/photos"]) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 24 and "phone.jpg: " in out
    assert len(err.splitlines()) == 3 and "photos/text.jpg: not a picture" in err and "missing.jpg" in err


def parts(out):
    """The printed table: part -> (parameters, percent trained)."""
    rows = re.findall(r"^(\S+) +([\d,]+) +([\d.]+) %$", out.split("parameters   trained\n")[1], re.MULTILINE)
    return {name: (int(count.replace(",", "")), float(share)) for name, count, share in rows}


def test_train_begins_with_another_run(folder, run, capsys):
    base, words, _ = load_run("run")
    frozen = "--freeze encoders.image.backbone --freeze *.norm.*"
    assert main(f"train --data photos --from run --epochs 1 --precision float32 {frozen}".split()) == 0
    table = parts(capsys.readouterr().out)
    model, vocabulary, saved = load_run("runs/photos")
    assert vocabulary.words[: len(words)] == words.words and saved["model_config"]["image_size"] == 32
    counts = {name: p.numel() for name, p in model.named_parameters()}
    frozen = {name: n for name, n in counts.items() if "backbone" in name or ".norm." in name}
    assert table["all"] == (sum(counts.values()), pytest.approx(100 - 100 * sum(frozen.values()) / sum(counts.values()), abs=0.05))
    assert table["encoders.image.backbone"][1] == table["encoders.image.norm"][1] == 0 and table["decoder.lstm"][1] == 100
    theirs = dict(base.named_parameters())
    assert all(torch.equal(p, theirs[name]) == (name in frozen) for name, p in model.named_parameters() if "embedding" not in name)
    assert main("train --data photos --from run --image-size 64 --to other".split()) == 2
    assert "--image-size is 32 in run, and cannot become 64" in error_of(capsys)


def test_a_small_change_is_kept_without_its_base_and_used_as_any_run(folder, run, capsys):
    with (folder / "captions.csv").open("a") as file:
        file.write("\n01.png,a zebra")
    for _ in range(2):  # the second time all is done
        assert main("train --data photos --from run --lora 2 --epochs 1 --precision float32".split()) == 0
        table = parts(capsys.readouterr().out)
        assert table["LoRA"][1] == table["decoder.embedding"][1] == 100 and table["decoder.lstm"][1] == 0
        assert table["encoders.image.backbone"][1] == 0 and 0 < table["all"][1] < 50
    assert {"decoder.lstm.lora.weight_hh_l0.a", "decoder.embedding.weight"} < set(load_run("runs/photos")[2]["model"])
    assert not any("lora" in name for name in load_run("runs/photos")[0].state_dict())
    assert main("evaluate runs/photos".split()) == main("caption photos/00.png --run runs/photos".split()) == 0
    capsys.readouterr()
    tiny_trainer("other", TrainConfig(batch_size=7, precision="float32", seed=1)).fit()
    shutil.copy("other/best.pt", "run/best.pt")
    capsys.readouterr()
    assert main("evaluate runs/photos".split()) == 2
    assert "runs/photos/best.pt is a change of run, which must be as it was" in error_of(capsys)


def test_train_begins_with_a_cnn_of_torchvision(folder, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", "hub")
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18()
    path = Path("hub/hub/checkpoints", torchvision.models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2])
    path.parent.mkdir(parents=True)
    torch.save(theirs.state_dict(), path)
    size = "--epochs 1 --batch-size 200 --image-size 32 --precision float32"
    assert main(f"train --data photos --from resnet18 --freeze encoders.image.backbone {size}".split()) == 0
    assert parts(capsys.readouterr().out)["encoders.image.backbone"][1] == 0
    model, _, saved = load_run("runs/photos")
    ours = model.encoders["image"].backbone.state_dict()
    assert all(torch.equal(x, theirs.state_dict()[name]) for name, x in ours.items()) and len(ours) == 120
    assert main("train --data photos --from resnet18 --lora 2 --to other".split()) == 2
    assert "a LoRA is a change of a trained decoder" in error_of(capsys)


@pytest.mark.parametrize(
    "arguments, says",
    [
        ("caption x.jpg", "python -m mmscratch quickstart first"),
        ("evaluate runs/nothing", "holds no trained model"),
        ("train --data nowhere", "nowhere: no such folder"),
        ("train --data photos --layout flickr8k", "official layout"),
        ("train --data photos --epochs 0", "--epochs must be at least 1"),
        ("train --data photos --learning-rate 0", "--learning-rate must be at least 1e-09"),
        ("train --data photos --image-size -5", "--image-size must be at least 1"),
        ("train --data photos --lora 3", "say of which run (start_from, or --from)"),
        ("train --data photos --lora -1", "--lora must be at least 0"),
        ("train --data photos --from nowhere", "nowhere holds no trained model"),
        ("train --data photos --freeze encoder", "called 'encoder'; there are encoders.image.position, encoders.image.backbone"),
        ("train --data photos --freeze encoders --freeze decoder", "there is nothing to train"),
        ("quickstart --scenes 0", "--scenes"),
        ("score nothing.txt nothing.txt", "nothing.txt"),
        ("score photos photos", "photos"),
    ],
)
def test_bad_use_gets_one_line_and_2(folder, capsys, arguments, says):
    assert main(arguments.split()) == 2
    assert says in error_of(capsys)


def test_evaluate_prints_every_score_of_scenes_with_its_interval(run, monkeypatch, capsys):
    data = SceneCaptions("test", 13, size=32)
    written = [list(data.references[i][i % 5]) for i in range(13)]
    written[0] = written[1]  # not true of it
    written[2][-1:] = []  # neither true, nor a sentence
    written[5] = data.references[5][0][:2] + ["cat"]
    monkeypatch.setattr("mmscratch.decoding.write_captions", lambda *_, num_beams: written)
    assert main(["evaluate", "run"]) == 0
    out = capsys.readouterr().out
    hypotheses = [caption_tokenize(detokenize(tokens)) for tokens in written]
    references = [list(map(caption_tokenize, texts)) for texts in data.captions]
    shares, faults = truth(written, data.scenes)
    right = round(13 * shares[-1] / 100)
    assert 9 <= right < 13 and sum(faults.values()) > 2
    wanted = expected(hypotheses, references) | {"true by judge": share(right, 13)}
    assert printed(out) == wanted
    for name in ("true by judge", "a reference exactly"):
        value, low, high = map(float, wanted[name])
        assert low < value < high
    one, two, three, _ = shares
    assert f"; one thing {one:.0f} %, two {two:.0f} %, three {three:.0f} %" in out
    assert f"wrong in the others  {', '.join(f'{fault} {n}' for fault, n in faults.most_common())}\n" in out
    whole = bleu(hypotheses, references)
    lengths = f"{whole.sys_len / 13:.1f}, closest references {whole.ref_len / 13:.1f}"
    assert f"  words a sentence     {lengths}; brevity penalty {whole.bp:.3f}\n" in out
    assert "run, 13 pictures of the test split" in out and whole.sys_len < whole.ref_len

    written[:] = [refs[1] for refs in data.references]
    assert main(["evaluate", "run"]) == 0
    out = capsys.readouterr().out
    assert printed(out)["true by judge"] == ["100.0"] * 3 and "wrong in the others  nothing\n" in out
    assert printed(out)["a reference exactly"] == ["100.0"] * 3


def test_a_share_in_percent_gives_back_how_many_were_right():
    rounded_down = [right for right in range(58) if int(100 * (right / 58) * 58 / 100) < right]
    assert rounded_down, "the product is a little too small"
    for right in (0, 58, *rounded_down[:3]):
        value, low, high = share(right, 58)
        assert _share(100 * (right / 58), 58) == f"{value} %  ({low} to {high})"


def test_evaluate_and_caption_search_with_as_many_beams_as_they_are_told(run, capsys):
    data, (model, vocabulary, _) = SceneCaptions("test", 13, size=32), load_run(run)
    Path("pictures").mkdir()
    for i in range(3):
        render(Scene(i), 40).save(f"pictures/{i}.png")
    pictures = [to_tensor(open_image(path), 32) for path in sorted(Path("pictures").iterdir())]
    references = [list(map(caption_tokenize, texts)) for texts in data.captions]
    said = []
    for beams, option in ((1, []), (3, ["--beams", "3"])):
        written = write_captions(model, vocabulary, map(data.picture, range(13)), num_beams=beams)
        assert main(["evaluate", "run", *option]) == 0
        found = printed(capsys.readouterr().out)
        assert found.items() >= expected([caption_tokenize(detokenize(tokens)) for tokens in written], references).items()
        entries = [json.loads(line) for line in Path("run/captions-test.jsonl").read_text("utf-8").splitlines()]
        assert [entry["caption"] for entry in entries] == list(map(detokenize, written))
        assert main(["caption", "pictures", "--run", "run", *option]) == 0
        lines = capsys.readouterr().out.splitlines()
        each = [write_captions(model, vocabulary, [picture], num_beams=beams)[0] for picture in pictures]
        assert lines == [f"{Path('pictures', f'{i}.png')}: {detokenize(tokens)}" for i, tokens in enumerate(each)]
        said.append((written, found, lines))
    (greedy, of_greedy, greedy_lines), (beam, of_beam, beam_lines) = said
    assert greedy != beam and of_greedy != of_beam and greedy_lines != beam_lines


@pytest.mark.parametrize("command", ["evaluate run", "caption one.png --run run"])
@pytest.mark.parametrize("beams", ["0", "-2"])
def test_no_beams_get_one_line_and_2(run, capsys, command, beams):
    render(Scene(0), 40).save("one.png")
    assert main([*command.split(), "--beams", beams]) == 2
    assert f"num_beams is 1 or more beams, not {beams}" in error_of(capsys)


def test_photographs_are_scored_by_their_captions_as_they_were_written(run, monkeypatch, capsys):
    texts = ["A dog's ear, seen from a T-shirt.", "A dog 's ear (red) , and a cat can't swim !", "Two men at 3 p.m. in snow"]
    Path("photos").mkdir()
    for i in range(3):
        render(Scene(i), 40).save(f"photos/{i}.png")
    table = [f"{i}.png\t{text}\tvalidation" for i, text in enumerate(texts)]
    Path("photos/captions.tsv").write_text("\n".join(["file_name\tcaption\tsplit", *table, "9.png\tno picture\tvalidation"]))
    written = ["a dog 's ear seen from a t-shirt", "a dog's ear (red) and a cat can't swim", "two men at 3 p.m. in snow ."]
    tokens = [[*text.split()] for text in written]
    monkeypatch.setattr("mmscratch.decoding.write_captions", lambda *_, num_beams: tokens)
    assert main(["evaluate", "run", "--data", "photos"]) == 0
    out = capsys.readouterr().out
    assert "validation: 3 pictures with 3 captions; 1 problems" in out and "true by judge" not in out
    found = printed(out)
    assert found == expected([caption_tokenize(text) for text in written], [[caption_tokenize(text)] for text in texts])
    assert found["a reference exactly"] == ["100.0"] * 3 and found["BLEU-4"][0] == "100.0"
    ours = [[caption_tokenize(detokenize(tokenize(text)))] for text in texts]
    assert expected([caption_tokenize(text) for text in written], ours) != found, "our tokens would give another score"


HYPOTHESES = ["A man's T-shirt (red).", "a dog, and a cat!", "", "two dogs play in the snow ."]
REFERENCES = ["A man's red T-shirt.", "A dog and a cat.", "Nothing.", "Two dogs are playing in the snow."]
OTHERS = ["a shirt (red) of a man", "", " \t ", "two dogs play in the snow"]


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
    references = [[split(one)] + [split(other)] * bool(files == 2 and other.strip()) for one, other in zip(REFERENCES, OTHERS)]
    hypotheses = list(map(split, HYPOTHESES))
    assert printed(out) == expected(hypotheses, references)
    whole = bleu(hypotheses, references)
    assert f"{whole.sys_len / 4:.1f}, closest references {whole.ref_len / 4:.1f}; brevity penalty {whole.bp:.3f}\n" in out
    assert out.startswith("h.txt, 4 sentences") and len(out.splitlines()) == 9


def test_the_three_ways_to_tokenize_differ():
    scores = []
    for split in (caption_tokenize, tokenize, str.split):
        scores.append(bleu(list(map(split, HYPOTHESES)), [[split(line)] for line in REFERENCES]).score)
    assert len({f"{score:.1f}" for score in scores}) == 3


def test_score_reads_every_kind_of_text_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = ["ein Käfer sitzt auf dem Blatt", "a dog\u2028in\u0085the \x0csnow \x1cand", "一只猫", "a cat sits"]
    whole = "\n".join(lines).encode()
    crlf = whole.replace(b"\n", b"\r\n")
    contents = [whole + b"\n", whole, crlf, crlf + b"\r\n", b"\xef\xbb\xbf" + whole, b"\xef\xbb\xbf" + crlf + b"\r\n"]
    contents.append(re.sub("[\x85\x0c\x1c]", " ", whole.decode()).encode())  # these end no line
    for name, content in zip("abcdefg", contents):
        Path(name).write_bytes(content)
    for tokenizer in ("caption", "none"):
        for names in (("a", "b"), ("a", "c"), ("d", "a"), ("e", "b"), ("a", "e"), ("f", "a"), ("a", "g"), ("b", "f", "e", "d")):
            assert main(["score", *names, "--tokenize", tokenizer]) == 0
            found = printed(capsys.readouterr().out)
            assert found["a reference exactly"] == ["100.0"] * 3 and found["BLEU-1"] == ["100.0"] * 3


@pytest.mark.parametrize(
    "files, says",
    [
        ([b"a\nb\nc\n", b"a\nb\n"], "h.txt has 3 lines, but 1.txt 2"),
        ([b"a\nb\n", b"a\nb\n", b"a\nb\n\n"], "h.txt has 2 lines, but 2.txt 3"),
        ([b"a\n" * 1234, b"a"], "h.txt has 1,234 lines, but 1.txt 1"),
        ([b"a dog\nein K\xe4fer\n", b"a\nb\n"], "h.txt: byte 11 is not UTF-8 text; save it as UTF-8"),
        ([b"a\n", "a cat".encode("utf-16")], "1.txt: byte 0 is not UTF-8"),
        ([b"", b""], "h.txt: the file is empty"),
        ([b"a\n", b"\xef\xbb\xbf"], "1.txt: the file is empty"),
        ([b"a\n"], "1.txt"),
        ([b"a\nb\nc\n", b"a\n\nc\n"], "line 2 has no reference: it is empty in 1.txt"),
        ([b"a\nb\nc\n", b"a\nb\n \t\r\n", b"\n\n\n"], "line 3 has no reference: it is empty in 1.txt, 2.txt"),
        ([b"\n", b"\n"], "line 1 has no reference"),
    ],
)
def test_score_says_in_one_line_what_is_wrong(tmp_path, monkeypatch, capsys, files, says):
    monkeypatch.chdir(tmp_path)
    names = ["h.txt", "1.txt", "2.txt"][: max(2, len(files))]
    for name, content in zip(names, files):
        Path(name).write_bytes(content)
    assert main(["score", *names]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("error: ") and says in err


def test_score_reads_packed_files_and_says_which_is_damaged(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_lines("h.txt", REFERENCES)
    Path("r.txt.gz").write_bytes(gzip.compress(Path("h.txt").read_bytes()))
    assert main(["score", "h.txt", "r.txt.gz"]) == 0
    assert printed(capsys.readouterr().out)["a reference exactly"] == ["100.0"] * 3
    Path("r.txt.gz").write_bytes(Path("r.txt.gz").read_bytes()[:-9])
    assert main(["score", "h.txt", "r.txt.gz"]) == 2
    assert "r.txt.gz: damaged" in error_of(capsys)


def test_a_reference_of_signs_only_is_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_lines("h.txt", ["a dog", ""])
    write_lines("1.txt", ["a dog", "..."])
    assert main(["score", "h.txt", "1.txt"]) == 0
    assert printed(capsys.readouterr().out)["a reference exactly"] == ["100.0"] * 3


def test_an_unknown_command_or_option_exits_with_2(capsys):
    no_number = ["caption", "x.jpg", "--beams", "many"]
    for arguments in (["fly"], ["quickstart", "--fusion", "hot"], [], no_number, ["score", "only-one.txt"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


def test_doctor_finds_nothing_wrong_here_and_names_a_missing_package(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for what in ("Python", "torch", "torchvision", "device", "cores", "memory", "nothing is wrong"):
        assert what in out
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["doctor"]) == 2
    assert "matplotlib cannot be imported" in capsys.readouterr().out


def test_ctrl_c_keeps_the_checkpoint_and_the_same_command_goes_on(tmp_path):
    command = [sys.executable, "-u", "-m", "mmscratch", "quickstart", "--scenes", "2000", "--precision", "float32"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while "precision" not in first.stdout.readline():
        assert first.poll() is None
    time.sleep(1)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "Traceback" not in err and "the same command goes on" in err
    assert (tmp_path / "runs/quickstart/last.pt").exists()
    second = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert second.returncode == 0 and "going on with runs/quickstart at step" in second.stdout


# ---------------------------------------------------------------------------------------------------------------------
# Translation.


TINY = {
    "decoder": "transformer", "fusion": "cross_attention", "embed_dim": 12, "hidden_size": 13, "feedforward_size": 17, "num_heads": 2,
    "depth": (1,), "width": 5, "source_layers": 2, "joint_vocabulary": True, "dropout": 0.1,
    "modality_dropout": 0.3,
}  # fmt: skip
ON_SCENES = "train --task translation --data scenes --image-size 32 --precision float32"
ON_MULTI30K = ("train --task translation --data multi --photographs shown --epochs 1 --batch-size 13 --image-size 32 "
               "--precision float32")  # fmt: skip


def make_small(monkeypatch):
    small = {"SCENES": 90, "CNN_SCENES": 64, "TEST_SCENES": 13, "MERGES": 60, "TRANSLATOR": TINY, "BEST": TINY | {"decoder": "lstm"}}
    for name, value in small.items():
        monkeypatch.setattr(f"mmscratch.__main__.{name}", value)


def quietly(command):
    """Its exit status and what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main(command.split())
    return status, out.getvalue()


@pytest.fixture(scope="module")
def translators(tmp_path_factory):
    """A folder with the runs of three tiny translators: of scenes, of Multi30k with photographs, and of it without."""
    folder = tmp_path_factory.mktemp("translators")
    raw, splits, shown = folder / "multi/data/task1/raw", folder / "multi/data/task1/image_splits", folder / "shown"
    for path in (raw, splits, shown):
        path.mkdir(parents=True)
    for split, first, count in (("train", 0, 31), ("val", 100, 11), ("test_2016_flickr", 200, 5)):
        for language in ("en", "de"):
            text = "".join(f"{caption(Scene(first + i), 0, language)}\n" for i in range(count))
            (raw / f"{split}.{language}.gz").write_bytes(gzip.compress(text.encode()))
        (splits / f"{split}.txt").write_text("".join(f"{first + i}.jpg\n" for i in range(count)))
        for i in range(first, first + count, 2):
            render(Scene(i), 48).save(shown / f"{i}_0a1b.png")
    (shown / "6_0a1b.png").write_text("no picture")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        make_small(monkeypatch)
        blind = f"{ON_MULTI30K} --to runs/blind --decoder lstm --fusion prefix".replace("--photographs shown ", "")
        told = [quietly(command) for command in (ON_SCENES, ON_MULTI30K, blind)]
    assert [status for status, _ in told] == [0, 0, 0]
    return folder, [out for _, out in told]


@pytest.fixture
def translating(translators, monkeypatch):
    """In that folder; what the trainings printed."""
    folder, told = translators
    make_small(monkeypatch)
    monkeypatch.chdir(folder)
    return told


def measures(out):
    """Every line of a translation's measures: way -> the numbers in it."""
    return {way.strip(): re.findall(r"[\d.]+", rest) for way, rest in re.findall(r"^  (.{14}) BLEU (.*)$", out, re.M)}


def test_a_translator_of_scenes_is_trained_and_measured(translating, capsys):
    out = translating[0]
    assert "train: 90 sentences with their translations, 90 of them with pictures; 0 problems" in out
    assert "runs/scenes, 13 sentences of the validation split" in out
    run, data = Path("runs/scenes"), SceneTranslation("validation", 13, "en", "de", 32, "some")
    model, vocabulary, saved = load_run(run)
    both = vocabularies(saved)
    assert both[0] is both[1] and both[0].state() == vocabulary.state() and len(vocabulary) < 400
    assert {name: saved["facts"][name] for name in ("task", "data", "source", "target")} == {
        "task": "translation", "data": "scenes", "source": "en", "target": "de",
    }  # fmt: skip
    assert saved["train_config"]["label_smoothing"] == 0.1 and saved["train_config"]["epochs"] == 1
    for way, picture in (("with-pictures", data.picture), ("without", None)):
        written = write_translations(model, vocabulary, vocabulary, data.sources, picture, 7, saved["model_config"]["max_length"])
        lines = (run / f"translations-validation-{way}.jsonl").read_text("utf-8").removesuffix("\n").split("\n")
        entries = [json.loads(line) for line in lines]
        assert [entry["translation"] for entry in entries] == list(map(detokenize, written))
        assert [tokenize(entry["source"]) for entry in entries] == data.sources
        assert [[entry["reference"]] for entry in entries] == data.captions
        numbers = measures(out)[way.replace("-", " ")]
        assert numbers[:3] == [f"{x:.1f}" for x in caption_scores(written, data.references)["BLEU-4"]]
        assert numbers[3:6] == share(sum([tokens] == refs for tokens, refs in zip(written, data.references)), 13)
        assert 0 <= float(numbers[6]) <= 100 and len(numbers) == 9
    assert "python -m mmscratch translate" in out and "--run runs/scenes" in out
    assert main("evaluate runs/scenes".split()) == 0
    assert measures(capsys.readouterr().out) == measures(out)


def test_evaluate_of_a_translator_says_which_colours_are_right(translating, monkeypatch, capsys):
    data = SceneTranslation("test", 13, "en", "de", 32, "some")
    right, asked = [list(refs[0]) for refs in data.references], []
    wrong = [["blauer" if colour_of(token, "de") == "red" else token for token in tokens] for tokens in right]

    def write(*arguments, num_beams, **options):
        asked.append(num_beams)
        return right if arguments[-1] else wrong

    monkeypatch.setattr("mmscratch.decoding.write_translations", write)
    assert main("evaluate runs/scenes --split test --beams 3".split()) == 0
    out = capsys.readouterr().out
    colours = [colour_of(token, "de") for tokens in right for token in tokens if colour_of(token, "de")]
    found = measures(out)
    assert found["with pictures"] == ["100.0"] * 9 and asked == [3, 3]
    assert found["without"][3:6] == share(sum(a == b for a, b in zip(right, wrong)), 13)
    assert found["without"][6:] == share(sum(colour != "red" for colour in colours), len(colours)) and "red" in colours
    assert Path("runs/scenes/translations-test-without.jsonl").exists()


def test_translate_takes_sentences_and_lines_pictures_and_beams(translating, monkeypatch, capsys):
    model, vocabulary, saved = load_run("runs/scenes")
    longest, sentences = saved["model_config"]["max_length"], ["A big red star.", "a small [v] cat at the top"]
    render(Scene(3), 80).save("scene.png")
    picture = to_tensor(open_image(Path("scene.png")), 32)

    tokens = write_translations(model, vocabulary, vocabulary, list(map(tokenize, sentences)), None, 1, longest)
    assert main(["translate", *sentences]) == 0  # by the run of scenes
    assert capsys.readouterr().out == "".join(" ".join(detokenize(sentence).split()) + "\n" for sentence in tokens)
    asked = []

    def write(model, vocabulary, source_vocabulary, sources, show, batch_size, max_length, num_beams):
        asked.append((show(0), max_length, num_beams))
        return [["also", *words] for words in sources]

    monkeypatch.setattr("mmscratch.decoding.write_translations", write)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{sentences[0]}\n\n  {sentences[1]} "))
    assert main(["translate", "--run", "runs/scenes", "--image", "scene.png"]) == 0
    assert capsys.readouterr().out == "also a big red star.\n\nalso a small [v] cat at the top\n"
    assert len(asked) == 2 and all(torch.equal(shown, picture) and rest == [longest, 1] for shown, *rest in asked)
    assert main(["translate", *sentences, "--beams", "3"]) == 0
    assert asked[2:] == [(None, longest, 3)] * 2


def test_a_translator_of_multi30k_sees_the_photographs_that_there_are(translating, capsys):
    out = translating[1]
    assert "train: 31 sentences with their translations, 15 of them with pictures; 1 problems" in out and "6_0a1b.png" in out
    assert "validation: 11 sentences with their translations, 6 of them with pictures; 0 problems" in out
    assert "6_0a1b.png: not a picture" in Path("runs/multi/problems-train.txt").read_text()
    assert measures(out).keys() == {"with pictures", "without"} and "colours right" not in out
    assert main("evaluate runs/multi".split()) == 0
    assert measures(capsys.readouterr().out) == measures(out)
    assert main("evaluate runs/multi --split test --data multi".split()) == 0
    assert "5 sentences of the test split" in capsys.readouterr().out
    assert Path("runs/multi/translations-test-without.jsonl").read_text("utf-8").count("\n") == 5


def test_a_translator_without_pictures_says_so(translating, capsys):
    out = translating[2]
    assert "31 sentences with their translations, 0 of them with pictures; 0 problems" in out
    assert measures(out).keys() == {""} and Path("runs/blind/translations-validation.jsonl").exists()
    model, _, _ = load_run("runs/blind")
    assert list(model.encoders) == ["source"]
    assert (type(model.decoder).__name__, model.decoder.fusion) == ("LSTMDecoder", "prefix")
    assert main("translate star --run runs/blind".split()) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_translation_that_was_stopped_goes_on(translating, monkeypatch, capsys):
    step = Trainer._train_step

    def pressing(trainer, batch):
        if trainer.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer, batch)

    command = [*ON_MULTI30K.split(), "--to", "runs/stopped"]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", pressing)
        assert main(command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert main(command) == 0
    assert "going on with runs/stopped at step 2 of 3" in capsys.readouterr().out
    ours, whole = (load_run(run)[0].state_dict() for run in ("runs/stopped", "runs/multi"))
    assert all(torch.equal(ours[name], whole[name]) for name in whole)
    assert main([*command, "--source", "de", "--target", "en"]) == 2
    assert "source de, there en" in error_of(capsys)


def test_a_translator_begins_with_another(translating, capsys):
    command = "train --task translation --data multi --from runs/scenes --epochs 1 --freeze encoders --to runs/more --precision float32"
    assert main(command.split()) == 0
    table = parts(capsys.readouterr().out)
    assert {share for name, (_, share) in table.items() if name.startswith("encoders")} == {0}
    assert 100 in {share for name, (_, share) in table.items() if name.startswith("decoder")}
    (base, words, _), (model, vocabulary, saved) = load_run("runs/scenes"), load_run("runs/more")
    assert vocabulary.state() == words.state() and saved["model_config"]["joint_vocabulary"]
    state = model.state_dict()
    frozen = [name for name in base.state_dict() if name.startswith("encoders") or "words" in name]
    assert all(torch.equal(old := base.state_dict()[name], state[name][: len(old)] if old.dim() else state[name]) for name in frozen)
    assert any(not torch.equal(weight, state[name]) for name, weight in base.state_dict().items() if name not in frozen)
    assert main(f"{command} --image-size 48".split()) == 2
    assert "--image-size is 32 in runs/scenes, and cannot become 48" in error_of(capsys)


@pytest.mark.parametrize("arguments, says", [
    ("caption scene.png --run runs/scenes", "runs/scenes is a translator, which needs a sentence: python -m mmscratch translate"),
    ("translate star --run captioner", "captioner is not a translator"),
    ("translate star --run nowhere", "nowhere holds no trained model"),
    ("translate star --run runs/blind --image scene.png", "runs/blind translates without pictures: leave out --image"),
    ("translate star --run runs/scenes --image nothing.png", "nothing.png"),
    ("translate star --run runs/scenes --image multi/data/task1/raw/val.de.gz", "not a picture"),
    ("translate star --run runs/scenes --beams 0", "num_beams is 1 or more beams, not 0"),
    (f"{ON_SCENES} --source de --target de", "'de' is the language of source and target: choose two"),
    (f"{ON_SCENES} --target fr", "fr"),
    (f"{ON_SCENES} --from captioner", "--task is captioning in captioner, and cannot become translation"),
    (f"{ON_SCENES} --from nowhere", "nowhere holds no trained model"),
    (f"{ON_SCENES} --epochs 0", "--epochs must be at least 1"),
    (f"{ON_MULTI30K} --target fr", "train.fr: not there, nor as .gz; there is test_2016_flickr.de"),
    (f"{ON_MULTI30K} --photographs nowhere", "nowhere: no such folder of photographs"),
    ("train --task translation --data nowhere", "there is nothing"),
    ("evaluate runs/multi --split test_2017", "test_2017.en: not there"),
    ("train --data photos --from runs/scenes", "--task is translation in runs/scenes, and cannot become captioning"),
])  # fmt: skip
def test_bad_use_of_a_translator_gets_one_line_and_2(translating, trained, capsys, arguments, says):
    shutil.copytree(trained, "captioner", dirs_exist_ok=True)
    Path("photos").mkdir(exist_ok=True)
    for name in ("scene.png", "photos/a.png", "photos/b.png"):
        render(Scene(3), 48).save(name)
    Path("photos/captions.csv").write_text("file_name,caption,split\na.png,a star,train\nb.png,a cat,val")
    assert main(arguments.split()) == 2
    assert says in error_of(capsys)
