"""Rates rise and fall as published, and what is frozen does not move."""

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from pydantic import ValidationError

from geoloc_core.encoders.device import computes_bf16, say_without_bf16
from geoloc_core.errors import UserError
from geoloc_core.training import recipe
from geoloc_core.training.optimisers import SGD, Adam, AdamW

from .networks import TEXT, convolutional, transformer


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (SGD, {"momentum": -0.1}), (SGD, {"momentum": 1.0}), (SGD, {"weight_decay": -1e-9}), (SGD, {"lr": 0.0}),
        (Adam, {"betas": (1.0, 0.9)}), (Adam, {"betas": (0.9, -0.1)}), (Adam, {"eps": 0.0}), (AdamW, {"lr": -1.0}),
        (AdamW, {"weight_decay": -1e-9}),
    ],
)  # fmt: skip
def test_numbers_with_which_nothing_is_learned_are_refused(kind, wrong):
    kind(lr=0.1)
    with pytest.raises(ValidationError):
        kind(**{"lr": 0.1} | wrong)


def rates(schedule, steps, warmup):
    return [recipe.rate(schedule, 2.0, step, steps, warmup) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_rate_rises_to_its_peak_and_falls_to_nothing(schedule):
    found = rates(schedule, 100, 20)
    assert found[0] == pytest.approx(2.0 / 20)
    assert found[19] == pytest.approx(2.0)
    assert found[20] == pytest.approx(2.0)
    assert found[60] == pytest.approx(1.0), "halfway down"
    assert found[99] < 0.03
    assert np.all(np.diff(found[:20]) > 0)
    assert np.all(np.diff(found[20:]) < 0)


def test_the_two_schedules_differ_a_quarter_of_the_way_down():
    assert rates("linear", 100, 20)[40] == pytest.approx(1.5)
    assert rates("cosine", 100, 20)[40] == pytest.approx(1 + np.cos(np.pi / 4))


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_without_a_warm_up_the_first_step_is_the_peak(schedule):
    assert rates(schedule, 10, 0)[0] == 2.0


def moved(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_a_frozen_text_tower_leaves_the_image_tower_and_the_scale():
    model = transformer()
    recipe.freeze_text(model)
    assert moved(model) == {n for n, _ in model.named_parameters() if n.startswith("visual.")} | {"logit_scale"}


def test_the_first_blocks_freeze_with_what_comes_before_them():
    model = transformer()
    recipe.freeze_blocks(model, 1, "here")
    visual = {name for name in moved(model) if name.startswith("visual.")}
    expected = {
        name
        for name, _ in model.named_parameters()
        if name.startswith(("visual.transformer.resblocks.1.", "visual.transformer.resblocks.2.", "visual.ln_post."))
    }
    assert visual == expected | {"visual.proj"}
    assert "token_embedding.weight" in moved(model)


def test_all_but_the_last_block_freeze():
    model, other = transformer(), transformer()
    recipe.freeze_blocks(model, "all_but_last", "here")
    recipe.freeze_blocks(other, 2, "here")
    assert moved(model) == moved(other)
    recipe.freeze_blocks(model, 0, "here")
    assert moved(model) == moved(other), "none frozen leaves all as it is"


def test_a_transformer_of_timm_freezes_too():
    vision = {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear"}
    model = CLIP(16, {**vision, "timm_model_pretrained": False}, TEXT)
    recipe.freeze_blocks(model, "all_but_last", "here")
    last = len(model.visual.trunk.blocks) - 1
    visual = {name for name in moved(model) if name.startswith("visual.")}
    assert any(name.startswith(f"visual.trunk.blocks.{last}.") for name in visual)
    assert any(name.startswith("visual.head.") for name in visual)
    assert not any(name.startswith(("visual.trunk.blocks.0.", "visual.trunk.patch_embed")) for name in visual)


def test_more_blocks_than_there_are_and_towers_without_are_said():
    with pytest.raises(UserError, match=r"pretrain\.x\.freeze_blocks: 4; expected at most 3, the blocks"):
        recipe.freeze_blocks(transformer(), 4, "pretrain.x.freeze_blocks")
    with pytest.raises(UserError, match=r"pretrain\.x\.freeze_blocks: 1; the image tower has no blocks"):
        recipe.freeze_blocks(convolutional(), 1, "pretrain.x.freeze_blocks")


def test_only_matrices_decay_and_only_what_moves_is_optimised():
    model = transformer()
    recipe.freeze_text(model)
    optimiser = recipe.adamw(model, 1e-3, (0.9, 0.98), 1e-6, 0.2)
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in decay
        else:
            plain = name == "logit_scale" or name.endswith("bias") or ".ln_" in name or "class_embedding" in name
            assert decay[id(parameter)] == (0.0 if plain else 0.2), name
    recipe.set_rate(optimiser, 0.5)
    assert {group["lr"] for group in optimiser.param_groups} == {0.5}


def test_half_precision_is_used_where_it_is_wanted_and_had(capsys):
    say_without_bf16.cache_clear()
    product = torch.ones(2, 2)
    with recipe.autocast(False)():
        assert (product @ product).dtype == torch.float32
    for _ in range(2):
        with recipe.autocast(True)():
            had = (product @ product).dtype == torch.bfloat16
    assert had == computes_bf16()
    assert capsys.readouterr().err.count("using fp32 instead") == (not had)
