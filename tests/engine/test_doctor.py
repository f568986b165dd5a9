"""doctor: the report on this machine; it works even if a package is missing."""

import re
import subprocess
import sys
from pathlib import Path

from mmscratch.__main__ import main

ROOT = Path(__file__).resolve().parents[2]


def test_doctor_finds_nothing_wrong_here_and_reports_a_missing_package(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for what in ("Python", "torch", "torchvision", "device", "cores", "memory", "nothing is wrong"):
        assert what in out
    assert re.search(r"^quickstart   about \d+ min", out, re.M)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["doctor"]) == 2
    assert "matplotlib cannot be imported" in capsys.readouterr().out


def test_doctor_works_without_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; from mmscratch.__main__ import main; sys.exit(main())"
    run = subprocess.run(
        [sys.executable, "-c", code, "doctor"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 2 and run.stderr == ""
    assert (
        "torch cannot be imported (no torch here): python -m pip install -r requirements.txt"
        in run.stdout
    )
