"""The marks that some tests carry: python -m pytest -m "not notebook" leaves those out, -m gpu runs only those."""

import pytest
import torch


def pytest_configure(config):
    config.addinivalue_line("markers", "notebook: executes a chapter's notebook in its fast version")
    config.addinivalue_line("markers", "gpu: needs a GPU, and is skipped without one")


def pytest_runtest_setup(item):
    if "gpu" in item.keywords and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
