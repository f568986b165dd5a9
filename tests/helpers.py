"""Helpers of several test files: tiny models and trainers, gradients compared, a tone in a file."""

import math
import multiprocessing
import os
import socket
import sys
import wave
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from torch.testing import assert_close

from mmscratch.batches import Examples
from mmscratch.data.captions import SceneCaptions
from mmscratch.model import ModelConfig
from mmscratch.text import Vocabulary
from mmscratch.training import TrainConfig, Trainer


def assert_same_gradients(ours, reference, our_results, reference_results, inputs, tolerance=1e-5):
    """The gradients of all results with respect to the inputs and every parameter are the same."""
    upstream = [torch.randn_like(result) for result in reference_results]

    def gradients(module, results):
        tensors = {f"inputs[{i}]": x for i, x in enumerate(inputs)}
        tensors |= dict(module.named_parameters())
        values = torch.autograd.grad(results, list(tensors.values()), upstream)
        return dict(zip(tensors, values))

    expected = gradients(reference, reference_results)
    assert_close(gradients(ours, our_results), expected, rtol=tolerance, atol=tolerance)


def random_double(module):
    """The module in float64 with random weights, so no bias of 0 or scale of 1 hides a mistake."""
    module = module.double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


# The encoders and decoders of tiny models.
IMAGE = {"name": "resnet", "image_size": 32, "depth": (1,), "width": 5, "num_layers": 0}
# without batch norm
DETERMINISTIC_IMAGE = {
    "name": "vit",
    "image_size": 32,
    "depth": 1,
    "hidden_dim": 8,
    "num_layers": 0,
}
LSTM = {"name": "lstm", "hidden_size": 13, "dropout": 0.2}
TRANSFORMER = {"name": "transformer", "num_heads": 2, "num_layers": 2, "dropout": 0.2}


def deterministic_settings(decoder=LSTM):
    """Settings without batch norm and dropout, so that the division of a batch does not matter."""
    return {"image": DETERMINISTIC_IMAGE, "decoder": decoder | {"dropout": 0.0}}


def tiny_config(vocab_size, image=IMAGE, decoder=LSTM, embed_dim=12, **settings):
    """The ModelConfig of a tiny captioner."""
    return ModelConfig(vocab_size, {"image": image}, decoder, embed_dim, **settings)


def tiny_trainer(folder, config=None, count=53, **model):
    """A trainer of a tiny model with dropout, batch norm and augmentation, on `count` scene captions."""
    training = SceneCaptions("train", count, size=32, one_caption_each=True)
    validation = SceneCaptions("validation", 3, size=32)
    references = training.references + validation.references
    vocabulary = Vocabulary.build(chain.from_iterable(references))
    vocabularies = {"target": vocabulary}
    examples = Examples(training, vocabularies, augmented=True), Examples(validation, vocabularies)
    if config is None:  # 16 steps
        config = TrainConfig(
            epochs=2, batch_size=7, warmup_fraction=0.25, evaluate_every=5, precision="float32"
        )
    model_config = tiny_config(len(vocabulary), **model)
    return Trainer(model_config, config, examples, folder, metadata={"data": "scenes"})


def step_gradients(trainer, batch):
    """The stats of a training step, and its gradients before clipping; the weights do not change."""
    gradients = {}

    def record():
        for name, parameter in trainer.model.named_parameters():
            gradients[name] = parameter.grad.clone()

    config = trainer.config
    step = trainer.optimizer.step
    trainer.config = replace(config, clip_norm=math.inf)
    trainer.optimizer.step = record
    stats = trainer._train_step(batch)
    trainer.config = config
    trainer.optimizer.step = step
    return stats, gradients


def in_processes(size, task, folder):
    """Run task(folder) in `size` processes, as torchrun does; but forked, without importing again.

    -> their exit codes. What rank 0 prints is in the file "printed".
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(rank):
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        torch.cuda.is_available = lambda: False  # a forked process could not use it
        with open(folder / "printed" if rank == 0 else os.devnull, "w") as sys.stdout:
            task(folder)

    processes = [
        multiprocessing.get_context("fork").Process(target=run, args=(rank,))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(150)
        process.kill()  # those that still run
        process.join()
    return [process.exitcode for process in processes]


def tone(path, hertz=440, seconds=0.13, rate=8000):
    """Write a sine as a WAV file of 16 bits, with the standard library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * rate)) / rate
    samples = (20000 * np.sin(2 * np.pi * hertz * times)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
