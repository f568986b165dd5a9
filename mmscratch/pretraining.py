"""Pre-training: a CNN learns to label pictures; then, with it frozen, a decoder learns captions."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LambdaLR

from .attention import Memory
from .data.scenes import COLOURS, NOUNS, SIZES, Scene, draw, first_of_split
from .engine.devices import pick_device
from .engine.runs import read_checkpoint
from .images import normalize
from .reliability import write_atomically
from .text import BOS, PAD
from .training import warmup_and_cosine
from .vision import ImageEncoder, ResNet

LABELS = (*NOUNS, *COLOURS, *SIZES)  # a picture has several of them


def labelled_scenes(split: str, count: int, size: int = 64) -> tuple[Tensor, Tensor]:
    """The first `count` scenes of a split, with their labels (see `label_scenes`)."""
    return label_scenes([Scene(first_of_split(split) + n) for n in range(count)], size)


def label_scenes(scenes: Sequence[Scene], size: int = 64) -> tuple[Tensor, Tensor]:
    """Images (N, 3, size, size) uint8 of the scenes, and labels (N, L) bool.

    labels[n, LABELS.index(word)] is True if an object in picture n has that noun, colour or size.
    """
    images = torch.empty(len(scenes), 3, size, size, dtype=torch.uint8)
    labels = torch.zeros(len(scenes), len(LABELS), dtype=torch.bool)
    index = {word: i for i, word in enumerate(LABELS)}
    for n, scene in enumerate(scenes):
        images[n] = draw(scene, size)
        for obj in scene.objects:
            for word in obj.attributes:
                labels[n, index[word]] = True
    return images, labels


def train_classifier(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epochs: int = 2,
    batch_size: int = 32,
    seed: int = 0,
) -> list[float]:
    """Train `model`, pictures -> logits (B, L), to predict the labels; return each step's loss.

    The loss is the binary cross-entropy of each label by itself, since one does not exclude
    another. The more frequent a label, the less it weighs: otherwise the model learns the colours
    first, from features that say nothing about shapes. Optimized with AdamW; the learning rate
    rises to 3e-3 in the first tenth of all steps, then falls as a cosine.
    """
    epoch_steps = _count_batches(len(images), batch_size)
    device = pick_device()
    model.to(device, memory_format=torch.channels_last).train()
    frequency = labels.float().mean(0).clamp(min=1 / len(labels))  # (L,)
    weight = (frequency.min() / frequency).to(device)  # (L,)
    optimizer, schedule = _optimizer(model.parameters(), 3e-3, epochs * epoch_steps)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for batch in order.split(batch_size)[:epoch_steps]:
            logits = model(normalize(images[batch].to(device)))  # (B, L)
            target = labels[batch].to(device, torch.float32)  # (B, L)
            loss = F.binary_cross_entropy_with_logits(logits, target, weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return losses


def _count_batches(pictures: int, batch_size: int) -> int:
    if pictures < batch_size:
        raise ValueError(f"{pictures} pictures do not fill a batch of {batch_size}")
    return pictures // batch_size


def _optimizer(
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    steps: int,
    betas: tuple[float, float] = (0.9, 0.999),
) -> tuple[torch.optim.AdamW, LambdaLR]:
    """AdamW, and a schedule: warmup in the first tenth of all steps, then a cosine."""
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.05, betas=betas)
    factor = partial(warmup_and_cosine, steps=steps, warmup_fraction=0.1)
    return optimizer, LambdaLR(optimizer, factor)


@torch.no_grad()
def predict_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (N, L), above 0 for labels that the model predicts. Puts the model into eval mode."""
    model.eval()
    device = next(model.parameters()).device
    logits = [model(normalize(batch.to(device))).cpu() for batch in images.split(250)]
    return torch.cat(logits)  # (N, L)


