"""Features of a frozen backbone: computed once for each picture, and kept in a file."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .batches import augmentation_draws
from .engine.cache import make_once, report_progress
from .engine.devices import Precision
from .finetuning import fingerprint
from .images import augment, normalize

VIEWS = 4  # the picture, a crop of it in another light, and both mirrored
BATCH = 50  # pictures at a time


def feature_key(backbone: nn.Module, digests: Sequence[str], views: int, dtype: torch.dtype) -> str:
    """The name under which the features of pictures are kept, 20 hexadecimal digits.

    It depends on all that the features depend on: the weights, batch norm's statistics included
    (`fingerprint`), the pictures (their `digests`, in this order), the number of views of each, and
    the number format. Whatever is missing here would one day give the features of something else.
    """
    parts = [fingerprint(backbone), str(views), str(dtype), *digests]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:20]


class FeatureCache:
    """What a frozen backbone makes of each picture: (C, h, w) float16, computed once.

    backbone   frozen, in eval mode; `features` (B, 3, S, S) -> (B, C, h, w)
    pictures   (3, S, S) uint8 each, or None for an example without one
    views      1: of the pictures as they are; `VIEWS`: also of a crop of each, and both mirrored
    precision  the number format that the backbone computes in

    They are memory-mapped, in a folder under `cache.CACHE` whose name is their `feature_key`. A
    picture that occurs several times is computed once.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pictures: Sequence[Tensor | None],
        views: int,
        precision: Precision,
    ):
        if any(weights.requires_grad for weights in backbone.parameters()):
            raise ValueError("features are kept of a frozen backbone only: this one can still learn")
        self.backbone = backbone
        self.pictures = pictures
        self.views = views
        self.precision = precision
        rows = {}  # digest of a picture -> its row in the file
        self.rows = []  # of each example
        self.firsts = []  # an example with the picture of each row
        for i, picture in enumerate(pictures):
            row = None
            if picture is not None:
                digest = hashlib.sha256(picture.numpy().tobytes()).hexdigest()
                row = rows.setdefault(digest, len(rows))
                if row == len(self.firsts):
                    self.firsts.append(i)
            self.rows.append(row)
        key = feature_key(backbone, list(rows), views, precision.dtype)
        self.folder = make_once(key, self._compute)
        self.features = None

    def __len__(self) -> int:
        """The number of different pictures."""
        return len(self.firsts)

    def example(self, i: int, draws: Tensor | None = None) -> dict[str, Tensor]:
        """{"image": the features of example i}, or {} if it has no picture.

        draws (8,) choose the view: the first one whether a crop (below 0.5), the last one whether
        mirrored (below 0.5), as in `images.augment`. Without them it is the picture as it is.
        """
        row = self.rows[i]
        if row is None:
            return {}
        view = 0
        if draws is not None:
            view = int(draws[0] < 0.5) + 2 * int(draws[-1] < 0.5)
        if self.features is None:
            self.features = np.load(self.folder / "features.npy", mmap_mode="r")
        return {"image": torch.from_numpy(np.array(self.features[row, view]))}

    def __getstate__(self) -> dict:
        """What a worker process needs, which maps the file itself."""
        return self.__dict__ | {"features": None, "backbone": None, "pictures": None}

    @torch.no_grad()
    def _compute(self, folder: Path) -> None:
        """Write the features of the pictures, by row and view: (pictures, views, C, h, w)."""
        device = next(self.backbone.parameters()).device
        features = None
        for first in range(0, len(self), BATCH):
            chosen = self.firsts[first : first + BATCH]
            images = torch.stack([self.pictures[i] for i in chosen]).to(device)  # (B, 3, S, S)
            for view, shown in enumerate(_views(images, first, self.views)):
                with self.precision.autocast():
                    grid = self.backbone.features(normalize(shown))  # (B, C, h, w)
                grid = grid.half().cpu().numpy()
                if features is None:
                    shape = (len(self), self.views, *grid.shape[1:])
                    path = folder / "features.npy"
                    features = np.lib.format.open_memmap(path, "w+", np.float16, shape)
                features[first : first + len(chosen), view] = grid
            report_progress("computing features, once", first + len(chosen), len(self))


def _views(images: Tensor, first: int, views: int) -> list[Tensor]:
    """The views of pictures (B, 3, S, S), each of that shape; `first` is the row of the first."""
    if views == 1:
        return [images]
    draws = [augmentation_draws(0, 0, first + i, may_flip=False) for i in range(len(images))]
    crops = augment(images, torch.stack(draws))
    return [images, crops, images.flip(-1), crops.flip(-1)]
