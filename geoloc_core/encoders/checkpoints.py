"""Published weights: downloaded to ``data/weights``, in their library's folder format, and pinned by checksum."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

from geoloc_core.encoders import published
from geoloc_core.encoders.openclip import save_clip
from geoloc_core.encoders.published import Wanted
from geoloc_core.errors import UserError, in_a_line, is_of_the_machine
from geoloc_core.files import digest, files_under, remove, replacing_folder, sha256_of, write_json
from geoloc_core.params import Checkpoint, NamedEncoder
from geoloc_core.progress import say
from geoloc_core.project import Project

COMMIT = re.compile("[0-9a-f]{40}")
WEIGHTS = (".safetensors", ".bin", ".onnx", ".pt", ".pth", ".tar", ".ckpt")
"""Endings of files of weights: what a checksum is of."""
SETTINGS = ("input_resolution", "context_length", "vocab_size")
"""Entries among the tensors of OpenAI's files that are settings, not weights."""

Put = Callable[[Path, Path], Any]
"""How a file gets into the folder of a checkpoint: copied, or linked."""


def download(project: Project, name: str, encoder: NamedEncoder) -> None:
    """Fetch an encoder's published weights: the stage ``geoloc download ENCODER``.

    Raises:
        UserError: They are trained here rather than published; the checkpoint block is incomplete; its source cannot be
            reached or read; or the checksum of its file differs.
    """
    if encoder.checkpoint is None:
        raise UserError(f"encoder {name!r}: is trained here rather than downloaded; {remedy(project, name, encoder)}")
    partial, where = project.partial("download", name), f"params.yaml: checkpoints.{name}"
    with replacing_folder(project.weights(name), "weights") as aside:
        aside.mkdir()
        source = _fetched(encoder.checkpoint, partial, project)
        _bring(source, encoder, where, aside, shutil.copyfile)
        sizes = {name: (aside / name).stat().st_size for name in files_under(aside)}
        figures = {"megabytes": round(sum(sizes.values()) / 1e6, 3), "sha256": digest(aside), "files": sizes}
    remove(partial)
    write_json(project.summary("download", name), figures)
    say(f"download {name}: {figures['megabytes']} MB in {project.weights(name)}")


def remedy(project: Project, name: str, encoder: NamedEncoder) -> str:
    """How to get the weights of an encoder, ending with the command to run."""
    if encoder.checkpoint is None:
        here = name in project.profile.pretrain | project.profile.pretrain_from
        copy = f"copy recipe, encoder, start and corpus from profile {encoder.profile} to the one in use, then "
        return f"{'' if here else copy}run `geoloc pretrain {name}`"
    lacking = [file for file in _files(encoder.checkpoint) if not (project.root / file).exists()]
    put = f"put {', '.join(map(str, lacking))} there or change the place in params.yaml, then "
    return f"{put if lacking else ''}run `geoloc download {name}`"


def _files(checkpoint: Checkpoint) -> list[Path]:
    """The local files and folders that a checkpoint is made of."""
    parts = checkpoint.parts or {}
    return [checkpoint.file] if checkpoint.file else [file for part in parts.values() for file in _files(part)]


@contextmanager
def of_your_own(encoder: NamedEncoder, path: Path) -> Iterator[Path]:
    """A checkpoint anywhere on disk, as a folder that a tower of the encoder's kind can open.

    It holds what :func:`download` would put there, except that unchanged files are linked and that files needed only by
    the text tower may be missing.

    Yields:
        A folder that exists while the block runs.

    Raises:
        UserError: Nothing is there, or it is not a checkpoint of this kind.
    """
    model = encoder.checkpoint.model if encoder.checkpoint else None
    given = Checkpoint(file=path.absolute(), model=model)
    with TemporaryDirectory(prefix="geoloc-") as folder:
        _bring(given, encoder, "--checkpoint", Path(folder), os.symlink, photos_alone=True)
        yield Path(folder)


def _fetched(checkpoint: Checkpoint, partial: Path, project: Project) -> Checkpoint:
    """The same checkpoint as a local file: downloaded if it has a URL, and resolved against the project's root.

    Raises:
        UserError: It is of an encoder that has not been trained yet.
    """
    if checkpoint.url:
        from geoloc_core.download import download as fetch

        file = partial / Path(checkpoint.url).name
        fetch(checkpoint.url, file, sha256=checkpoint.sha256)
        return checkpoint.model_copy(update={"url": None, "file": file})
    if checkpoint.parts:
        parts = {name: _fetched(part, partial / name, project) for name, part in checkpoint.parts.items()}
        return checkpoint.model_copy(update={"parts": parts})
    if checkpoint.trained:
        folder = project.weights(checkpoint.trained)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; run `geoloc pretrain {checkpoint.trained}` first")
        return checkpoint.model_copy(update={"trained": None, "file": folder})
    return checkpoint.model_copy(update={"file": project.root / checkpoint.file}) if checkpoint.file else checkpoint


