"""doctor: what this machine has, and what is wrong, if anything. It imports nothing that may be missing."""

import argparse
import importlib
import os
import platform
import shutil
import sys
from pathlib import Path


def doctor(_: argparse.Namespace) -> int:
    """Print it; -> 2 if something is wrong."""
    problems = []
    print(f"Python       {platform.python_version()} on {platform.system()} {platform.machine()}")
    if sys.version_info < (3, 10):
        problems.append("Python 3.10 or newer is needed")
    print(f"cores        {os.cpu_count()}")
    if hasattr(os, "sysconf"):
        print(
            f"memory       {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
        )
    for name in ("torch", "numpy", "PIL", "matplotlib", "pytest"):
        try:
            print(f"{name:12} {importlib.import_module(name).__version__}")
        except Exception as error:  # whatever keeps a package from being imported
            print(f"{name:12} -")
            problems.append(
                f"{name} cannot be imported ({error}): python -m pip install -r requirements.txt"
            )
    try:
        print(f"{'torchvision':12} {importlib.import_module('torchvision').__version__}")
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(
            f"torchvision  cannot be imported ({reason}); only --from resnet18 and its like need it"
        )
    if not problems:
        problems += _device_problems()
    try:
        Path("runs").mkdir(exist_ok=True)
        Path("runs/.doctor").touch()
        Path("runs/.doctor").unlink()
    except OSError as error:
        problems.append(f"the folder runs/ cannot be written to: {error}")
    print("\n".join(f"wrong        {problem}" for problem in problems) or "nothing is wrong")
    return 2 if problems else 0


def _device_problems() -> list[str]:
    """Print the device and the number format that training would take."""
    import torch

    from .devices import pick_device, pick_precision

    device = pick_device()
    precision, why = pick_precision(device)
    print(f"device       {torch.cuda.get_device_name() if device.type == 'cuda' else device}")
    print(f"precision    {precision} ({why})")
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        return [
            "there is an NVIDIA driver, but this torch finds no GPU: see pytorch.org for one that fits it"
        ]
    return []
