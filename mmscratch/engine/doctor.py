"""doctor: report what this machine has and what is wrong. It imports nothing that may be missing."""

import importlib
import os
import platform
import shutil
import sys
from pathlib import Path


def show_anything() -> None:
    """Let what the terminal cannot show be replaced, instead of ending the program."""
    if hasattr(sys.stdout, "reconfigure"):  # not in a notebook
        sys.stdout.reconfigure(errors="backslashreplace")


def doctor() -> int:
    """Print the report; returns 2 if something is wrong, else 0."""
    problems = []
    print(f"Python       {platform.python_version()} on {platform.system()} {platform.machine()}")
    if sys.version_info < (3, 10):
        problems.append("Python 3.10 or newer is needed")
    print(f"cores        {os.cpu_count()}")
    if hasattr(os, "sysconf"):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        print(f"memory       {total / 2**30:.0f} GiB")
    problems += _package_problems()
    if not problems:
        problems += _device_problems()
    try:
        Path("runs").mkdir(exist_ok=True)
        Path("runs/.doctor").touch()
        Path("runs/.doctor").unlink()
    except OSError as error:
        problems.append(f"the folder runs/ is not writable: {error}")
    for problem in problems:
        print(f"wrong        {problem}")
    if problems:
        return 2
    print("nothing is wrong")
    return 0


def _package_problems() -> list[str]:
    """Print the versions of the packages; -> those that cannot be imported."""
    problems = []
    for name in ("torch", "numpy", "PIL", "matplotlib", "pytest"):
        try:
            print(f"{name:12} {importlib.import_module(name).__version__}")
        except Exception as error:  # anything may keep a package from being imported
            print(f"{name:12} -")
            fix = "python -m pip install -r requirements.txt"
            problems.append(f"{name} cannot be imported ({error}): {fix}")
    try:
        print(f"torchvision  {importlib.import_module('torchvision').__version__}")
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        needed = "needed only for --from resnet18 and the like"
        print(f"torchvision  cannot be imported ({reason}); {needed}")
    return problems


def _device_problems() -> list[str]:
    """Print the device and the number format that training would use."""
    import torch

    from .devices import pick_device, pick_precision

    device = pick_device()
    precision, why = pick_precision(device)
    print(f"device       {torch.cuda.get_device_name() if device.type == 'cuda' else device}")
    print(f"precision    {precision} ({why})")
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        fix = "see pytorch.org for a torch that fits it"
        return [f"there is an NVIDIA driver, but this torch finds no GPU: {fix}"]
    return []
