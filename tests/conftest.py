"""The marks that some tests carry: python -m pytest -m "not notebook" leaves those out, -m gpu runs only those."""

import os

import pytest
import torch


def pytest_configure(config):
    config.addinivalue_line("markers", "notebook: executes a chapter's notebook in its fast version")
    config.addinivalue_line("markers", "gpu: needs a GPU, and is skipped without one")
    torch.set_num_threads(1)  # what tests compute is tiny, and threads that wait for each other take time from the rest
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # also in the processes that tests start


def pytest_runtest_setup(item):
    if "gpu" in item.keywords and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
