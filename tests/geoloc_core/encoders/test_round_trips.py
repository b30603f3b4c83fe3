"""A random checkpoint in an encoder's published format gives what the library's own class gives, for every pooling."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from geoloc_core.encoders import encoder as images
from geoloc_core.encoders.options import PENULTIMATE
from geoloc_core.encoders.preprocess import decode
from geoloc_core.encoders.text import encoder as texts
from geoloc_core.errors import UserError
from geoloc_core.params import Profile
from geoloc_core.plugins import module_of

from .made_checkpoints import CLIP_MEAN, CLIP_STD, MADE, OTHERS, SENTENCES, TRANSFORMER, clip, open_clip_config
from .test_preprocess import photo

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PHOTOS = [photo(90, 61), photo(61, 90), photo(64, 64, "PNG"), photo(40, 131)]
ELSEWHERE = {"seg-vit", "seg-vit-segformer", "isn", "isn-routed", "places365", "mask2former"}
"""Encoders of the catalogue whose round trips have their own module."""


def catalogue() -> Profile:
    import yaml

    return Profile.model_validate(yaml.safe_load((ROOT / "params.yaml").read_text())["profiles"]["catalogue"])


CATALOGUE = catalogue()


def cases(side: str) -> list:
    """Every encoder and every other format, with each pooling that its kind has; ``test_last_block`` has one more."""
    room, known = {"images": (images.TOWERS, CATALOGUE.encoders), "texts": (texts.TOWERS, CATALOGUE.text_encoders)}[
        side
    ]
    kinds = {name: known[name].kind for name in MADE if name in known}
    kinds |= {name: kind for name, (kind, made) in OTHERS.items() if getattr(made, side)}
    found = []
    for name, kind in kinds.items():
        options = module_of(room, kind).Options
        poolings = get_args(options.model_fields["pooling"].annotation)
        if name in ("clip-rn50x16", "open_clip timm"):
            poolings = ("projection",)
        found += [
            pytest.param(name, options(kind=kind, pooling=p, batch=3), p, id=f"{name}, {p}")
            for p in poolings
            if p != PENULTIMATE
        ]
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A function from a name to the folder of its checkpoint, made once."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("checkpoint")
            (MADE.get(name) or OTHERS[name][1]).write(made[name])
        return made[name]

    return folder


def test_every_encoder_of_the_catalogue_makes_a_round_trip():
    published = {name for name, checkpoint in CATALOGUE.checkpoints.items() if not checkpoint.tag}
    assert published <= {*MADE, *ELSEWHERE}


@pytest.mark.parametrize(("name", "options", "pooling"), cases("images"))
def test_photos_get_the_features_that_the_library_gives(folders, name, options, pooling):
    import torch

    folder = folders(name)
    made = MADE.get(name) or OTHERS[name][1]
    with torch.inference_mode():
        theirs = made.images(folder, [decode(data) for data in PHOTOS], pooling).numpy()
    tower = images.load(options, folder)
    assert tower.shape == theirs.shape[1:]
    assert tower.parameters > 0
    ours = tower(PHOTOS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert np.abs(ours[0] - ours[1]).max() > 1e-3, "photos differ"


@pytest.mark.parametrize(("name", "options", "pooling"), cases("texts"))
def test_texts_get_the_features_that_the_library_gives(folders, name, options, pooling):
    import torch

    folder = folders(name)
    made = MADE.get(name) or OTHERS[name][1]
    with torch.inference_mode():
        theirs = made.texts(folder, list(SENTENCES), pooling).numpy()
    tower = texts.load(options, folder)
    assert (len(SENTENCES), tower.dim) == theirs.shape
    ours = tower(SENTENCES)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(ours[0] - ours[4]).max() > 1e-3, "texts differ"
    assert tower([]).shape == (0, tower.dim)
    lengths = [len(tokens) for tokens in tower.tokenize(SENTENCES)]
    assert max(lengths) == lengths[1] == tower.longest, "one is cut"


def test_a_batch_of_its_own_changes_no_text(folders):
    options = module_of(texts.TOWERS, "bert").Options(kind="bert", batch=1)
    alone, together = texts.load(options, folders("distilbert")), options.model_copy(update={"batch": 64})
    np.testing.assert_allclose(alone(SENTENCES), texts.load(together, folders("distilbert"))(SENTENCES), atol=1e-6)


def test_both_libraries_tokenize_alike(folders):
    """The same CLIP vocabulary, in the files of transformers and within open_clip."""
    one = texts.load(module_of(texts.TOWERS, "clip").Options(kind="clip"), folders("streetclip"))
    other = texts.load(module_of(texts.TOWERS, "open_clip").Options(kind="open_clip"), folders("clip-rn50x16"))
    assert one.tokenize(SENTENCES) == other.tokenize(SENTENCES)


WHOLE = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "logit_scale": "logit_scale",
}
TURNED = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
NORMS = {
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "text_model.final_layer_norm": "ln_final",
}
LAYER = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
"""What transformers calls the parts of a CLIP, and what open_clip does."""


def renamed(tensors: dict) -> dict:
    """The weights of a CLIP of transformers under open_clip's names."""
    import torch

    found = {new: tensors[old] for old, new in WHOLE.items()}
    found |= {new: tensors[old].T.contiguous() for old, new in TURNED.items()}
    for part in ("weight", "bias"):
        found |= {f"{new}.{part}": tensors[f"{old}.{part}"] for old, new in NORMS.items()}
        for side, prefix in (("vision", "visual."), ("text", "")):
            for layer in range(2):
                theirs, ours = f"{side}_model.encoder.layers.{layer}", f"{prefix}transformer.resblocks.{layer}"
                attention = [tensors[f"{theirs}.self_attn.{one}_proj.{part}"] for one in "qkv"]
                found[f"{ours}.attn.in_proj_{part}"] = torch.cat(attention)
                found |= {f"{ours}.{new}.{part}": tensors[f"{theirs}.{old}.{part}"] for old, new in LAYER.items()}
    return found


