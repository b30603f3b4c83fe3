"""Folders in the format of Hugging Face transformers: their networks, and how they preprocess photos."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import UserError, in_a_line, is_of_the_machine
from geoloc_core.files import read_json

CONFIG = "config.json"
PREPARATION = "preprocessor_config.json"
REMEDY = "expected a transformers checkpoint folder; download it again"
RESAMPLE: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""
WARPED = 384
"""Edge from which on ConvNeXt's processor scales both edges and cuts nothing, pixels."""


def config_of(folder: Path, *kinds: str) -> dict[str, Any]:
    """The ``config.json`` of a checkpoint folder.

    Args:
        folder: The checkpoint.
        kinds: The accepted values of ``model_type``.

    Raises:
        UserError: The file is missing, or describes another kind of network.
    """
    config = _json(folder / CONFIG)
    if config.get("model_type") not in kinds:
        raise UserError(
            f"{folder / CONFIG}: model_type {config.get('model_type')!r}; expected {' or '.join(kinds)}: "
            "the checkpoint is for a different network"
        )
    return config


def clip_config(folder: Path, side: Literal["vision", "text"]) -> Any:
    """The library's config of one tower of a CLIP checkpoint, whether the folder holds both towers or one.

    Raises:
        UserError: It is not a CLIP checkpoint, or its config cannot be read.
    """
    kind = config_of(folder, "clip", f"clip_{side}_model")["model_type"]
    from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

    tower = {"vision": CLIPVisionConfig, "text": CLIPTextConfig}[side]
    try:
        config = (CLIPConfig if kind == "clip" else tower).from_pretrained(folder)
    except Exception as error:  # any: a wrong value makes transformers raise whatever it leads to
        if is_of_the_machine(error):
            raise
        raise UserError(f"{folder / CONFIG}: not a CLIP config: {in_a_line(error)}") from None
    if kind != "clip":
        return config
    part = getattr(config, f"{side}_config")
    part.projection_dim = config.projection_dim  # older checkpoints say it of the whole alone
    return part


def open_network(network: type, folder: Path, **options: Any) -> Any:
    """A network of transformers with the weights of a folder, in float32 and inference mode.

    Args:
        network: One of the library's classes.
        folder: With ``config.json`` and ``model.safetensors`` or, as older checkpoints are, ``pytorch_model.bin``.
        options: Passed on to the library.

    Returns:
        The network, of that class.

    Raises:
        UserError: The folder lacks weights of such a network: none is left randomly initialised.
    """
    import torch
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, loaded = network.from_pretrained(  # type: ignore[attr-defined]
            folder, local_files_only=True, weights_only=True, dtype=torch.float32, output_loading_info=True, **options
        )
    except Exception as error:  # any: wrong values and damaged weights make transformers raise whatever they lead to
        if is_of_the_machine(error):
            raise
        kind = "weights" if isinstance(error, SafetensorError) else network.__name__
        raise UserError(f"{folder}: not a checkpoint of {kind}: {in_a_line(error)}") from None
    lacking = sorted(loaded["missing_keys"]) + sorted(str(key[0]) for key in loaded["mismatched_keys"])
    if lacking:
        raise UserError(
            f"{folder}: incomplete checkpoint of {network.__name__}: no matching weights for {lacking[0]}"
            + (f" and {len(lacking) - 1} more" if lacking[1:] else "")
        )
    return model.eval()


def saver(model: Any, weights: Path) -> Callable[[Path], None]:
    """What writes a model of transformers, as it is when called, as a checkpoint folder.

    Args:
        model: The model.
        weights: The folder that it was opened from, whose preparation of photos stays its own.
    """
    prepared = (weights / PREPARATION).read_bytes()

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        (folder / PREPARATION).write_bytes(prepared)

    return save


def open_processor(folder: Path) -> Any:
    """The library's own image processor of a folder, for what :class:`Preprocess` does not do.

    Raises:
        UserError: There is none, or it names no image processor of the library.
    """
    from transformers import AutoImageProcessor

    _json(folder / PREPARATION)
    try:
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # any: a wrong value makes transformers raise whatever it leads to
        if is_of_the_machine(error):
            raise
        raise UserError(f"{folder / PREPARATION}: {in_a_line(error)}") from None


