"""The page about a run: what is in it, that nothing in it is markup, and what a browser shows."""

import base64
import io
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import error_of, run_command
from PIL import Image

from mmscratch.__main__ import main
from mmscratch.data.captions import SceneCaptions
from mmscratch.data.judge import judge
from mmscratch.decoding import Candidate
from mmscratch.engine import page as page_module
from mmscratch.inspection import inspect
from mmscratch.tasks import TASKS, report
from mmscratch.tasks.task import load
from mmscratch.text import detokenize

COUNTS = {
    "captioning.VALIDATION_SCENES": 13,
    "captioning.TEST_SCENES": 13,
    "retrieval.VALIDATION_SCENES": 13,
    "retrieval.TEST_SCENES": 13,
    "mixture.VALIDATION_EXAMPLES": 2,
    "mixture.TEST_EXAMPLES": 3,
}
PARTS = "captions-en,questions,speech-en,prices"
TRAIN = {
    "captioning": "--data scenes --scenes 300 --batch-size 10",
    "retrieval": "--task retrieval --data scenes --scenes 53 --image-size 32 --batch-size 7",
    "mixture": f"--task mixture --parts {PARTS} --examples 64 --batch-size 16",
}

pytestmark = pytest.mark.xdist_group("report")  # the tests share trained runs


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a run of each of three tasks, and their reports."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, count in COUNTS.items():
            patch.setattr(f"mmscratch.tasks.{name}", count)
        for task, options in TRAIN.items():
            status, _ = run_command(f"train {options} --precision float32 --to runs/{task}")
            assert status == 0
            status, out = run_command(f"evaluate runs/{task}")
            assert status == 0 and f"open runs/{task}/report.html" in out
    return folder


@pytest.fixture(autouse=True)
def small(home, monkeypatch):
    monkeypatch.chdir(home)
    for name, count in COUNTS.items():
        monkeypatch.setattr(f"mmscratch.tasks.{name}", count)


def read_page(task):
    """The values in the page about a run."""
    text = Path(f"runs/{task}/report.html").read_text(encoding="utf-8")
    (values,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(values)


def picture_in(address):
    return Image.open(io.BytesIO(base64.b64decode(address.partition("base64,")[2])))


def test_a_captioners_page(home):
    values = read_page("captioning")
    model, vocabularies, _ = load(Path("runs/captioning"))
    data = SceneCaptions("test", 13)
    assert values["title"] == "runs/captioning" and len(values["cards"]) == 13
    assert values["command"].startswith("python -m mmscratch train --data scenes --scenes 300")
    assert json.loads(values["settings"])["train_config"]["batch_size"] == 10
    scores = dict(values["scores"])
    assert {"true by judge", "BLEU-4", "CIDEr-D"} <= scores.keys()
    printed = Path("runs/captioning/scores-test.txt").read_text()
    assert f"true by judge        {scores['true by judge']}" in printed
    for i, card in enumerate(values["cards"]):
        scene = data.scenes[i]
        words = [word["text"] for word in card["words"]]
        judgement = judge(detokenize(words), scene)
        assert card["right"] == judgement.true and card["wrong"] == list(judgement.wrong)
        assert card["group"] == f"objects: {len(scene.objects)}"
        assert card["references"] == data.texts[i]
        (image,) = card["inputs"]
        assert picture_in(image["source"]).size == (240, 240)
        expected = inspect(model, vocabularies, {"image": data[i]["image"]}, words)
        for word, other in zip(card["words"], expected):
            assert word["p"] == round(other.probability, 3) and word["other"] == other.runner_up
            encoded, share = word["looks"]["image"]
            weights = np.frombuffer(base64.b64decode(encoded), dtype=np.uint8) / 255
            truth = other.attention["image"].numpy()
            np.testing.assert_allclose(weights, truth / truth.max(), atol=1 / 255)
            assert share == pytest.approx(1, abs=2e-3)
        finished = [node for node in card["tree"] if node[3] == 2]
        assert finished and all(parent < i for i, (parent, *_) in enumerate(card["tree"]))


def test_the_page_shows_how_it_learned_to_speak():
    lines = Path("runs/captioning/metrics.jsonl").read_text().splitlines()
    validated = [entry for entry in map(json.loads, lines) if "validation_loss" in entry]
    values = read_page("captioning")
    assert values["outputs"] == [[entry["step"], entry["outputs"]] for entry in validated]
    assert values["curves"]["validation"][-1] == [30, validated[-1]["validation_loss"]]
    data = SceneCaptions("validation", 2)
    assert [watched["references"][0] for watched in values["watched"]] == [
        texts[0] for texts in data.texts
    ]


def test_a_page_of_every_input():
    values = read_page("mixture")
    kinds = {part: set() for part in PARTS.split(",")}
    for card in values["cards"]:
        shown = {shown["modality"]: shown for shown in card["inputs"]}
        kinds[card["group"]] |= shown.keys()
        for word in card["words"]:
            assert word["looks"].keys() == shown.keys()
            assert sum(look[1] for look in word["looks"].values()) == pytest.approx(1, abs=3e-3)
        if "sound" in shown:
            assert shown["sound"]["sound"].startswith("data:audio/wav;base64,")
            assert picture_in(shown["sound"]["source"]).height == 80
        if "row" in shown:
            cells = dict(shown["row"]["cells"])
            assert cells["condition"] in ("new", "good", "worn", "broken")
            assert float(cells["age (years)"]) in range(21)
    assert kinds == {
        "captions-en": {"image", "source"},
        "questions": {"image", "source"},
        "speech-en": {"sound", "source"},
        "prices": {"image", "source", "row"},
    }


def test_a_page_of_rankings():
    values = read_page("retrieval")
    assert len(values["cards"]) == 13 and values["outputs"] == []
    for card in values["cards"]:
        assert len(card["found"]) == 5
        assert card["right"] == card["found"][0]["right"]


def test_numbers_that_json_lacks_are_left_out_or_replaced(monkeypatch, capsys):
    shutil.copytree("runs/captioning", "runs/infinite")
    with Path("runs/infinite/metrics.jsonl").open("a") as file:
        file.write('{"step": 71, "loss": NaN}\n{"step": 72, "validation_loss": null}\n')
    impossible = Candidate(-1, 5, -math.inf, -math.inf, "dropped")

    def search(*arguments, trees):
        trees += [[impossible]] * 13

    monkeypatch.setattr(report, "beam_search", search)
    assert main(["report", "runs/infinite"]) == 0
    values = read_page("infinite")
    assert values["curves"]["training"][-1][0] <= 30
    assert values["cards"][0]["tree"][0][2] == -99


def test_texts_of_strangers_are_no_markup(tmp_path):
    evil = "</script><script>alert(1)</script><!-- &amp; \u2028"
    page_module.write_page(tmp_path / "page.html", {"title": evil})
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    template = page_module.TEMPLATE.read_text(encoding="utf-8")
    assert text.count("<script") == template.count("<script") and "alert(1)<" not in text
    (values,) = re.findall(r'id="data">(.*?)</script>', text, re.S)
    assert json.loads(values) == {"title": evil}
    assert "innerHTML" not in template and "http://" not in template.replace(
        "http://www.w3.org", ""
    )


def test_script_and_page_are_small(monkeypatch):
    script = page_module.TEMPLATE.read_text(encoding="utf-8").rpartition("<script>")[2]
    assert len(script.partition("</script>")[0].strip().splitlines()) < 200
    shutil.copytree("runs/captioning", "runs/small")
    monkeypatch.setattr(report, "MAX_BYTES", 60_000)
    assert main(["report", "runs/small"]) == 0
    cards = read_page("small")["cards"]
    assert 0 < len(cards) < 13
    assert Path("runs/small/report.html").stat().st_size < 60_000 + 20_000


def test_runs_that_have_no_page(capsys):
    assert main(["report", "runs/none"]) == 2
    assert "runs/none holds no trained model" in error_of(capsys)


def test_a_run_without_measurements_has_a_page(capsys):
    shutil.copytree("runs/captioning", "runs/bare")
    for name in ("metrics.jsonl", "scores-test.txt", "command.txt"):
        Path("runs/bare", name).unlink()
    assert main(["report", "runs/bare"]) == 0
    values = read_page("bare")
    assert values["scores"] == [] and values["command"] == "" and len(values["cards"]) == 13


def test_every_task_can_judge_an_output():
    assert all(callable(task.verdict) for task in TASKS.values())


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    program = program or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


PIXELS = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 8, 8).data].filter((_, i) => i % 4 == 3)"  # fmt: skip


