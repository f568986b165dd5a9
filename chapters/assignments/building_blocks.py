"""Which names of torch and NumPy any exercise may use: the rule, and the list that it gives.

    python -m chapters.assignments.building_blocks      writes building_blocks.txt again

The list lies in a file, so that a check neither imports torch to read a learner's code, nor depends
on the version that happens to be installed.
"""

import functools
import re
import textwrap
from pathlib import Path
from types import ModuleType

PATH = Path(__file__).with_suffix(".txt")
MODULES = (
    "torch torch.autograd torch.fft torch.linalg torch.nn torch.nn.functional torch.nn.init "
    "torch.nn.utils torch.nn.utils.rnn torch.special numpy numpy.fft numpy.lib.stride_tricks "
    "numpy.linalg numpy.random numpy.typing"
).split()
TYPES = (  # whose attributes any value may have
    "torch.Generator torch.Size torch.Tensor torch.device torch.dtype torch.finfo torch.iinfo "
    "torch.nn.Embedding torch.nn.Linear torch.nn.Module torch.nn.ModuleDict torch.nn.ModuleList "
    "torch.nn.Parameter torch.nn.ParameterDict torch.nn.ParameterList torch.nn.Sequential "
    "torch.nn.utils.rnn.PackedSequence numpy.dtype numpy.finfo numpy.float64 numpy.iinfo "
    "numpy.int64 numpy.ndarray numpy.random.Generator numpy.random.RandomState numpy.ufunc"
).split()
# Ready-made forms of the pieces that are written here.
PIECES = re.compile(
    r"attention|conv(?!ert)|correlate|cross_?entropy|ctc|gru|lstm|multi_?head|native|nll|rnn|"
    r"stft|transformer",
    re.IGNORECASE,
)
# Words in names that reach files, memory, other code or settings that stay on.
REACHES_OUT = set(
    "anomaly assert autocast backend backends bind bufsize compile config core ctypes ctypeslib "
    "cudnn dispatch dlpack doc docs dump dumps export fbgemm file files fork frombuffer fromfile "
    "fromregex fromstring function genfromtxt getbuffer getbufsize geterr geterrcall hub import "
    "include info jit library load loads loadtxt lookfor memmap merge miopen mkldnn newbuffer "
    "newdoc ops overrides parse printoptions profiler ptr quantize quantized runtime save savetxt "
    "savez script setbufsize seterr seterrcall share shared source storage stream subclass swap "
    "test testing thread threads tofile trace typename unify vmap wait workers "
    "Container DataParallel ScalarType sctypeDict typecodes".split()
)
SETTINGS = re.compile(r"(set|get|use|q)_(?!parameter|submodule|buffer|device|state)")
IN_PLACE = {"apply_", "map_", "map2_", "set_"}  # slow loops in Python, and other memory
PYTHON_OF_TORCH = set(  # functions and classes of torch itself that are written in Python
    "Tensor Size Generator dtype device finfo iinfo no_grad enable_grad inference_mode manual_seed "
    "is_tensor is_floating_point is_grad_enabled".split()
)
ATTRIBUTES = set(  # of layers, optimizers, gradient functions and what torch's functions return
    "affine batch_sizes bias data dilation embedding_dim eps gamma grad groups hidden_size indices "
    "in_channels in_features inplace kernel_size load_state_dict mark_non_differentiable momentum "
    "needs_input_grad negative_slope normalized_shape num_batches_tracked num_embeddings "
    "num_features num_layers out_channels out_features output_size p padding padding_idx "
    "param_groups running_mean running_var save_for_backward saved_tensors state step stride "
    "training values weight zero_grad add_param_group remove".split()
)


@functools.cache
def building_blocks() -> dict[str, frozenset[str]]:
    """The names of each module, and under "attributes" those that any value may have."""
    found = {}
    for section in PATH.read_text(encoding="utf-8").split("\n[")[1:]:
        title, _, names = section.partition("]")
        found[title] = frozenset(names.split())
    return found


def is_harmless(name: str) -> bool:
    """Whether a public name reaches nothing outside of an exercise, and is not a piece of one."""
    if name.startswith("_") or name in IN_PLACE or SETTINGS.match(name):
        return False
    return not PIECES.search(name) and not REACHES_OUT.intersection(name.split("_"))


def generate() -> dict[str, set[str]]:
    """The names that the rule gives for the packages that are installed here."""
    found = {}
    for module in MODULES:
        obj = _find(module)
        names = {name for name in dir(obj) if is_harmless(name) and _is_plain(module, name, obj)}
        found[module] = names
    attributes = set(ATTRIBUTES)
    for name in TYPES:
        attributes |= {attribute for attribute in dir(_find(name)) if is_harmless(attribute)}
    found["attributes"] = attributes
    return found


def _find(path: str):
    import importlib

    owner, _, name = path.rpartition(".")
    try:
        return importlib.import_module(path)
    except ImportError:
        return getattr(importlib.import_module(owner), name)


def _is_plain(module: str, name: str, obj: ModuleType) -> bool:
    """Whether a name of a module is a function, class or constant of this module itself."""
    import torch

    value = getattr(obj, name)
    if isinstance(value, (ModuleType, type(torch.ops))):
        return False
    home = getattr(value, "__module__", None) or ""
    if module == "torch.autograd":
        return name in ("grad", "Function")
    if module == "torch":
        is_compiled = type(value).__name__ == "builtin_function_or_method" and home != "torch._C"
        is_type = name.endswith("Tensor") or isinstance(value, torch.dtype)
        in_python = home == "torch.functional" or name in PYTHON_OF_TORCH
        return is_compiled or is_type or in_python or isinstance(value, float)
    if module == "torch.nn":
        return isinstance(value, type) and issubclass(value, torch.nn.Module) or "Param" in name
    if module in ("torch.nn.utils", "torch.nn.utils.rnn"):
        return home.startswith(module) and name[0].islower()
    if module.startswith("torch"):
        return callable(value) and name[0].islower() and home.split(".")[0] != "typing"
    if module in ("numpy.lib.stride_tricks", "numpy.typing"):
        return name in ("sliding_window_view", "ArrayLike", "NDArray")
    is_error = isinstance(value, type) and issubclass(value, BaseException)
    return not is_error and (home.startswith("numpy") or not callable(value) or not home)


def write() -> None:
    """Write the list."""
    lines = ["Written by python -m chapters.assignments.building_blocks: see its rule."]
    for title, names in generate().items():
        lines += ["", f"[{title}]", *textwrap.wrap(" ".join(sorted(names)), 88)]
    PATH.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
