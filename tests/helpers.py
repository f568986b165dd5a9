"""What several test files ask."""

import math
from dataclasses import replace

import torch
from torch.testing import assert_close

from mmscratch.batches import Examples
from mmscratch.data.captions import SceneCaptions
from mmscratch.model import ModelConfig
from mmscratch.text import Vocabulary
from mmscratch.training import TrainConfig, Trainer


def assert_same_gradients(ours, reference, our_results, reference_results, inputs, tolerance=1e-5):
    """Of all results together, with respect to the inputs and every parameter."""
    upstream = [torch.randn_like(result) for result in reference_results]
    wanted = {f"inputs[{i}]": x for i, x in enumerate(inputs)}
    ours, reference = (
        wanted | dict(ours.named_parameters()),
        wanted | dict(reference.named_parameters()),
    )
    got = torch.autograd.grad(our_results, list(ours.values()), upstream)
    expected = torch.autograd.grad(reference_results, list(reference.values()), upstream)
    assert_close(
        dict(zip(ours, got)), dict(zip(reference, expected)), rtol=tolerance, atol=tolerance
    )


def random_double(module):
    """The same module in float64, all its weights random, so that no bias of 0 and no scale of 1 hides a mistake."""
    module = module.double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


# The encoders and decoders of tiny models.
IMAGE = {"name": "resnet", "image_size": 32, "depth": (1,), "width": 5, "num_layers": 0}
STILL_IMAGE = {
    "name": "vit",
    "image_size": 32,
    "depth": 1,
    "hidden_dim": 8,
    "num_layers": 0,
}  # no batch norm
LSTM = {"name": "lstm", "hidden_size": 13, "dropout": 0.2}
TRANSFORMER = {"name": "transformer", "num_heads": 2, "num_layers": 2, "dropout": 0.2}


def still(decoder=LSTM):
    """Settings of a model without batch norm and dropout, so that it does not matter how a batch is divided."""
    return {"image": STILL_IMAGE, "decoder": decoder | {"dropout": 0.0}}


def tiny_config(vocab_size, image=IMAGE, decoder=LSTM, embed_dim=12, **settings):
    """The ModelConfig of a tiny captioner."""
    return ModelConfig(vocab_size, {"image": image}, decoder, embed_dim, **settings)


def tiny_trainer(folder, config=None, count=53, **model):
    """A trainer of a tiny model with dropout, batch norm and augmented pictures, on `count` captions of drawn scenes."""
    training = SceneCaptions("train", count, size=32, one_caption_each=True)
    validation = SceneCaptions("validation", 3, size=32)
    vocabulary = Vocabulary.build(
        c for data in (training, validation) for refs in data.references for c in refs
    )
    vocabularies = {"target": vocabulary}
    examples = Examples(training, vocabularies, augmented=True), Examples(validation, vocabularies)
    config = config or TrainConfig(
        epochs=2, batch_size=7, warmup_fraction=0.25, evaluate_every=5, precision="float32"
    )  # 16 steps
    return Trainer(
        tiny_config(len(vocabulary), **model), config, examples, folder, metadata={"data": "scenes"}
    )


def step_gradients(trainer, batch):
    """What a training step reports, and the gradients with which it would change the weights, before clipping."""
    gradients = {}

    def look():
        gradients.update(
            (name, parameter.grad.clone()) for name, parameter in trainer.model.named_parameters()
        )

    config, step = trainer.config, trainer.optimizer.step
    trainer.config, trainer.optimizer.step = replace(config, clip_norm=math.inf), look
    stats = trainer._train_step(batch)
    trainer.config, trainer.optimizer.step = config, step
    return stats, gradients