def _bring(
    checkpoint: Checkpoint, encoder: NamedEncoder, where: str, out: Path, put: Put, photos_alone: bool = False
) -> None:
    """Lay a checkpoint out in an empty folder, that of each of its parts in a folder there."""
    parts: tuple[str, ...] = getattr(encoder.image, "parts", ())
    sources = _sources(checkpoint, parts, where)
    if not parts:
        _bring_one(checkpoint, _wanted(encoder, photos_alone), where, out, put)
    for name, (source, place) in sources.items():
        kind = encoder.image.kind
        (out / name).mkdir()
        _bring_one(source, (f"{kind}'s {name}", published.parts(kind)[name]), place, out / name, put)


def _sources(checkpoint: Checkpoint, parts: tuple[str, ...], where: str) -> dict[str, tuple[Checkpoint, str]]:
    """Where each part of an encoder comes from, and what the place is called."""
    given, listed = checkpoint.parts or {}, ", ".join(parts)
    if parts and checkpoint.file:
        if checkpoint.sha256:
            raise UserError(
                f"{where}.sha256: the encoder consists of several networks; give `parts`, each with its own checksum"
            )
        return {name: (Checkpoint(file=checkpoint.file / name), where) for name in parts}
    if parts and not given:
        raise UserError(
            f"{where}: expected `parts`, a checkpoint each for {listed}, or `file`, a folder with a folder for each"
        )
    if given.keys() != set(parts):
        raise UserError(
            f"{where}.parts: {', '.join(given)}; expected {listed or 'no parts: the encoder is a single network'}"
        )
    return {name: (given[name], f"{where}.parts.{name}") for name in parts}


def _bring_one(checkpoint: Checkpoint, needs: tuple[str, tuple[Wanted, ...]], where: str, out: Path, put: Put) -> None:
    """Lay the checkpoint of one network out in an empty folder."""
    kind, wanted = needs
    match checkpoint:
        case Checkpoint(hub=str(hub), revision=str(revision)):
            if not COMMIT.fullmatch(revision):
                raise UserError(
                    f"{where}.revision: {revision!r} may move; expected a commit (40 hexadecimal digits); the hub "
                    f"lists those of {hub} under Files and versions, History"
                )
            _lay_out(wanted, lambda name: _from_hub(hub, revision, name, where), out, put, f"{where}: {hub}@{revision}")
            _check(out, checkpoint, where)
        case Checkpoint(tag=str(tag), model=str(model)) if kind == "open_clip":
            _check(_of_tag(model, tag, where), checkpoint, where)
            _save_clip(model, tag, _wants_quick_gelu(model, tag), out, where)
        case Checkpoint(file=Path() as given) if given.is_dir():
            _lay_out(wanted, lambda name: _if_there(given / name), out, put, f"{where}.file: {given}")
            _check(out, checkpoint, where)
        case Checkpoint(file=Path() as given):
            if not given.is_file():
                raise UserError(f"{where}.file: {given}: no such file or folder")
            _check(given, checkpoint, where)
            _of_file(given, kind, wanted, checkpoint.model, out, put, f"{where}.file")
        case _:
            raise UserError(f"{where}: a {kind} tower needs `hub` with `revision`, or `file`; only open_clip has tags")


def _wanted(encoder: NamedEncoder, photos_alone: bool = False) -> tuple[str, tuple[Wanted, ...]]:
    """The kind of an encoder, and the files that its image tower and its text tower read.

    Files read only by a tower that is not in use may be missing. Where they are published they are fetched anyway, so
    that a tower added later finds them, and so that features do not depend on which towers are in use.
    """
    kind = (encoder.image or encoder.text).kind
    image, text = published.files(kind), published.text_files(kind)
    needed = {*(image if encoder.image else ()), *(text if encoder.text and not photos_alone else ())}
    every = dict.fromkeys((*image, *text))
    return kind, tuple(part if part in needed else (*_ways(part), ()) for part in every)


def _lay_out(wanted: tuple[Wanted, ...], find: Callable[[str], Path | None], out: Path, put: Put, where: str) -> None:
    """Put the files of a checkpoint into a folder, each part in the best way in which it is published."""
    for part in wanted:
        ways = _ways(part)
        for names in ways:
            paths = [find(name) for name in names]
            if all(paths):
                for path, name in zip(paths, names, strict=True):
                    put(path, out / name)  # type: ignore[arg-type]
                break
        else:
            raise UserError(f"{where} has no {' or '.join(' with '.join(names) for names in ways)}")


def _ways(part: Wanted) -> tuple[tuple[str, ...], ...]:
    return ((part,),) if isinstance(part, str) else part


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None


