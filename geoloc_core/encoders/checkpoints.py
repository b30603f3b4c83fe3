"""Published weights, brought to ``data/weights`` in their library's folder format and pinned."""

import re
import shutil
from pathlib import Path
from typing import Any

from geoloc_core.errors import UserError
from geoloc_core.files import digest, replacing, write_json
from geoloc_core.params import Checkpoint, entry
from geoloc_core.progress import say
from geoloc_core.project import Project

COMMIT = re.compile("[0-9a-f]{40}")

WANTED = {
    "open_clip": ("open_clip_config.json", "open_clip_model.safetensors"),
    "vit": ("config.json", "model.safetensors", "preprocessor_config.json"),
    "onnx": ("model.onnx",),
}
"""The files a tower of each kind reads: nothing else is downloaded."""


def download(project: Project, encoder: str) -> None:
    """Fetch an encoder's published weights: the stage ``geoloc download ENCODER``.

    Raises:
        UserError: The checkpoint block is incomplete, or its source cannot be reached or read.
    """
    checkpoint = entry(project.profile.checkpoints, encoder, "checkpoint")
    kind = project.profile.encoders[encoder].kind
    with replacing(project.weights(encoder)) as aside:
        aside.mkdir()
        _bring(checkpoint, encoder, kind, project.root, aside)
        sizes = {p.name: p.stat().st_size for p in sorted(aside.iterdir())}
        figures = {"megabytes": round(sum(sizes.values()) / 1e6, 3), "sha256": digest(aside), "files": sizes}
    write_json(project.summary("download", encoder), figures)
    say(f"download {encoder}: {figures['megabytes']} MB in {project.weights(encoder)}")


def _bring(checkpoint: Checkpoint, encoder: str, kind: str, root: Path, out: Path) -> None:
    where = f"params.yaml: checkpoints.{encoder}"
    match checkpoint:
        case Checkpoint(hub=str(), revision=str(revision)) if not COMMIT.fullmatch(revision):
            raise UserError(f"{where}.revision: {revision!r} may move; expected a commit, 40 hexadecimal digits")
        case Checkpoint(hub=str(hub), revision=str(revision)):
            _from_hub(hub, revision, WANTED[kind], out, where)
        case Checkpoint(model=str(model), tag=str(tag)) if kind == "open_clip":
            _save_clip(model, tag, _wants_quick_gelu(model, tag), out, where)
        case Checkpoint(file=Path() as file):
            path = root / file
            if path.is_dir():
                _copy_folder(path, WANTED[kind], out, where)
            elif not path.is_file():
                raise UserError(f"{where}.file: {path}: no such file or folder")
            elif kind == "open_clip" and checkpoint.model:
                _save_clip(checkpoint.model, str(path), False, out, where)
            elif kind == "onnx":
                shutil.copyfile(path, out / "model.onnx")
            else:
                raise UserError(f"{where}.file: a {kind} tower needs a folder with {', '.join(WANTED[kind])}")
        case _:
            raise UserError(f"{where}: expected hub and revision, or model and tag (open_clip), or file")


def _from_hub(hub: str, revision: str, names: tuple[str, ...], out: Path, where: str) -> None:
    from huggingface_hub import hf_hub_download

    for name in names:
        try:
            path = hf_hub_download(hub, name, revision=revision)
        except (OSError, ValueError) as error:  # the hub's own errors are of these kinds
            raise UserError(f"{where}: {name} of {hub}@{revision}: {str(error).splitlines()[0]}") from None
        shutil.copyfile(path, out / name)


def _copy_folder(folder: Path, names: tuple[str, ...], out: Path, where: str) -> None:
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{where}.file: {folder} has no {name}; expected {', '.join(names)}")
        shutil.copyfile(folder / name, out / name)


def _wants_quick_gelu(model: str, tag: str) -> bool:
    """Whether a tag's weights were trained with OpenAI's own activation: with another, features are quietly worse."""
    import open_clip

    return bool(open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False))


def _save_clip(model: str, pretrained: str, quick_gelu: bool, out: Path, where: str) -> None:
    """Load one of open_clip's architectures with a tag or a file of weights, and save it as a checkpoint folder."""
    import open_clip

    try:
        network, _, _ = open_clip.create_model_and_transforms(
            model, pretrained=pretrained, weights_only=True, force_quick_gelu=quick_gelu
        )
    except Exception as error:  # open_clip, torch and the hub each raise their own
        raise UserError(f"{where}: {model} with {pretrained}: {str(error).splitlines()[0]}") from None
    config = open_clip.get_model_config(model)
    if quick_gelu:
        config["quick_gelu"] = True
    save_clip(network, config, open_clip.get_model_preprocess_cfg(network), out)


def save_clip(network: Any, model_config: dict[str, Any], preprocess: dict[str, Any], out: Path) -> None:
    """Write a CLIP model as the checkpoint folder that the ``open_clip`` tower, and the library itself, read."""
    from safetensors.torch import save_file

    write_json(out / "open_clip_config.json", {"model_cfg": model_config, "preprocess_cfg": preprocess})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, out / "open_clip_model.safetensors")
