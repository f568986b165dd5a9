"""The marks that some tests carry: python -m pytest -m "not notebook" leaves those out."""


def pytest_configure(config):
    config.addinivalue_line("markers", "notebook: executes a chapter's notebook in its fast version")
    config.addinivalue_line("markers", "gpu: needs a GPU")