def test_a_word_lights_the_picture_where_the_model_looked(browser, home):
    tab = browser.new_page()
    errors = []
    tab.on("pageerror", lambda error: errors.append(error))
    tab.goto(f"file://{home}/runs/captioning/report.html")
    values = read_page("captioning")
    card = tab.locator("#cards .card").nth(1)
    words = values["cards"][1]["words"]
    buttons = card.locator(".words button")
    assert buttons.count() == len(words) > 1
    model, vocabularies, _ = load(Path("runs/captioning"))
    picture = SceneCaptions("test", 13)[1]["image"]
    texts = [word["text"] for word in words]
    attention = inspect(model, vocabularies, {"image": picture}, texts)

    def darkness(i):
        weights = attention[i].attention["image"].numpy()
        return 205 * (1 - weights / weights.max())

    buttons.nth(0).hover()
    np.testing.assert_allclose(card.locator("canvas").evaluate(PIXELS), darkness(0), atol=1.5)
    buttons.nth(0).focus()
    tab.keyboard.press("ArrowRight")  # the keyboard does the same
    np.testing.assert_allclose(card.locator("canvas").evaluate(PIXELS), darkness(1), atol=1.5)
    assert f"next best “{words[1]['other']}”" in card.locator(".info").inner_text()
    tab.mouse.move(0, 0)
    buttons.nth(1).blur()
    assert card.locator("canvas").evaluate("canvas => canvas.width") == 1  # nothing is darkened

    tab.locator("#filters select").last.select_option("objects: 2")
    shown = sum(card["group"] == "objects: 2" for card in values["cards"])
    assert tab.locator("#cards .card:visible").count() == shown
    assert tab.locator("#count").inner_text() == f"{shown} of 13 examples"

    tab.locator("#step").fill("0")
    assert tab.locator("#watched .card p").first.inner_text() == (
        values["outputs"][0][1][0] or "(nothing)"
    )
    assert errors == []


@pytest.mark.parametrize("task", TRAIN)
@pytest.mark.parametrize("width", [360, 1280])
def test_pages_fit_a_phone_and_a_screen(browser, home, task, width):
    tab = browser.new_page(viewport={"width": width, "height": 700}, color_scheme="dark")
    errors = []
    tab.on("pageerror", lambda error: errors.append(error))
    tab.goto(f"file://{home}/runs/{task}/report.html")
    tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    tab.wait_for_timeout(100)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for box in tab.locator("#cards img").all()[:3]:
        assert box.get_attribute("alt")
    for button in tab.locator(".words button").all()[:3]:
        button.hover()
    assert errors == []