def pretrained_cnn(path: Path, scenes: int) -> ResNet:
    """A ResNet that labels pictures: read from `path`, or trained on `scenes` scenes and saved.

    Raises ValueError, naming the file, if this function did not write it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ResNet((1, 1, 1), num_classes=len(LABELS), width=32)
    if path.exists():
        saved = read_checkpoint(path)
        if not isinstance(saved, dict) or saved.get("labels") != LABELS:
            raise ValueError(f"{path}: not a CNN for these labels; delete it to train a new one")
        model.load_state_dict(saved["model"])
        print(f"using the pretrained CNN in {path}")
        return model.to(pick_device()).eval()
    print(f"no CNN in {path} yet: training one on {scenes:,} scenes", flush=True)
    images, labels = labelled_scenes("train", scenes)
    train_classifier(model, images, labels)
    write_atomically(path, {"model": model.state_dict(), "labels": LABELS})
    return model.eval()


@torch.no_grad()
def extract_features(cnn: nn.Module, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The CNN's last grids (N, C, h, w), on its device, for images (N, 3, S, S) uint8.

    A frozen CNN always gives the same, so once is enough. Puts the CNN into eval mode.
    """
    cnn.eval()
    device = next(cnn.parameters()).device
    grids = [cnn.features(normalize(batch.to(device))).to(dtype) for batch in images.split(250)]
    return torch.cat(grids)  # (N, C, h, w)


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
    """Train `decoder`, and `encoder` except its frozen CNN, on captions; return each step's loss.

    Teacher forcing: the decoder reads the true words, not its own, so all words of a sentence are
    trained at once. Source: Williams & Zipser 1989.

        loss = mean over all words of a batch of -log p(word | true words before it, picture)

    grids           (N, C, h, w), from `extract_features`; None, with no encoder: a language model
    targets         targets[n] are the captions of picture n, each (T,), words and <eos>; an epoch
                    uses one of them, the next epoch the next
    batch_size      pictures per step; an epoch leaves out those that do not fill a batch
    learning_rate   AdamW's, at its peak after a tenth of all steps; then it falls as a cosine
    generator       shuffles; None: torch's own
    """
    if grids is not None and len(targets) != len(grids):
        raise ValueError(f"{len(grids)} pictures, but captions of {len(targets)}")
    epoch_steps = _count_batches(len(targets), batch_size)
    device = next(decoder.parameters()).device
    parameters = _trained_parameters(decoder, encoder)
    optimizer, schedule = _optimizer(parameters, learning_rate, epochs * epoch_steps, (0.9, 0.98))
    losses = []
    decoder.train()
    for epoch in range(epochs):
        order = torch.randperm(len(targets), generator=generator)
        for batch in order.split(batch_size)[:epoch_steps]:
            target = _captions(targets, batch, epoch).to(device)  # (B, T)
            inputs = F.pad(target[:, :-1], (1, 0), value=BOS)  # (B, T), one word behind
            if encoder:
                memory = encoder.encode_features(grids[batch].float())
            else:
                memory = Memory.empty(batch_size, decoder.embed_dim, device)
            logits = decoder(inputs, memory)  # (B, T, V)
            loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return losses


def _captions(targets: Sequence[Sequence[Tensor]], pictures: Tensor, epoch: int) -> Tensor:
    """One caption of each of these pictures, padded: (B, T). Another epoch takes the next one."""
    captions = [targets[n][(n + epoch) % len(targets[n])] for n in pictures.tolist()]
    return pad_sequence(captions, batch_first=True, padding_value=PAD)


def _trained_parameters(decoder: nn.Module, encoder: ImageEncoder | None) -> list[nn.Parameter]:
    """The parameters of the encoder, without its CNN's, and of the decoder."""
    parameters = []
    if encoder:
        parameters += encoder.projection.parameters()
        parameters += encoder.norm.parameters()
        parameters.append(encoder.position)
        parameters += encoder.blocks.parameters()
        if encoder.block_position is not None:
            parameters.append(encoder.block_position)
    return [*parameters, *decoder.parameters()]
