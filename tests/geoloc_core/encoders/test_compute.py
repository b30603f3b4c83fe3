"""A network rewritten for speed gives the features of the network as it was."""

import copy
import logging
from importlib.metadata import version

import numpy as np
import pytest

from geoloc_core.encoders import structure
from geoloc_core.encoders.compute import on_device
from geoloc_core.encoders.device import computes_bf16, multiplies_bf16, say_without_bf16
from geoloc_core.encoders.preprocess import Preprocess

PREPROCESS = Preprocess(32, "crop", "bicubic", (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))


def pictures(count: int) -> np.ndarray:
    """Photos (N, 32, 32, 3) uint8 of large patches, which networks tell apart."""
    patches = np.random.default_rng(count).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return patches.repeat(8, axis=1).repeat(8, axis=2)


PIXELS = pictures(19)


def open_clip_tower(**given):
    from open_clip.transformer import VisionTransformer

    chosen = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "heads": 2, "mlp_ratio": 4.0}
    return VisionTransformer(**{**chosen, "output_dim": 16, **given})


def quick_gelu():
    from open_clip.transformer import QuickGELU

    return open_clip_tower(act_layer=QuickGELU)


def resnet_with_attention():
    from open_clip.modified_resnet import ModifiedResNet

    return ModifiedResNet((1, 1, 1, 1), output_dim=16, heads=2, image_size=32, width=8)


def transformers_vit(act="gelu"):
    import torch
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = ViTConfig(image_size=32, patch_size=8, hidden_act=act, **sizes)
            self.vit = ViTModel(config, add_pooling_layer=False)

        def forward(self, images):
            return self.vit(pixel_values=images).last_hidden_state

    return Pooled()


def transformers_clip():
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = CLIPVisionConfig(image_size=32, patch_size=8, projection_dim=16, **sizes)
            self.clip = CLIPVisionModelWithProjection(config)

        def forward(self, images):
            return self.clip(pixel_values=images).image_embeds

    return Pooled()


TOWERS = {
    "open_clip": open_clip_tower,
    "open_clip, quick gelu": quick_gelu,
    "open_clip, layer scale": lambda: open_clip_tower(ls_init_value=0.1),
    "open_clip, mean": lambda: open_clip_tower(pool_type="avg"),
    "open_clip, attention pooling": lambda: open_clip_tower(attentional_pool=True, attn_pooler_queries=4),
    "open_clip, residual": resnet_with_attention,
    "transformers vit, tokens": transformers_vit,
    "transformers vit, quick gelu": lambda: transformers_vit("quick_gelu"),
    "transformers clip": transformers_clip,
}


def library(network, pixels: np.ndarray) -> np.ndarray:
    """What the network gives as it is, as its library's users call it."""
    import torch

    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (PREPROCESS.mean, PREPROCESS.std))
    with torch.inference_mode():
        return network((images - mean) / std).numpy()


def made(name: str):
    import torch

    torch.manual_seed(0)
    network = TOWERS[name]().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() > 1 and parameter.std() == 0:  # 0 or 1 at first, where mistakes would not show
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return network


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("name", TOWERS)
def test_a_rewritten_network_equals_the_librarys(name):
    network = made(name)
    theirs = library(network, PIXELS)
    assert np.ptp(theirs, axis=0).max() > 1e-3, "the features differ between photos"
    ours = on_device(network, PREPROCESS, "fp32")(PIXELS)
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.skipif(not computes_bf16(), reason="this processor does not compute in bf16")
@pytest.mark.parametrize("name", TOWERS)
def test_bf16_stays_near_fp32(name):
    network = made(name)
    theirs = library(network, PIXELS)
    forward = on_device(network, PREPROCESS, "bf16")
    ours = forward(PIXELS)
    assert (forward.precision, ours.dtype) == ("bf16", np.float32)
    assert cosines(ours, theirs).min() > 0.999


def test_open_clip_is_really_rewritten():
    from geoloc_core.encoders import fused

    network = made("open_clip, quick gelu")
    on_device(network, PREPROCESS, "fp32")(PIXELS[:1])
    kinds = [type(module).__name__ for module in network.modules()]
    assert (kinds.count("Attention"), kinds.count("ClassBlock")) == (3, 1)
    if fused.can_pack():
        assert (kinds.count("Patches"), kinds.count("Packed")) == (1, 14)


def kinds_of(network) -> set[str]:
    return {type(module).__module__ for module in network.modules()}


@pytest.mark.parametrize("package", structure.VERSIONS)
def test_what_is_rewritten_is_what_is_installed(package):
    """Where this fails, the library was raised: hold its networks against the rewrites, then change the table."""
    name, known = structure.VERSIONS[package]
    assert version(name) == known


def test_the_source_that_is_rewritten_is_known():
    from open_clip import transformer

    for name, (methods, known) in structure.SOURCES.items():
        assert structure.digest(getattr(transformer, name), methods) == known


@pytest.mark.parametrize("name", ["open_clip", "transformers clip"])
def test_a_network_of_an_unknown_version_is_left_alone(name, monkeypatch, caplog):
    monkeypatch.setattr(structure, "_installed", lambda _: "99.0")
    network = made(name)
    theirs, before = library(network, PIXELS), kinds_of(network)
    with caplog.at_level(logging.DEBUG, logger=structure.LOG.name):
        ours = on_device(network, PREPROCESS, "fp32")(PIXELS)
    assert kinds_of(network) == before, "nothing was rewritten"
    np.testing.assert_allclose(ours, theirs, atol=1e-6 * np.abs(theirs).max())
    assert any("99.0: its networks run as they are" in record.message for record in caplog.records)


