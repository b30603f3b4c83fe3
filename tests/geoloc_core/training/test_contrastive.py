"""Micro-batches give the gradients of the whole batch."""

from contextlib import nullcontext

import pytest
import torch
from open_clip import ClipLoss

from geoloc_core.errors import UserError
from geoloc_core.training import contrastive, recipe

from .networks import convolutional, transformer


def batch(size: int = 10):
    source = torch.Generator().manual_seed(1)
    return torch.randn(size, 3, 32, 32, generator=source), torch.randint(1, 49000, (size, 12), generator=source)


def gradients(model, micro, compare_all=True, seed=3, autocast=nullcontext):
    model.zero_grad()
    model.train()
    torch.manual_seed(seed)
    outcome = contrastive.backward(model, *batch(), micro, compare_all, autocast)
    return outcome, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def furthest(found, expected) -> float:
    """The largest difference, as a share of the largest gradient of its tensor."""
    assert found.keys() == expected.keys()
    return max(float((found[n] - expected[n]).abs().max() / expected[n].abs().max().clamp_min(1e-3)) for n in found)


def test_the_loss_is_that_of_the_library():
    images, texts = (torch.nn.functional.normalize(torch.randn(6, 4), dim=-1) for _ in range(2))
    scale = torch.tensor(14.0)
    torch.testing.assert_close(contrastive.loss_of(images, texts, scale), ClipLoss()(images, texts, scale))


@pytest.mark.parametrize("micro", [1, 2, 3, 4, 5, 7, 9, 10, 64])
def test_gradients_are_those_of_the_whole_batch_whatever_the_micro_batch(micro):
    model = transformer()
    images, texts, scale = model(*batch())
    loss = ClipLoss()(images, texts, scale)
    loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    outcome, found = gradients(model, micro)
    assert furthest(found, expected) < 1e-5
    assert outcome.loss == pytest.approx(loss.item(), rel=1e-6)
    assert outcome.hits == int(((images @ texts.T).argmax(1) == torch.arange(10)).sum())


def test_what_drops_out_is_the_same_in_both_passes():
    model = transformer(patch_dropout=0.5)
    _, found = gradients(model, 4, seed=3)
    # the same passes with all graphs kept, from the same state of the random numbers
    model.zero_grad()
    torch.manual_seed(3)
    parts = zip(*(side.split(4) for side in batch()), strict=True)
    images, texts = zip(*(model(*part)[:2] for part in parts), strict=True)
    ClipLoss()(torch.cat(images), torch.cat(texts), model.logit_scale.exp()).backward()
    assert furthest(found, {name: p.grad for name, p in model.named_parameters()}) < 1e-5


@pytest.mark.parametrize("micro", [4, 10])
def test_a_frozen_text_tower_has_no_gradients(micro):
    model = transformer()
    _, whole = gradients(model, 10)
    recipe.freeze_text(model)
    _, found = gradients(model, micro)
    assert set(found) == {name for name in whole if name.startswith("visual.")} | {"logit_scale"}
    assert furthest(found, {name: whole[name] for name in found}) < 1e-5


def test_plain_accumulation_compares_within_micro_batches():
    model = transformer()
    parts = list(zip(*(side.split(4) for side in batch()), strict=True))
    total = sum(len(p[0]) / 10 * ClipLoss()(*model(*p)) for p in parts)
    total.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    outcome, found = gradients(model, 4, compare_all=False)
    assert furthest(found, expected) < 1e-5
    assert outcome.loss == pytest.approx(total.item(), rel=1e-6)
    _, whole = gradients(model, 4)
    assert furthest(found, whole) > 0.01


def test_activations_computed_again_change_nothing():
    model = transformer()
    _, expected = gradients(model, 4)
    model.set_grad_checkpointing(True)
    _, found = gradients(model, 4)
    assert furthest(found, expected) < 1e-5


def test_half_precision_is_close_and_the_loss_stays_in_full():
    model = transformer()
    outcome, expected = gradients(model, 4)
    half, found = gradients(model, 4, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    assert half.loss == pytest.approx(outcome.loss, rel=0.02)
    assert half.loss != outcome.loss
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    one, other = (torch.cat([g.flatten() for g in side.values()]) for side in (found, expected))
    assert found.keys() == expected.keys()
    assert torch.cosine_similarity(one, other, dim=0) > 0.99


def test_towers_with_batch_normalisation_are_refused_in_micro_batches():
    contrastive.check_micro_batches(transformer(), "here")
    with pytest.raises(UserError, match=r"pretrain\.x\.micro_batch: .* batch normalisation"):
        contrastive.check_micro_batches(convolutional(), "pretrain.x.micro_batch")
