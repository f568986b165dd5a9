"""How the tests run: up to four processes of one thread each; and the marks of tests.

`-m "not notebook"` leaves out the notebooks, `-m gpu` runs only the tests of a GPU, and `-n 0` runs
all in one process.
"""

import os
from pathlib import Path

import pytest
import torch


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Run the whole suite in several processes with pytest-xdist, unless -n or --pdb is given."""
    if hasattr(config, "workerinput"):  # in one of these processes
        return
    is_whole = [Path(argument).resolve() for argument in config.args] == [Path(__file__).parent]
    if is_whole and config.pluginmanager.hasplugin("xdist") and config.option.numprocesses is None:
        if not (config.option.usepdb or config.option.collectonly):
            config.option.numprocesses = min(4, os.cpu_count() or 1)  # each takes up to a gigabyte
            config.option.dist = "loadgroup"


def pytest_configure(config):
    markers = [
        "notebook: executes a chapter's notebook in its fast version",
        "gpu: needs a GPU, and is skipped without one",
        "xdist_group(name): these share something expensive, and run in one process",
    ]
    for marker in markers:
        config.addinivalue_line("markers", marker)
    # the tensors of tests are tiny: threads would only wait for each other
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for processes that tests start


def pytest_runtest_setup(item):
    if "gpu" in item.keywords and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
