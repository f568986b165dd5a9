"""The folder of a run: one process at a time, the same data, and a checkpoint in any case."""

import multiprocessing
import os
import shutil
import signal
import time
import zipfile

import pytest
import torch
from helpers import tiny_trainer

from mmscratch.data.captions import FolderCaptions, SceneCaptions
from mmscratch.data.tables import TableData, TableOptions
from mmscratch.engine.runs import lock, read_checkpoint
from mmscratch.weights import read_weights

FORK = multiprocessing.get_context("fork")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def hold(folder, held, release):
    """Lock a folder in a process of its own, until it may go."""
    with lock(folder):
        held.set()
        release.wait(30)


@pytest.fixture
def holder(tmp_path):
    held, release = FORK.Event(), FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path / "run", held, release))
    process.start()
    assert held.wait(30)
    yield process, release
    process.kill()
    process.join()


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path, holder):
    process, release = holder
    with pytest.raises(ValueError) as caught:
        with lock(tmp_path / "run"):
            pass
    who = f"process {process.pid} on "
    assert str(caught.value).startswith(f"{tmp_path}/run: {who}")
    assert "is training there: wait, stop it, or choose another --to" in str(caught.value)
    release.set()
    process.join(30)
    with lock(tmp_path / "run"):
        assert (tmp_path / "run/lock").read_text().startswith(f"process {os.getpid()} on ")
    assert not any((tmp_path / "run").iterdir())


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    process, _ = holder
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert (tmp_path / "run/lock").exists()
    with lock(tmp_path / "run"):
        pass


def test_many_processes_never_hold_a_folder_together(tmp_path):
    """Each of four locks it as often as it can, and writes its number twice."""

    def work(number):
        done = 0
        while done < 40:
            try:
                with lock(tmp_path / "run"):
                    with open(tmp_path / "log", "a") as file:
                        file.write(f"{number} ")
                        file.flush()
                        time.sleep(0.001)
                        file.write(f"{number}\n")
                    done += 1
            except ValueError:
                time.sleep(0.001)

    processes = [FORK.Process(target=work, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 160 and all(len(set(line.split())) == 1 for line in lines)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setattr("mmscratch.training.pick_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_training_in_a_folder_that_is_held_is_refused_and_changes_nothing(tmp_path, holder):
    trainer = tiny_trainer(tmp_path / "run")
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    with pytest.raises(ValueError, match="is training there"):
        trainer.fit()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


def test_a_checkpoint_is_saved_soon(tmp_path, monkeypatch):
    trainer = tiny_trainer(tmp_path / "run")
    monkeypatch.setattr("mmscratch.training.FIRST_SAVE_SECONDS", 0)
    step = trainer._train_step

    def stop_after_three(batch):
        if trainer.step == 3:
            raise SystemExit
        return step(batch)

    trainer._train_step = stop_after_three
    with pytest.raises(SystemExit):
        trainer.fit()
    assert read_checkpoint(tmp_path / "run/last.pt")["step"] == 1


def test_a_folder_that_is_deleted_is_made_again(tmp_path, capsys):
    trainer = tiny_trainer(tmp_path / "run")
    step = trainer._train_step

    def delete(batch):
        if trainer.step == 9:
            shutil.rmtree(tmp_path / "run")
        return step(batch)

    trainer._train_step = delete
    trainer.fit()
    assert read_checkpoint(tmp_path / "run/last.pt")["step"] == 16
    assert f"{tmp_path}/run was deleted while training: it is made again" in capsys.readouterr().err


def test_more_epochs_are_told_about_from(tmp_path):
    from mmscratch.training import TrainConfig

    config = TrainConfig(batch_size=7, precision="float32")
    tiny_trainer(tmp_path / "run", config).fit()
    config.epochs = 2
    with pytest.raises(ValueError, match=r"epochs 2, there 1\).*start another run with --from"):
        tiny_trainer(tmp_path / "run", config)


# -------------------------------------------------------------------------------------------------
# The same data?


def photographs(folder, captions="00.jpg,a dog\n01.jpg,a cat\n"):
    from PIL import Image

    folder.mkdir(parents=True)
    for i in range(2):
        Image.new("RGB", (9, 9), (90 * i, 3, 7)).save(folder / f"0{i}.jpg")
    (folder / "captions.csv").write_text(captions)
    return FolderCaptions(folder, "train", 5)


def test_the_digest_is_that_of_the_contents_wherever_they_lie(tmp_path):
    here = photographs(tmp_path / "here").digest()
    assert here == photographs(tmp_path / "there").digest() and len(here) == 12
    other = photographs(tmp_path / "other", "00.jpg,a dog\n01.jpg,a cow\n")
    assert other.digest() != here
    with open(tmp_path / "here/01.jpg", "ab") as file:
        file.write(b"more")
    assert FolderCaptions(tmp_path / "here", "train", 5).digest() != here
    table = tmp_path / "table/table.csv"
    table.parent.mkdir()
    digests = set()
    for age in (30, 30, 31):
        table.write_text(f"age,dx,split\n{age},a,train\n40,b,train\n")
        digests.add(TableData(table.parent, "train", 0, TableOptions("dx")).digest())
    assert len(digests) == 2  # each cell counts
    scenes = [SceneCaptions("train", count).digest() for count in (3, 3, 4)]
    assert scenes[0] == scenes[1] != scenes[2]


def test_data_that_have_changed_are_refused_and_moved_ones_are_not(tmp_path):
    trainer = tiny_trainer(tmp_path / "run")
    trainer.metadata["data"] = "here"
    trainer.fit()
    resumed = tiny_trainer(tmp_path / "run")  # from another folder
    assert resumed.step == 16
    with pytest.raises(ValueError, match="data with contents .*, there with contents"):
        tiny_trainer(tmp_path / "run", count=54)


# -------------------------------------------------------------------------------------------------
# Files of strangers.


def test_a_checkpoint_that_swells_is_refused_before_it_is_read(tmp_path):
    torch.save({"x": torch.zeros(1000)}, tmp_path / "best.pt")
    read_checkpoint(tmp_path / "best.pt")
    with zipfile.ZipFile(tmp_path / "best.pt") as archive:
        contents = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    for read in (read_checkpoint, read_weights):
        with pytest.raises(ValueError, match="packed.pt: a compressed archive .* unpacked"):
            read(tmp_path / "packed.pt")


def test_a_damaged_archive_is_refused_in_one_line(tmp_path):
    torch.save({"x": torch.zeros(1000)}, tmp_path / "best.pt")
    content = bytearray((tmp_path / "best.pt").read_bytes())
    place = content.index(b"PK\x01\x02")  # the archive's directory
    content[place : place + 4] = bytes(4)
    (tmp_path / "best.pt").write_bytes(content)
    with pytest.raises(ValueError, match="best.pt: not a checkpoint that can be read"):
        read_checkpoint(tmp_path / "best.pt")


def test_a_pipe_is_no_checkpoint_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "best.pt")
    with pytest.raises(ValueError, match="best.pt: not a regular file"):
        read_checkpoint(tmp_path / "best.pt")