def preprocess_of(folder: Path) -> Preprocess:
    """The preprocessing that the ``preprocessor_config.json`` of a folder asks for, exact to the pixel.

    The library's own class reads the file, so that its defaults and older formats apply; :class:`Preprocess` then does
    what that class would do with Pillow.

    Raises:
        UserError: There is no such file, or it asks for something unsupported.
    """
    where = folder / PREPARATION
    config = _json(where)
    name = str(config.get("image_processor_type") or config.get("feature_extractor_type"))
    family = (
        name.removesuffix("Fast").removesuffix("Pil").removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    )
    try:
        asked = _processor(family)(**config)
        refused = _refused(asked)
        if refused is None:
            return _prepared(family, asked)
    except KeyError:
        refused = f"{name} is not supported; expected the image processor of CLIP, ViT or ConvNeXt"
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        refused = in_a_line(error)
    raise UserError(f"{where}: {refused}")


def same_size(folder: Path, preprocess: Preprocess, size: int) -> None:
    """Refuse preprocessing whose output size is not the network's input size.

    Raises:
        UserError: The sizes differ.
    """
    if preprocess.size != size:
        raise UserError(
            f"{folder / PREPARATION}: prepares photos of {preprocess.size} pixels; expected {size}, as in {CONFIG}"
        )


def _processor(family: str) -> type:
    kind = {"CLIP": "clip", "ViT": "vit", "ConvNext": "convnext"}[family]
    module = importlib.import_module(f"transformers.models.{kind}.image_processing_pil_{kind}")
    return cast(type, getattr(module, f"{family}ImageProcessorPil"))


def _refused(asked: Any) -> str | None:
    """Which of a processor's settings is not supported; None if all are."""
    if not asked.do_resize:
        return "do_resize is false, so photos would keep their own sizes; expected true"
    if asked.resample not in RESAMPLE:
        return f"resample {asked.resample!r}; expected 2 (bilinear) or 3 (bicubic)"
    if getattr(asked, "do_pad", None):
        return "do_pad is true; expected photos that are cropped or resized to a square"
    return None


def _prepared(family: str, asked: Any) -> Preprocess:
    size, shorter = _square(asked.size), asked.size.shortest_edge
    if asked.size.longest_edge or asked.size.max_height:
        raise ValueError(f"size {dict(asked.size)}; expected shortest_edge, or height and width")
    cut = _square(asked.crop_size) if getattr(asked, "do_center_crop", None) else None
    if family == "ConvNext" and shorter and shorter < WARPED:  # its own rule: the share crop_pct of a photo is cut
        cut, shorter = shorter, int(shorter / asked.crop_pct)
    elif family == "ConvNext" and shorter:
        size, shorter = shorter, None
    edge, whole = cut or size, shorter or size
    if edge is None or whole is None or bool(cut) != bool(shorter):
        raise ValueError("expected size as shortest_edge with do_center_crop, or as height and width without it")
    if edge > whole:
        raise ValueError(f"crop_size {edge} is larger than the resized photo; expected at most {whole}")
    # pixels are rescaled by 1/255 here: another factor is one of mean and deviation
    factor = 255 * (asked.rescale_factor if asked.do_rescale else 1.0)
    mean, std = (asked.image_mean, asked.image_std) if asked.do_normalize else ((0.0,) * 3, (1.0,) * 3)
    return Preprocess(
        size=edge,
        mode="crop" if cut else "squash",
        resample=RESAMPLE[asked.resample],
        mean=_scaled(mean, factor),
        std=_scaled(std, factor),
        shorter_edge=whole if whole != edge else None,
        rounding="down" if cut else "even",
    )


def _scaled(values: Any, factor: float) -> tuple[float, float, float]:
    red, green, blue = values
    return red / factor, green / factor, blue / factor


def _square(size: Any) -> int | None:
    """The edge of a square; None if the size is given in another form."""
    if size is None or not size.height:
        return None
    if size.height != size.width:
        raise ValueError(f"{size.height} × {size.width} pixels; expected a square")
    return int(size.height)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path.parent}: no {path.name}; expected a transformers checkpoint folder; download it first")
    value: dict[str, Any] = read_json(path, REMEDY, dict[str, Any])
    return value
