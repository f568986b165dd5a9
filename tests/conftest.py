"""How the tests run: one process per core, up to four, one thread each; and the marks that some carry.

python -m pytest tests -m "not notebook" leaves those out, -m gpu runs only those, -n 0 runs all in one process.
"""

import os
from pathlib import Path

import pytest
import torch


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """With pytest-xdist, the whole suite runs in several processes, unless -n or --pdb says otherwise."""
    if hasattr(config, "workerinput"):  # this is one of those processes
        return
    is_whole = [Path(argument).resolve() for argument in config.args] == [Path(__file__).parent]
    if is_whole and config.pluginmanager.hasplugin("xdist") and config.option.numprocesses is None:
        if not (config.option.usepdb or config.option.collectonly):
            config.option.numprocesses = min(4, os.cpu_count() or 1)  # each takes up to a gigabyte
            config.option.dist = "loadgroup"


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "notebook: executes a chapter's notebook in its fast version"
    )
    config.addinivalue_line("markers", "gpu: needs a GPU, and is skipped without one")
    config.addinivalue_line(
        "markers", "xdist_group(name): these share something expensive, and run in one process"
    )
    torch.set_num_threads(
        1
    )  # what tests compute is tiny, and threads that wait for each other take time from the rest
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # also in the processes that tests start


def pytest_runtest_setup(item):
    if "gpu" in item.keywords and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
