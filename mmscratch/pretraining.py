"""Pre-training: a CNN learns what is in a picture; then it is frozen, and a decoder learns to speak of what it sees."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from .attention import Memory
from .batches import collate
from .data.scenes import COLOURS, NOUNS, SIZES, SPLITS, Scene, draw
from .engine.devices import pick_device
from .engine.runs import read_checkpoint
from .images import normalize
from .reliability import write_atomically
from .text import BOS, PAD
from .training import warmup_and_cosine
from .vision import ImageEncoder, ResNet

LABELS = (*NOUNS, *COLOURS, *SIZES)  # what can be in a picture


def labelled_scenes(split: str, count: int, size: int = 64) -> tuple[Tensor, Tensor]:
    """The first `count` scenes of a split, as `labelled` gives them."""
    return labelled([Scene(SPLITS[split] + n) for n in range(count)], size)


def labelled(scenes: Sequence[Scene], size: int = 64) -> tuple[Tensor, Tensor]:
    """Images (N, 3, size, size) uint8 of the scenes, and labels (N, L) bool.

    labels[n, LABELS.index(word)] is True where a thing in picture n has that noun, colour or size; a picture has many.
    """
    images = torch.empty(len(scenes), 3, size, size, dtype=torch.uint8)
    labels = torch.zeros(len(scenes), len(LABELS), dtype=torch.bool)
    index = {word: i for i, word in enumerate(LABELS)}
    for n, scene in enumerate(scenes):
        images[n] = draw(scene, size)
        labels[n, [index[word] for obj in scene.objects for word in obj.attributes]] = True
    return images, labels


def train_classifier(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epochs: int = 2,
    batch_size: int = 32,
    seed: int = 0,
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
    steps = epochs * (len(images) // batch_size)
    optimizer, schedule = _recipe(model.parameters(), 3e-3, steps)
    generator, losses = torch.Generator().manual_seed(seed), []
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for batch in order.split(batch_size)[: len(images) // batch_size]:
            logits = model(normalize(images[batch].to(device)))  # (B, L)
            loss = F.binary_cross_entropy_with_logits(
                logits, labels[batch].to(device, torch.float32), weight
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return losses


def _recipe(
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    steps: int,
    betas: tuple[float, float] = (0.9, 0.999),
) -> tuple[torch.optim.AdamW, LambdaLR]:
    """AdamW, and its schedule: the rate rises for the first tenth of all steps, then falls as a cosine."""
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.05, betas=betas)
    return optimizer, LambdaLR(
        optimizer, partial(warmup_and_cosine, steps=steps, warmup_fraction=0.1)
    )


@torch.no_grad()
def predict_logits(model: nn.Module, images: Tensor) -> Tensor:
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
            raise ValueError(
                f"{path}: not a CNN that knows these labels; delete it, and it is trained anew"
            )
        model.load_state_dict(saved["model"])
        print(f"the CNN of {path}, trained before, is used")
        return model.to(pick_device()).eval()
    print(f"{path} is not there: a CNN is trained on {scenes:,} scenes and kept there", flush=True)
    train_classifier(model, *labelled_scenes("train", scenes))
    write_atomically(path, {"model": model.state_dict(), "labels": LABELS})
    return model.eval()


@torch.no_grad()
def extract_features(cnn: nn.Module, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """What a frozen CNN makes of images (N, 3, S, S) uint8, once for all: its last grids (N, C, h, w), on its device.

    Puts the CNN into eval mode.
    """
    cnn.eval()
    device = next(cnn.parameters()).device
    return torch.cat(
        [cnn.features(normalize(batch.to(device))).to(dtype) for batch in images.split(250)]
    )


def train_captioner(
    decoder: nn.Module,
    encoder: ImageEncoder | None,
    grids: Tensor | None,
    targets: Sequence[Sequence[Tensor]],
    epochs: int = 1,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    generator: torch.Generator | None = None,
) -> list[float]:
    """Teach `decoder` to write captions, and `encoder` what it adds to its frozen CNN; the loss of every step.

    Teacher forcing: the decoder reads the true words, not its own, so all words of a sentence are trained at once.

        loss = mean over all words of a batch of -log p(word | the true words before it, the picture)

    grids (N, C, h, w) are what `extract_features` gave; with None for both, the decoder learns the captions alone, as a language
    model: its memory has no places. targets[n] are the captions of picture n, each (T,), words and <eos>;
    the next epoch takes the next one. `generator` shuffles, by default torch's own; an epoch leaves out the pictures that
    fill no batch. AdamW; the learning rate rises for the first tenth, then falls as a cosine.
    Source: Williams & Zipser 1989.
    """
    steps, device = (
        len(targets) // batch_size,
        next(decoder.parameters()).device,
    )  # steps of an epoch
    if grids is not None and len(targets) != len(grids):
        raise ValueError(f"{len(grids)} pictures, but captions of {len(targets)}")
    if steps == 0:
        raise ValueError(f"{len(targets)} pictures do not fill a batch of {batch_size}")
    parameters = list(decoder.parameters())
    if encoder:
        added = [
            *encoder.projection.parameters(),
            *encoder.norm.parameters(),
            encoder.position,
            *encoder.blocks.parameters(),
        ]
        parameters = added + parameters
    optimizer, schedule = _recipe(parameters, learning_rate, epochs * steps, betas=(0.9, 0.98))
    losses = []
    decoder.train()
    for epoch in range(epochs):
        for batch in torch.randperm(len(targets), generator=generator).split(batch_size)[:steps]:
            shown = [targets[n][(n + epoch) % len(targets[n])] for n in batch.tolist()]
            target = collate([{"target": words} for words in shown])["target"].to(device)  # (B, T)
            inputs = F.pad(target[:, :-1], (1, 0), value=BOS)  # (B, T), one word behind
            memory = (
                encoder.encode_features(grids[batch].float())
                if encoder
                else Memory.empty(batch_size, decoder.embed_dim, device)
            )
            logits = decoder(inputs, memory)  # (B, T, V)
            loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return losses