@pytest.fixture(scope="module")
def as_open_clip(folders, tmp_path_factory):
    """The checkpoint of ``streetclip`` in the format of open_clip."""
    from open_clip.model import CLIP
    from safetensors.torch import load_file

    from geoloc_core.encoders.openclip import save_clip

    config = open_clip_config({**TRANSFORMER, "image_size": 42, "patch_size": 14, "mlp_ratio": 2.0})
    config["text_cfg"]["mlp_ratio"] = 2.0
    model = CLIP(**config)
    model.load_state_dict(renamed(load_file(folders("streetclip") / "model.safetensors")))
    folder = tmp_path_factory.mktemp("renamed")
    save_clip(model, config, {"size": 42, "mean": CLIP_MEAN, "std": CLIP_STD}, folder)
    return folder


@pytest.mark.parametrize("pooling", ["projection", "class", "mean", "tokens"])
def test_a_pooling_means_the_same_in_both_libraries(folders, as_open_clip, pooling):
    square = [photo(64, 64), photo(50, 50)]  # the libraries round half a pixel beside a cut differently
    one, other = (
        images.load(module_of(images.TOWERS, kind).Options(kind=kind, pooling=pooling), folder)(square)
        for kind, folder in (("clip", folders("streetclip")), ("open_clip", as_open_clip))
    )
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_text_means_the_same_in_both_libraries(folders, as_open_clip):
    one, other = (
        texts.load(module_of(texts.TOWERS, kind).Options(kind=kind), folder)(SENTENCES)
        for kind, folder in (("clip", folders("streetclip")), ("open_clip", as_open_clip))
    )
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_tower_without_a_class_token_says_so(folders):
    options = module_of(images.TOWERS, "open_clip").Options(kind="open_clip", pooling="class")
    with pytest.raises(UserError, match="pooling 'class': the tower, a ModifiedResNet, has no class token"):
        images.load(options, folders("clip-rn50x16"))


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("vit-l16-in21k", "clip", "model_type 'vit'; expected clip or clip_vision_model"),
        ("streetclip", "vit", "model_type 'clip'; expected vit"),
        ("vit-l16-in21k", "resnet", "model_type 'vit'; expected resnet"),
        ("streetclip", "open_clip", "no open_clip_config.json"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(folders, name, kind, says):
    with pytest.raises(UserError, match=says):
        images.load(module_of(images.TOWERS, kind).Options(kind=kind), folders(name))


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("distilbert", "clip", "model_type 'distilbert'; expected clip or clip_text_model"),
        ("streetclip", "bert", "model_type 'clip'; expected bert or roberta or distilbert"),
        ("distilbert", "open_clip", "no open_clip_config.json"),
    ],
)
def test_a_text_checkpoint_of_another_network_is_refused(folders, name, kind, says):
    with pytest.raises(UserError, match=says):
        texts.load(module_of(texts.TOWERS, kind).Options(kind=kind), folders(name))


