import json

import numpy as np
import pandas as pd
import pytest

from geoloc_core.encoders import store
from geoloc_core.errors import UserError
from geoloc_core.evaluation import evaluate as stage
from geoloc_core.evaluation.evaluate import evaluate
from geoloc_core.files import digest
from geoloc_core.geo.sphere import haversine_km


def scores_of(project, variant):
    return json.loads((project.scores(variant) / "scores.json").read_text())


def test_scores_agree_with_the_written_predictions(project, models):
    evaluate(project, "by_region")
    report = scores_of(project, "by_region")
    assert list(report["benchmarks"]) == ["validation", "im2gps"]
    assert (report["family"], report["encoders"], report["labels"]) == ("head", ["clip"], "subdivision")
    for name, figures in report["benchmarks"].items():
        rows = pd.read_parquet(project.scores("by_region") / "predictions" / f"{name}.parquet")
        assert len(rows) == figures["n"]
        best = rows["classes"].str[0]
        assert figures["accuracy"] == pytest.approx(100 * np.mean(best == rows["truth"]))
        country = best.str.split(".").str[0] == rows["truth"].str.split(".").str[0]
        assert figures["country_accuracy"] == pytest.approx(100 * np.mean(country))
        errors = haversine_km(
            rows["latitude"], rows["longitude"], rows["predicted_latitude"], rows["predicted_longitude"]
        )
        np.testing.assert_allclose(rows["error_km"], errors)
        assert figures["median_km"] == pytest.approx(np.median(errors))
        assert figures["within_750km"] == pytest.approx(100 * np.mean(errors <= 750))
        assert figures["accuracy"] > figures["majority_accuracy"] > 0
        assert figures["top_5"] == figures["top_10"] == pytest.approx(100 * rows["truth"].notna().mean())


def test_rows_without_place_are_left_out_and_those_without_unit_missed(project, models):
    evaluate(project, "by_country")
    figures = scores_of(project, "by_country")["benchmarks"]
    assert (figures["im2gps"]["n"], figures["im2gps"]["published"]) == (39, 42)
    assert (figures["validation"]["n"], figures["validation"]["published"]) == (10, 42)
    rows = pd.read_parquet(project.scores("by_country") / "predictions" / "im2gps.parquet")
    assert rows["image_id"].tolist() == [f"im2gps-{i}" for i in range(1, 40)]
    assert rows["truth"].isna().tolist() == [True] + [False] * 38
    assert figures["im2gps"]["top_5"] == pytest.approx(100 * 38 / 39)


def without_features(project, corpus, rows):
    """Encode a corpus again, as if some of its photos could not be read."""
    folder = project.features("clip", corpus)
    features = np.array(store.read(folder))
    features[rows] = np.nan
    np.save(folder / "part.npy", features)
    flaws = [{"row": row, "image_id": f"{corpus}-{row}", "reason": "not a readable photo"} for row in rows]
    store.write(folder, [folder / "part.npy"], (4,), {"fingerprint": "f00d"}, flaws)


def test_photos_without_features_are_left_out_and_counted(project, models):
    without_features(project, "im2gps", [5, 7])
    without_features(project, "mp16", [2])  # of the training split
    evaluate(project, "by_region")
    figures = scores_of(project, "by_region")["benchmarks"]
    assert (figures["im2gps"]["n"], figures["im2gps"]["published"]) == (37, 42)
    assert figures["validation"]["n"] == 10
    rows = pd.read_parquet(project.scores("by_region") / "predictions" / "im2gps.parquet")
    assert rows["image_id"].tolist() == [f"im2gps-{i}" for i in range(1, 40) if i not in (5, 7)]
    assert np.isfinite(rows["error_km"]).all()


def test_a_benchmark_without_any_features_is_refused(project, models):
    without_features(project, "im2gps", list(range(40)))
    with pytest.raises(UserError, match="im2gps: none of its photos could be read; run geoloc ingest im2gps again"):
        evaluate(project, "by_region")


def test_the_summary_is_rounded(project, models):
    evaluate(project, "by_country")
    figures = scores_of(project, "by_country")["benchmarks"]
    summary = json.loads(project.summary("evaluate", "by_country").read_text())
    assert summary["im2gps"]["n"] == 39
    for name, value in summary["im2gps"].items():
        assert value == pytest.approx(figures["im2gps"][name], abs=0.051)
        assert value == round(value, 2)
    assert project.plot("evaluate", "by_country").read_bytes().startswith(b"\x89PNG")


def test_batches_change_nothing(project, models, monkeypatch):
    evaluate(project, "by_region")
    whole = scores_of(project, "by_region"), pd.read_parquet(project.scores("by_region") / "predictions")
    monkeypatch.setattr(stage, "BATCH", 7)
    evaluate(project, "by_region")
    assert scores_of(project, "by_region") == whole[0]
    pd.testing.assert_frame_equal(pd.read_parquet(project.scores("by_region") / "predictions"), whole[1])


def test_the_same_inputs_give_the_same_bytes(project, models):
    evaluate(project, "by_region")
    first = digest(project.scores("by_region"), project.plot("evaluate", "by_region"))
    evaluate(project, "by_region")
    assert digest(project.scores("by_region"), project.plot("evaluate", "by_region")) == first


def test_features_of_another_encoder_are_refused_and_nothing_is_lost(project, models):
    evaluate(project, "by_country")
    before = digest(project.scores("by_country"))
    note = project.features("clip", "im2gps") / "features.json"
    note.write_text(note.read_text().replace("f00d", "beef"))
    with pytest.raises(UserError, match="not made by the encoder that the model was trained on"):
        evaluate(project, "by_country")
    assert digest(project.scores("by_country")) == before


def test_features_that_do_not_match_the_manifest_are_refused(project, models):
    folder = project.features("clip", "im2gps")
    np.save(folder / "features.npy", np.zeros((3, 4), np.float16))
    note = json.loads((folder / "features.json").read_text())
    (folder / "features.json").write_text(json.dumps(note | {"rows": 3}))
    with pytest.raises(UserError, match="3 rows, the corpus has 40"):
        evaluate(project, "by_country")


def test_a_saved_classifier_is_scored_like_the_logits_it_holds(project):
    from geoloc_core.models.classifier import Classifier
    from tests.geoloc_core.evaluation.conftest import SPACES

    space = SPACES["subdivision"]
    layers = [(np.eye(4, dtype=np.float32), np.zeros(4, np.float32))]
    zeros, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
    model = Classifier("head", ["clip"], {"clip": "f00d"}, space, zeros, ones, layers)
    project.model("by_region").mkdir(parents=True)
    model.save(project.model("by_region"))
    evaluate(project, "by_region")
    rows = pd.read_parquet(project.scores("by_region") / "predictions" / "im2gps.parquet")
    logits = np.load(project.features("clip", "im2gps") / "features.npy")[1:].astype(np.float64)
    assert rows["classes"].str[0].tolist() == [space.ids[c] for c in logits.argmax(axis=1)]
    assert np.stack(rows["probabilities"]).sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("n", [1, 7, 5000])
def test_the_curve_tells_the_share_within_each_error(n):
    errors = np.random.default_rng(n).exponential(1000, n) + 1
    at, shares = stage._curve(errors)
    assert len(at) == min(n, 1000)
    np.testing.assert_allclose(shares, [100 * np.mean(errors <= km) for km in at])
    assert (at[-1], shares[-1]) == (errors.max(), 100)
