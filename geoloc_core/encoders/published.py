"""Which files of a published checkpoint a tower reads: only these are downloaded. The module of its kind says it.

``FILES`` of a module are those of its one network, ``PARTS`` those of each of its networks, which have folders of their
own.
"""

from typing import Any

from geoloc_core.plugins import kinds, module_of

TOWERS = "geoloc_core.encoders.towers"
TEXT_TOWERS = "geoloc_core.encoders.text.towers"

Wanted = str | tuple[tuple[str, ...], ...]
"""A file, or the ways in which a part of a checkpoint is published, best first, with the files of each; none is one."""
TENSORS: Wanted = (("model.safetensors",), ("pytorch_model.bin",))
TRANSFORMERS: tuple[Wanted, ...] = ("config.json", TENSORS, "preprocessor_config.json")
"""An image tower of transformers."""
TOKENIZER: tuple[Wanted, ...] = (
    (("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",)),
    (("tokenizer_config.json",), ()),
    (("special_tokens_map.json",), ()),
)
OPEN_CLIP: tuple[Wanted, ...] = ("open_clip_config.json", "open_clip_model.safetensors")


def files(kind: str) -> tuple[Wanted, ...]:
    """What an image tower of one network reads; nothing where there is no such kind, or it has several networks."""
    return _said(TOWERS, kind, "FILES", ())


def parts(kind: str) -> dict[str, tuple[Wanted, ...]]:
    """What each network of an image tower of several reads."""
    return _said(TOWERS, kind, "PARTS", {})


def text_files(kind: str) -> tuple[Wanted, ...]:
    """What a text tower reads; nothing where there is no such kind."""
    return _said(TEXT_TOWERS, kind, "FILES", ())


def _said(package: str, kind: str, name: str, default: Any) -> Any:
    return getattr(module_of(package, kind), name, default) if kind in kinds(package) else default