@pytest.fixture
def small(tmp_path):
    clip(28, 14, old=False).write(tmp_path)
    return tmp_path


@pytest.mark.parametrize("room", [images, texts], ids=["image", "text"])
def test_weights_that_are_not_whole_are_refused(small, room):
    """The library itself would fill them up at random, with a warning."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(small / "model.safetensors")
    side = {images: "vision", texts: "text"}[room]
    left = {name: tensor for name, tensor in tensors.items() if f"{side}_model.encoder.layers.1.mlp.fc1" not in name}
    save_file(left, small / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"incomplete checkpoint of CLIP.*: no matching weights for .*fc1.* and 1 more"):
        room.load(module_of(room.TOWERS, "clip").Options(kind="clip"), small)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("data", [None, b"", b"broken", b"[]", b'{"model_type": "clip", "vision_config": 7}'])
def test_a_broken_file_is_one_line(small, name, data):
    (small / name).unlink() if data is None else (small / name).write_bytes(data)
    with pytest.raises(UserError, match=r"^[^\n]+$"):
        images.load(module_of(images.TOWERS, "clip").Options(kind="clip"), small)


def test_a_pickle_that_is_a_program_is_refused(small):
    import torch

    class Program:
        def __reduce__(self):
            return (exec, ("raise SystemExit('it ran')",))

    (small / "model.safetensors").unlink()
    torch.save({"x": Program()}, small / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"^[^\n]+$"):
        images.load(module_of(images.TOWERS, "clip").Options(kind="clip"), small)


def test_a_missing_tokenizer_is_said(small):
    for name in ("vocab.json", "merges.txt"):
        (small / name).unlink()
    with pytest.raises(
        UserError, match=r"no tokenizer.json or vocab.json or vocab.txt; expected the checkpoint's tokenizer"
    ):
        texts.load(module_of(texts.TOWERS, "clip").Options(kind="clip"), small)


def test_half_precision_weights_are_computed_in_single(small):
    """A checkpoint may be published in float16; which precision is computed in is not its business."""
    import torch
    from safetensors.torch import load_file, save_file

    halves = {name: tensor.half() for name, tensor in load_file(small / "model.safetensors").items()}
    save_file(halves, small / "model.safetensors", {"format": "pt"})
    ours = images.load(module_of(images.TOWERS, "clip").Options(kind="clip"), small)(PHOTOS)
    save_file({name: tensor.float() for name, tensor in halves.items()}, small / "model.safetensors", {"format": "pt"})
    with torch.inference_mode():
        theirs = clip(28, 14, old=False).images(small, [decode(data) for data in PHOTOS], "projection").numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_fingerprint_follows_the_weights_and_the_pooling(small):
    def fingerprint(**options) -> str:
        return images.load(module_of(images.TOWERS, "clip").Options(kind="clip", **options), small).fingerprint

    one = fingerprint()
    assert fingerprint(batch=7) == one
    assert fingerprint(pooling="mean") != one
    config = (small / "preprocessor_config.json").read_text()
    (small / "preprocessor_config.json").write_text(config.replace("0.48145466", "0.48145467"))
    assert fingerprint() != one
    (small / "preprocessor_config.json").write_text(config)
    weights = bytearray((small / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (small / "model.safetensors").write_bytes(weights)
    assert fingerprint() != one


def test_a_config_of_open_clip_that_asks_for_more_is_refused(tmp_path):
    import json

    from geoloc_core.encoders.towers.open_clip import preprocess_of

    for key, value in (("resize_mode", "longest"), ("size", [32, 48]), ("interpolation", "nearest"), ("mode", "L")):
        config = {"model_cfg": open_clip_config({"image_size": 32}), "preprocess_cfg": {key: value}}
        with pytest.raises(UserError, match=rf"preprocess_cfg\.{key}: .*; expected"):
            preprocess_of(json.loads(json.dumps(config)), tmp_path / "open_clip_config.json")
