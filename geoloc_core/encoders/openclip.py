"""Folders in the format of open_clip, as the Hugging Face hub publishes them: read and written."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core.errors import UserError, in_a_line, is_of_the_machine
from geoloc_core.files import read_json, write_json

if TYPE_CHECKING:
    import torch

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"


def config_of(weights: Path) -> dict[str, Any]:
    """The ``open_clip_config.json`` of a checkpoint folder.

    Raises:
        UserError: The folder is not a CLIP checkpoint of open_clip.
    """
    for name in (CONFIG, WEIGHTS):
        if not (weights / name).is_file():
            raise UserError(
                f"{weights}: no {name}; expected an open_clip checkpoint folder; download or train it first"
            )
    remedy = "expected an open_clip config; download or train it again"
    config: dict[str, Any] = read_json(weights / CONFIG, remedy, dict[str, Any])
    if not isinstance(config.get("model_cfg"), dict) or not config["model_cfg"].get("embed_dim"):
        raise UserError(f"{weights / CONFIG}: no model_cfg with embed_dim; {remedy}")
    return config


def open_model(weights: Path) -> Any:
    """The whole CLIP model of a checkpoint folder, both towers, in inference mode.

    Raises:
        UserError: The folder is not a CLIP checkpoint of open_clip.
    """
    import open_clip

    try:
        model = open_clip.create_model(f"local-dir:{weights}", load_weights=True)
    except Exception as error:  # any: a wrong value in the config makes open_clip and torch raise whatever it leads to
        if is_of_the_machine(error):
            raise
        raise UserError(f"{weights}: not an open_clip checkpoint: {in_a_line(error)}") from None
    return model.eval()


def save_clip(network: Any, model_config: dict[str, Any], preprocess: dict[str, Any], out: Path) -> None:
    """Write a CLIP model as the checkpoint folder that the ``open_clip`` tower, and the library itself, read."""
    from safetensors.torch import save_file

    write_json(out / CONFIG, {"model_cfg": model_config, "preprocess_cfg": preprocess})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, out / WEIGHTS)


def blocks_of(visual: Any) -> "list[torch.nn.Module]":
    """The blocks of an image tower: of open_clip's own transformer or ResNet, or of timm's; none of any other."""
    if hasattr(visual, "transformer") and hasattr(visual.transformer, "resblocks"):
        return list(visual.transformer.resblocks)
    if hasattr(visual, "trunk") and hasattr(visual.trunk, "blocks"):
        return list(visual.trunk.blocks)
    layers = (getattr(visual, f"layer{number}", None) for number in range(1, 5))
    return [layer for layer in layers if layer is not None]


def after_blocks(visual: Any) -> "Iterator[torch.nn.Parameter]":
    """What follows the last block of an image tower: norm, pooling and projection."""
    after = ("ln_post", "proj", "attn_pool", "attnpool", "trunk.norm", "trunk.fc_norm", "trunk.attn_pool",
             "trunk.head", "head")  # fmt: skip
    for name, parameter in visual.named_parameters():
        if any(name == start or name.startswith(f"{start}.") for start in after):
            yield parameter
