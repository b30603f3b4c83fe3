"""Attention × gradient and integrated gradients against literal transcriptions, on small towers of random weights."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.encoders.towers import clip, open_clip, vit
from geoloc_core.encoders.trainable import open_trainable
from geoloc_core.explain.attention import _recorded, attention_map, is_known, lacking, left_out, relevance
from geoloc_core.explain.gradients import gradient_map, integrated
from geoloc_core.explain.network import Network, Part, laid_out
from tests.geoloc_core.encoders import made_checkpoints, made_segmenters
from tests.geoloc_core.explain.made_scores import noise

SIZE = 32
CLASSES = 3


def head(width, seed=0):
    weight = torch.from_numpy(np.random.default_rng(seed).normal(size=(CLASSES, width)).astype(np.float32))
    return lambda x: (x @ weight.T.to(x.dtype)).tanh() * 3


def part(options, folder):
    tower = open_trainable(options, folder)
    return Part("tower", options, tower.network.eval().requires_grad_(False), tower.preprocess), tower.dim


@pytest.fixture(scope="module")
def vits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    made_segmenters.vit(folder, SIZE)
    return folder


def network(folder, pooling="class"):
    one, width = part(vit.Options(kind="vit", pooling=pooling), folder)
    return Network([one], head(width))


def literal(attention, gradients):
    """Chefer et al. 2021, equations 5 and 6, head by head and token by token, in float64."""
    tokens = attention[0].shape[-1]
    total = np.eye(tokens)
    for weights, slopes in zip(attention, gradients, strict=True):
        mean = np.zeros((tokens, tokens))
        for of_head, slope in zip(weights[0], slopes[0], strict=True):
            for i in range(tokens):
                for j in range(tokens):
                    mean[i, j] += max(0.0, float(of_head[i, j]) * float(slope[i, j])) / len(weights[0])
        total = total + mean @ total
    return total


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_attention_is_that_of_a_literal_transcription(vits, pooling):
    found = attention_map(network(vits, pooling), photo := noise(SIZE, SIZE), 1)
    twin = network(vits, pooling)
    tower = twin.parts[0].network.double()
    tower.vit.set_attn_implementation("eager")  # the library's own way to tell its weights
    output = tower.vit(pixel_values=twin.inputs(photo)[0].double().requires_grad_(True), output_attentions=True)
    tokens = output.last_hidden_state
    pooled = tokens[:, 0] if pooling == "class" else tokens.mean(dim=1)
    gradients = torch.autograd.grad(twin.head(pooled)[0, 1], output.attentions)
    weights = [layer.detach().numpy() for layer in output.attentions]
    expected = literal(weights, [slope.numpy() for slope in gradients])
    of_tokens = expected[0] if pooling == "class" else expected.mean(axis=0)
    side = SIZE // 8
    expected = laid_out(of_tokens[1:].reshape(side, side), twin.parts[0].preprocess, SIZE, SIZE)
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=expected.max() * 1e-4)


def test_relevance_of_several_photos_is_that_of_each():
    rng = np.random.default_rng(1)
    attention, gradients = ([torch.from_numpy(rng.normal(size=(2, 3, 5, 5))) for _ in range(4)] for _ in range(2))
    found = relevance(attention, gradients).numpy()
    for photo in range(2):
        some = slice(photo, photo + 1)
        np.testing.assert_allclose(found[photo], literal([a[some] for a in attention], [g[some] for g in gradients]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "options"),
    [
        (made_checkpoints.clip(32, 8, old=False), clip.Options(kind="clip")),
        (
            made_checkpoints.open_clip({"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}),
            open_clip.Options(kind="open_clip"),
        ),
    ],
    ids=["clip", "open_clip"],
)
def test_towers_tell_their_attention_and_compute_what_they_did(tmp_path, made, options):
    made.write(tmp_path)
    one, width = part(options, tmp_path)
    assert is_known(one)
    seen = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = one.network(seen)
        with _recorded([one.network]) as [weights]:
            during = one.network(seen)
        after = one.network(seen)
    assert len(weights) == 2
    np.testing.assert_allclose(torch.stack(weights).sum(dim=-1), 1, rtol=1e-5)
    assert {tuple(layer.shape) for layer in weights} == {(2, weights[0].shape[1], 17, 17)}
    np.testing.assert_allclose(during, before, atol=1e-5)
    np.testing.assert_array_equal(after, before)
    found = attention_map(Network([one], head(width)), noise(48, 64), 0)
    assert found.shape == (48, 64)
    assert found.min() >= 0
    assert found.max() > 0
    assert found[:, :7].max() == 0, "what the tower cuts off, it does not look at"


def test_integrated_gradients_add_up_to_the_gain(vits):
    net = network(vits)
    found = integrated(net, photo := noise(SIZE, SIZE), 2)
    x = net.inputs(photo)[0]
    start = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
    with torch.no_grad():
        gain = float(net.logit([x], 2) - net.logit([start], 2))
    assert abs(gain) > 0.01
    assert found.gain == pytest.approx(gain, rel=1e-5)
    assert found.values[0].sum() == pytest.approx(gain, rel=0.01)
    assert found.gap < 0.01
    assert gradient_map(net, photo, found).sum() == pytest.approx(found.values[0].sum(), rel=0.02)


def test_integrated_gradients_of_a_linear_model_are_weight_times_change():
    weight = torch.randn(1, 3, 8, 8)
    plain = Preprocess(8, "squash", "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    class Sum(torch.nn.Module):
        def forward(self, x):
            return (x * weight).sum(dim=(1, 2, 3))[:, None]

    towers = [Part("a", None, Sum(), plain), Part("b", None, Sum(), plain)]
    net = Network(towers, lambda x: x @ torch.tensor([[1.0], [-2.0]]))
    x = net.inputs(photo := noise(8, 8))[0]
    expected = (weight * (x - x.mean(dim=(2, 3), keepdim=True)))[0].sum(dim=0).double().numpy()
    first, second = integrated(net, photo, 0, steps=5).values
    np.testing.assert_allclose(first, expected, atol=1e-5)
    np.testing.assert_allclose(second, -2 * expected, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (10, 10), (7, 90)])
@pytest.mark.parametrize("mode", ["crop", "squash"])
def test_a_map_is_laid_where_the_tower_looked(height, width, mode):
    found = laid_out(np.ones((4, 4)), Preprocess(16, mode, "bicubic", (0, 0, 0), (1, 1, 1)), height, width)
    assert found.shape == (height, width)
    assert found.sum() == pytest.approx(16, rel=0.05)
    if mode == "squash":
        assert (found > 0).all()
        return
    edge = min(height, width)
    rows, columns = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
    assert (len(rows), len(columns)) == (edge, edge)
    assert rows[0] == pytest.approx((height - edge) / 2, abs=1)
    assert columns[0] == pytest.approx((width - edge) / 2, abs=1)


def test_a_tower_without_attention_is_named_and_adds_nothing(vits):
    one, width = part(vit.Options(kind="vit"), vits)

    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3))

    other = replace(one, name="plain", options=SimpleNamespace(kind="resnet"), network=Mean())
    both = Network([one, other], head(width + 3))
    assert lacking(both) is None
    assert left_out(both) == "Of tower alone: plain has no attention to show."
    assert left_out(network(vits)) == ""
    assert "encoder plain: no vision transformer" in lacking(Network([other], head(3)))
    found = attention_map(both, photo := noise(SIZE, SIZE), 0)
    given = other.network(both.inputs(photo)[1])
    expected = attention_map(Network([one], lambda x: both.head(torch.cat([x, given], dim=1))), photo, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
