"""Pre-training: a CNN learns what is in a picture, before a decoder has to speak of it."""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .images import normalize
from .scenes import COLOURS, NOUNS, SIZES, SPLITS, Scene, render
from .training import pick_device, read_checkpoint, write_atomically
from .vision import ResNet

LABELS = (*NOUNS, *COLOURS, *SIZES)  # what can be in a picture


def labelled_scenes(split: str, count: int, size: int = 64) -> tuple[Tensor, Tensor]:
    """The first `count` scenes of a split: images (N, 3, size, size) uint8, labels (N, L) bool.

    labels[n, LABELS.index(word)] is True where a thing in picture n has that noun, colour or size; a picture has many.
    """
    images = torch.empty(count, 3, size, size, dtype=torch.uint8)
    labels = torch.zeros(count, len(LABELS), dtype=torch.bool)
    index = {word: i for i, word in enumerate(LABELS)}
    for n in range(count):
        scene = Scene(SPLITS[split] + n)
        images[n] = torch.from_numpy(np.array(render(scene, size))).permute(2, 0, 1)
        labels[n, [index[word] for thing in scene.things for word in thing.look]] = True
    return images, labels


def warmup_and_cosine(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate rises to its peak for the first tenth of the steps, and falls as half a cosine to 0."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(10 * (step + 1) / steps, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )


def train_labels(
    model: nn.Module, images: Tensor, labels: Tensor, epochs: int = 2, batch_size: int = 32, seed: int = 0
) -> list[float]:
    """Teach `model`, pictures -> logits (B, L), which labels are there; the loss of every step.

    The loss is the binary cross-entropy of each label by itself, since one does not exclude another. A label weighs the
    less the commoner it is: otherwise a net learns the colours first, from features that tell nothing of shapes.
    AdamW; the learning rate rises to 3e-3 for the first tenth, then falls as a cosine.
    """
    if len(images) < batch_size:
        raise ValueError(f"{len(images)} pictures do not fill a batch of {batch_size}")
    device = pick_device()
    model.to(device, memory_format=torch.channels_last).train()
    frequency = labels.float().mean(0).clamp(min=1 / len(labels))
    weight = (frequency.min() / frequency).to(device)  # (L,)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    steps = epochs * (len(images) // batch_size)
    schedule = warmup_and_cosine(optimizer, steps)
    generator, losses = torch.Generator().manual_seed(seed), []
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for batch in order.split(batch_size)[: len(images) // batch_size]:
            logits = model(normalize(images[batch].to(device)))  # (B, L)
            loss = F.binary_cross_entropy_with_logits(logits, labels[batch].to(device, torch.float32), weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return losses


@torch.no_grad()
def predict_labels(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (N, L), above 0 where the model says that the label is there. Puts the model into eval mode."""
    model.eval()
    device = next(model.parameters()).device
    return torch.cat([model(normalize(batch.to(device))).cpu() for batch in images.split(250)])


def pretrained_cnn(path: Path, scenes: int) -> ResNet:
    """The ResNet that knows what is in a picture: read from `path`, or trained on so many scenes and written there.

    Raises ValueError, naming the file, where it is not what this function wrote.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ResNet((1, 1, 1), num_classes=len(LABELS), width=32)
    if path.exists():
        saved = read_checkpoint(path)
        if not isinstance(saved, dict) or saved.get("labels") != LABELS:
            raise ValueError(f"{path}: not a CNN that knows these labels; delete it, and it is trained anew")
        model.load_state_dict(saved["model"])
        print(f"the CNN of {path}, trained before, is used")
        return model.to(pick_device()).eval()
    print(f"{path} is not there: a CNN is trained on {scenes:,} scenes and kept there", flush=True)
    train_labels(model, *labelled_scenes("train", scenes))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, {"model": model.state_dict(), "labels": LABELS})
    return model.eval()
