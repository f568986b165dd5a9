"""A fixture of the tests of tasks."""

import pytest

from mmscratch.training import Trainer


@pytest.fixture
def no_training(monkeypatch):
    """Stop each training before its first step; returns a list of the trainers."""
    trainers = []

    def fit(trainer, profile):
        trainers.append(trainer)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "fit", fit)
    return trainers
