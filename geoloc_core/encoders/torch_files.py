"""Weights in torch files, as many were published, or safetensors, read without running anything that files name."""

import zipfile
from collections import OrderedDict
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from geoloc_core.errors import UserError, in_a_line

if TYPE_CHECKING:
    import torch


class Ignored:
    """Placeholder for whatever else a checkpoint names, such as its training settings: it does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """A plain mapping: all that torch lets a file add entries and attributes to."""
        return OrderedDict()


def read_tensors(path: Path) -> "dict[str, torch.Tensor]":
    """The tensors of a checkpoint: of its ``state_dict`` where it has one, as Lightning's and Places365's have.

    Only tensors and plain values are unpickled; classes that the file names are replaced by :class:`Ignored`. The
    prefix ``module.``, which training on several GPUs leaves, is cut off.

    A file ``*.safetensors`` is read as such.

    Raises:
        UserError: There is no such file, or it holds no tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.is_file() and path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: damaged, or not a file of safetensors: {in_a_line(error)}") from None
    loaded = _loaded(path)
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(tensors, dict) or not any(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise UserError(f"{path}: holds no named tensors; expected a state dict")
    return {str(key).removeprefix("module."): value for key, value in tensors.items() if torch.is_tensor(value)}


def read_tensor(path: Path, shape: tuple[int, ...]) -> "torch.Tensor":
    """The one tensor of a torch file that holds nothing else.

    Raises:
        UserError: There is no such file, or it holds something else.
    """
    import torch

    loaded = _loaded(path)
    if not torch.is_tensor(loaded) or loaded.shape != shape:
        found = f"a tensor {tuple(loaded.shape)}" if torch.is_tensor(loaded) else f"a {type(loaded).__name__}"
        raise UserError(f"{path}: {found}; expected a tensor {shape}")
    tensor: torch.Tensor = loaded.detach()
    return tensor


def _loaded(path: Path) -> Any:
    """What a torch file holds."""
    import torch

    if not path.is_file():
        raise UserError(f"{path}: no such file; give its path under checkpoints.* and run `geoloc download`")
    try:
        with torch.serialization.safe_globals([(Ignored, name) for name in _named_in(path)]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:  # torch's own message advises to trust the file
        raise UserError(f"{path}: damaged, or not a torch file that holds only tensors and plain values") from None
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path}: damaged, or not a torch file: {in_a_line(error)}") from None
    return loaded


def _named_in(path: Path) -> list[str]:
    import torch

    return torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []


def fill(
    network: "torch.nn.Module", tensors: "dict[str, torch.Tensor]", path: Path, ignore: tuple[str, ...] = ()
) -> None:
    """Load tensors into a network by name.

    Args:
        network: What they belong to.
        tensors: By the network's own names.
        path: Where they come from, for messages.
        ignore: Parts of names that may be there and are not needed.

    Raises:
        UserError: Some are missing, unexpected or of another shape.
    """
    expected = network.state_dict()
    # checkpoints older than torch 0.4 count no batches
    missing = [name for name in expected if name not in tensors and not name.endswith("num_batches_tracked")]
    unknown = [name for name in tensors if name not in expected and not any(part in name for part in ignore)]
    shapes = [name for name in expected if name in tensors and tensors[name].shape != expected[name].shape]
    for names, what in ((missing, "missing"), (unknown, "unknown"), (shapes, "of another shape")):
        if names:
            raise UserError(f"{path}: unexpected weights: {len(names)} tensors {what}, such as {names[0]}")
    network.load_state_dict({name: tensors[name] for name in expected if name in tensors}, strict=False)