def changed_block():
    """open_clip's tower, whose blocks compute something else under the same names."""
    from open_clip import transformer

    class ResidualAttentionBlock(transformer.ResidualAttentionBlock):
        def forward(self, q_x, k_x=None, v_x=None, attn_mask=None):
            x = q_x + 0.5 * self.ls_1(self.attention(q_x=self.ln_1(q_x), attn_mask=attn_mask))
            return x - self.ls_2(self.mlp(self.ln_2(x)))

    network = open_clip_tower()
    for block in network.transformer.resblocks:
        block.__class__ = ResidualAttentionBlock
    return network


def changed_tower():
    """open_clip's tower, which reads more than the class token."""
    from open_clip import transformer

    class VisionTransformer(transformer.VisionTransformer):
        def _global_pool(self, x):
            return x.mean(dim=1), x

    network = open_clip_tower()
    network.__class__ = VisionTransformer
    return network


def of_patches(middle):
    """A tower of patches and of some layers that see their features, (N, 16, 32) to (N, 16, 32)."""
    import torch

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.middle = torch.nn.Conv2d(3, 32, 8, 8), middle

        def forward(self, images):
            return self.middle(self.patches(images).flatten(2).transpose(1, 2))

    return Tower()


def gated():
    """timm's gated layers have the names of its plain ones."""
    from timm.layers.mlp import GluMlp
    from torch.nn import GELU

    return of_patches(GluMlp(32, 64, act_layer=GELU))


def normalised_between():
    from open_clip.transformer import QuickGELU
    from timm.layers import Mlp
    from torch.nn import LayerNorm

    return of_patches(Mlp(32, 64, act_layer=QuickGELU, norm_layer=LayerNorm))


def plain_mlp():
    from open_clip.transformer import QuickGELU
    from timm.layers import Mlp

    return of_patches(Mlp(32, 64, act_layer=QuickGELU))


def reads_its_weights():
    import torch

    class Reading(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Sequential(torch.nn.Linear(32, 32))

        def forward(self, x):
            return torch.nn.functional.linear(x, self.inner[0].weight) + self.inner(x)

    class Listed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.Linear(32, 32) for _ in range(2)])

        def forward(self, x):
            for layer in self.layers:
                x = x @ layer.weight
            return x

    return of_patches(torch.nn.Sequential(Reading(), Listed()))


ODD = {
    "another block": (changed_block, False),
    "another tower": (changed_tower, False),
    "gated layers": (gated, False),
    "a norm between layers": (normalised_between, False),
    "weights that are read": (reads_its_weights, False),
    "layers in a row": (plain_mlp, True),
}


@pytest.mark.parametrize("name", ODD)
def test_what_only_looks_like_a_known_layer_is_not_rewritten(name, monkeypatch):
    from geoloc_core.encoders import fused

    build, fuses = ODD[name]
    monkeypatch.setitem(TOWERS, name, build)
    network = made(name)
    theirs = library(network, PIXELS)
    ours = on_device(network, PREPROCESS, "fp32")(PIXELS)
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
    packed = [module for module in network.modules() if isinstance(module, fused.Packed)]
    if fused.can_pack() and "another" not in name:
        assert any(module.activation != "none" for module in packed) == fuses
    assert not any(isinstance(module, fused.ClassBlock) for module in network.modules())


def test_auto_is_fp32_for_a_tiny_tower_and_bf16_for_another_where_there_is_any():
    assert on_device(made("open_clip"), PREPROCESS).precision == "fp32"
    large = open_clip_tower(width=512, layers=4)
    assert on_device(large, PREPROCESS).precision == ("bf16" if multiplies_bf16() else "fp32")
    assert on_device(copy.deepcopy(large), PREPROCESS, "fp32").precision == "fp32"


def test_bf16_where_there_is_none_is_fp32_and_said_once(monkeypatch, capsys):
    say_without_bf16.cache_clear()
    monkeypatch.setattr("geoloc_core.encoders.compute.computes_bf16", lambda: False)
    exact = on_device(made("open_clip"), PREPROCESS, "fp32")(PIXELS)
    for _ in range(2):
        forward = on_device(made("open_clip"), PREPROCESS, "bf16")
        assert forward.precision == "fp32"
        np.testing.assert_array_equal(forward(PIXELS), exact)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].endswith("does not support bf16; using fp32 instead")


def test_bf16_is_computed_where_the_device_says_so():
    """What decides is a product of oneDNN's, and this is another one: both follow the processor."""
    assert computes_bf16() or not multiplies_bf16()
    forward = on_device(made("open_clip"), PREPROCESS, "bf16")
    assert forward.precision == ("bf16" if computes_bf16() else "fp32")
    assert np.isfinite(forward(PIXELS)).all()


def test_photos_are_computed_alike_whatever_came_before():
    forward = on_device(made("open_clip"), PREPROCESS, "fp32")
    first = forward(PIXELS)
    forward(PIXELS[::-1].copy())
    np.testing.assert_array_equal(forward(PIXELS), first)


@pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="needs a GPU")
@pytest.mark.parametrize("name", ["open_clip", "transformers vit, tokens", "open_clip, residual"])
@pytest.mark.parametrize("rows", [1, 33])
def test_a_gpu_gives_the_same_features_begun_ahead_of_each_other(name, rows):
    pixels = pictures(rows)
    network = made(name)
    theirs = library(copy.deepcopy(network), pixels)
    forward = on_device(network, PREPROCESS, "bf16")
    waiting = [forward.start(pixels), forward.start(pixels[::-1].copy())]
    first, second = (wait() for wait in waiting)
    assert cosines(first, theirs).min() > 0.999
    np.testing.assert_array_equal(first, second[::-1])
