"""What several test files ask."""

import torch
from torch.testing import assert_close

from mmscratch.batches import CaptionPairs
from mmscratch.data.captions import SceneCaptions
from mmscratch.model import ModelConfig
from mmscratch.text import Vocabulary
from mmscratch.training import TrainConfig, Trainer


def assert_same_gradients(ours, reference, our_results, reference_results, inputs, tolerance=1e-5):
    """Of all results together, with respect to the inputs and every parameter."""
    upstream = [torch.randn_like(result) for result in reference_results]
    wanted = {f"inputs[{i}]": x for i, x in enumerate(inputs)}
    ours, reference = wanted | dict(ours.named_parameters()), wanted | dict(reference.named_parameters())
    got = torch.autograd.grad(our_results, list(ours.values()), upstream)
    expected = torch.autograd.grad(reference_results, list(reference.values()), upstream)
    assert_close(dict(zip(ours, got)), dict(zip(reference, expected)), rtol=tolerance, atol=tolerance)


def random_double(module):
    """The same module in float64, all its weights random, so that no bias of 0 and no scale of 1 hides a mistake."""
    module = module.double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def tiny_trainer(folder, config=None, count=53, **model):
    """A trainer of a tiny model with dropout, batch norm and augmented pictures, on so many captions of drawn scenes."""
    training, validation = SceneCaptions("train", count, size=32, one_each=True), SceneCaptions("validation", 3, size=32)
    vocabulary = Vocabulary.build(c for data in (training, validation) for refs in data.references for c in refs)
    size = {"depth": (1,), "width": 5, "image_size": 32, "embed_dim": 12, "hidden_size": 13, "num_heads": 2, "dropout": 0.2}
    pairs = CaptionPairs(training, vocabulary, augmented=True), CaptionPairs(validation, vocabulary)
    config = config or TrainConfig(epochs=2, batch_size=7, warmup=4, evaluate_every=5, precision="float32")  # 16 steps
    return Trainer(ModelConfig(len(vocabulary), **size | model), config, *pairs, folder, facts={"data": "scenes"})