def _from_hub(hub: str, revision: str, name: str, where: str) -> Path | None:
    """A file of a repository, in the hub's own cache; None where the repository has no such file."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import RemoteEntryNotFoundError
    from huggingface_hub.utils.logging import set_verbosity_error

    set_verbosity_error()
    refused = f"{where}: {name} of {hub}@{revision}"
    try:
        cached = try_to_load_from_cache(hub, name, revision=revision)
    except ValueError as error:  # no name of a repository
        raise UserError(f"{refused}: {in_a_line(error)}") from None
    if cached is not None and not isinstance(cached, str):  # the cache knows that there is no such file
        return None
    try:
        return Path(hf_hub_download(hub, name, revision=revision))
    except RemoteEntryNotFoundError:
        return None
    except Exception as error:  # any: the hub's own, those of whichever client its version uses, and of its Rust parts
        if is_of_the_machine(error):
            raise
        raise UserError(f"{refused}: {in_a_line(error)}") from None


def _of_file(
    path: Path, kind: str, wanted: tuple[Wanted, ...], model: str | None, out: Path, put: Put, where: str
) -> None:
    """Make a checkpoint folder of one file."""
    if kind == "open_clip" and model:
        _save_clip(model, str(path), False, out, where)
    elif len(wanted) == 1 and isinstance(wanted[0], str):
        put(path, out / wanted[0])
    else:
        parts = [_ways(part) for part in wanted]
        listed = ", ".join(" or ".join(" with ".join(names) for names in ways) for ways in parts if all(ways))
        needs = "`model` beside a file, or a folder" if kind == "open_clip" else "a folder"
        raise UserError(f"{where}: {path.name}: a {kind} tower needs {needs} with {listed}")


def _check(path: Path, checkpoint: Checkpoint, where: str) -> None:
    """Compare the stated checksum with that of a file, or of the weights in a folder."""
    files = [file for file in path.iterdir() if file.suffix in WEIGHTS] if path.is_dir() else [path]
    sums = {file.name: sha256_of(file) for file in files} if checkpoint.sha256 else {}
    if checkpoint.sha256 and checkpoint.sha256 not in sums.values():
        listed = ", ".join(f"{name} has {digits}" for name, digits in sums.items()) or "there are no weights"
        raise UserError(f"{where}.sha256: {listed}; expected {checkpoint.sha256}: this is a different file")


def _of_tag(model: str, tag: str, where: str) -> Path:
    """The file of weights that an open_clip tag stands for."""
    import open_clip

    known = open_clip.get_pretrained_cfg(model, tag)
    if not known:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise UserError(f"{where}: {model} with {tag}: open_clip has no such tag for it; expected one of: {tags}")
    try:
        return Path(open_clip.download_pretrained(known))
    except Exception as error:  # any: open_clip lets through what urllib, the hub and a missing length lead to
        if is_of_the_machine(error):
            raise
        raise UserError(f"{where}: {model} with {tag}: {in_a_line(error)}") from None


def _wants_quick_gelu(model: str, tag: str) -> bool:
    """Whether a tag's weights were trained with OpenAI's activation: with any other, features are silently worse."""
    import open_clip

    return bool(open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False))


def _save_clip(model: str, pretrained: str, quick_gelu: bool, out: Path, where: str) -> None:
    """Load one of open_clip's architectures with a tag or a file of weights, and save it as a checkpoint folder."""
    import open_clip

    with TemporaryDirectory(prefix="geoloc-") as scratch:
        weights = _plain(Path(pretrained), Path(scratch), where) if Path(pretrained).is_file() else pretrained
        try:
            network, _, _ = open_clip.create_model_and_transforms(
                model, pretrained=weights, weights_only=True, force_quick_gelu=quick_gelu
            )
        except Exception as error:  # any: weights that do not fit make open_clip and torch raise whatever they lead to
            if is_of_the_machine(error):
                raise
            raise UserError(f"{where}: {model} with {pretrained}: {in_a_line(error)}") from None
    config = open_clip.get_model_config(model)
    if quick_gelu:
        config["quick_gelu"] = True
    save_clip(network, config, open_clip.get_model_preprocess_cfg(network), out)


def _plain(path: Path, scratch: Path, where: str) -> str:
    """A file of weights as tensors alone: OpenAI publishes its own as TorchScript, which is a program as well."""
    if not is_zipfile(path):
        return str(path)
    import torch
    from safetensors.torch import save_file

    try:
        with ZipFile(path) as archive:
            if not any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return str(path)
        tensors = torch.jit.load(path, map_location="cpu").state_dict()
    except (BadZipFile, OSError, RuntimeError, ValueError, NotImplementedError) as error:
        if is_of_the_machine(error):
            raise
        raise UserError(f"{where}: {path}: not a readable file of weights: {in_a_line(error)}") from None
    weights = {name: tensor.clone() for name, tensor in tensors.items() if name not in SETTINGS}
    save_file(weights, scratch / "weights.safetensors")
    return str(scratch / "weights.safetensors")
