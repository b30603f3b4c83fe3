"""What lies over another variant's model: what it reads, the features of places, and what becomes of the truth."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from geoloc_core.contracts import layers
from geoloc_core.contracts.layers import Names
from geoloc_core.contracts.needs import ImageFeatures, Model, Needs, Photos, TextFeatures, Tokens
from geoloc_core.contracts.prediction import OfTruth, Prediction
from geoloc_core.families.protonet_refinement import Options


def layer(**more) -> Options:
    given = {"kind": "protonet_refinement", "corpus": "c", "variant": "below", "encoder": "seen", "labels": "cells"}
    return Options.model_validate(given | more)


def below(*inputs, unit="photo", labels="cells", kind="classifier", corpus="c"):
    found = Needs(inputs=inputs, labels=labels, unit=unit)
    return SimpleNamespace(kind=kind, corpus=corpus, needs=lambda: found)


def test_a_layer_reads_what_the_model_under_it_reads_to_answer_and_its_own_features():
    seen, other = ImageFeatures(encoder="seen"), ImageFeatures(encoder="other")
    under = below(seen, other, TextFeatures(encoder="words", texts="clues"), unit="place")
    needs = layers.needs(layers.over(layer(), {"below": under}))
    assert needs.inputs == (Model(variant="below"), seen, other), "each once, and no text that only training reads"
    assert (needs.unit, needs.labels) == ("place", "cells")


def test_of_a_tower_that_is_trained_along_photos_are_left_and_of_tokens_no_weights():
    kept, live = Tokens(encoder="kept", weights=True), Tokens(encoder="live", live=True)
    read = layers.needs(layers.over(layer(), {"below": below(kept, live)})).inputs
    assert read[1:3] == (Tokens(encoder="kept", weights=False), Photos())


@pytest.mark.parametrize("variants", [{}, {"below": below(ImageFeatures(encoder="x"), kind="protonet_refinement")}])
def test_over_nothing_that_it_can_lie_over_the_options_stay(variants):
    options = layer()
    assert layers.over(options, variants) is options


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ({}, ""),
        ({"below": below()}, ""),
        ({"below": below(kind="protonet_refinement")}, "'below' is refined already; expected the model of cells"),
        ({"below": below(labels="country")}, "learns country; expected a variant over one of `cells`: cells, towns"),
        ({"below": below(labels="towns")}, "'below' learns towns from c; expected cells from c, as the layer over it"),
        ({"below": below(corpus="d")}, "'below' learns cells from d; expected cells from c, as the layer over it"),
    ],
)
def test_what_is_wrong_with_the_variant_under_it_is_said(variants, said):
    profile = SimpleNamespace(variants=variants, cells=["cells", "towns"])
    found = layers.flaws(profile, layer(), "refined")
    assert len(found) == (1 if said else 0)
    assert said in "".join(found)


def test_the_features_of_a_place_are_the_mean_of_its_photos():
    features = np.array([[1, 2], [3, 6], [5, 1], [7, 7], [0, 4]], np.float16)
    found = layers.embeddings(features, np.array([0, 2, 5]))
    assert found.dtype == np.float32
    assert found.tolist() == [[2, 4], [4, 4]]
    alone = layers.embeddings(features, None)
    assert alone.dtype == np.float32
    assert alone.tolist() == features.tolist()
    assert layers.embeddings(features[:0], np.array([0])).shape == (0, 2)


@pytest.mark.parametrize("chunked", [True, False])
def test_names_are_those_at_the_rows_asked_for(chunked):
    parts = [["é", "", "abc"], ["水", "e"]]
    ids = pa.chunked_array(parts) if chunked else pa.array([*parts[0], *parts[1]])
    names = Names.of(ids, np.array([4, 3, 1, 2, 0]))
    assert names[np.array([0, 1, 2, 3, 4, 1])].tolist() == ["e", "水", "", "abc", "é", "水"]
    assert names.text.tobytes().decode() == "e水abcé"
    assert names[np.array([], int)].tolist() == []


def test_the_truth_among_those_that_changed_places_has_their_rank_and_mass_and_any_other_what_it_had():
    before = OfTruth(np.array([3, 4, -1, 9]), np.array([0.1, 0.2, 0.0, 0.1]), np.array([0.6, 0.7, 1.0, 0.9]))
    classes = np.array([[5, 2, 7], [5, 2, 7], [5, -1, 7], [5, 0, 7]])
    probabilities = np.array([[0.5, 0.25, 0.125]] * 4, np.float32)
    found = layers.of_truth(before, classes, probabilities, np.array([7, 6, -1, 0]))
    assert (found.rank.tolist(), found.rank.dtype) == ([2, 4, -1, 1], np.int32)
    np.testing.assert_array_equal(found.probability, np.array([0.125, 0.2, 0, 0.25], np.float32))
    np.testing.assert_array_equal(found.before, np.array([0.75, 0.7, 1, 0.5], np.float32))


def test_the_mass_before_the_truth_is_exact_among_many_classes():
    count = 20_000
    probabilities = np.full((1, count), 1 / count, np.float32)
    nothing = OfTruth(np.array([0]), np.zeros(1), np.zeros(1))
    found = layers.of_truth(nothing, np.arange(count)[None], probabilities, np.array([count - 1]))
    assert found.before[0] == np.float32((count - 1) * float(probabilities[0, 0]))


def test_a_cut_keeps_the_first_candidates_and_all_else():
    whole = Prediction(
        latitudes=np.arange(6.0).reshape(2, 3), longitudes=np.arange(6.0).reshape(2, 3) + 10,
        classes=np.array([[4, 2, 0], [1, 3, 5]]), probabilities=np.array([[0.5, 0.3, 0.2], [0.7, 0.2, 0.1]]),
        latitude=np.zeros(2), longitude=np.ones(2),
    )  # fmt: skip
    found = layers.cut(whole, 2)
    assert found.classes.tolist() == [[4, 2], [1, 3]]
    assert found.probabilities.tolist() == [[0.5, 0.3], [0.7, 0.2]]
    assert (found.latitudes.tolist(), found.longitudes.tolist()) == ([[0, 1], [3, 4]], [[10, 11], [13, 14]])
    assert found.longitude is whole.longitude
