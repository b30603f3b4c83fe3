"""What is read of a project's corpora: the nearest training photos, and the photos of a benchmark."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from geoloc_core.corpora import manifest
from geoloc_core.encoders import store
from geoloc_core.encoders.encoder import Encoder
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import UserError
from geoloc_core.explain import command, neighbours
from geoloc_core.geo.sphere import haversine_km
from geoloc_core.serving.bundle import Bundle
from geoloc_core.variants import answers
from geoloc_core.variants.answer import answer
from tests.geoloc_core.made_answers import make_project, save_models

SAME = Preprocess(8, "squash", "bilinear", (0, 0, 0), (1, 1, 1))


def picture(row):
    """A photo whose colour says which row it is."""
    kept = io.BytesIO()
    Image.new("RGB", (8, 8), (row, 0, 0)).save(kept, "PNG")
    return kept.getvalue()


@pytest.fixture
def project(tmp_path):
    """Two trained variants, and the photos of both corpora."""
    made = make_project(tmp_path)
    save_models(made)
    for corpus in ("mp16", "im2gps"):
        with manifest.ShardWriter(made.corpus(corpus)) as shards:
            for row in range(40):
                shards.add(f"{corpus}-{row}", picture(row), f"{row}.png")
    return made


def bundle_of(project, identity=None):
    """A bundle whose encoder gives the feature of the row that a photo's colour names."""
    features = np.array(store.read(project.features("clip", "mp16")), np.float32)
    clip = Encoder((4,), 8, SAME, lambda pixels: features[pixels[:, 0, 0, 0]], identity or {"kind": "made"})
    return Bundle("by_country", False, 5, {}, {"clip": clip})


def test_the_nearest_training_photos_come_with_whom_they_are_by(project):
    path = project.corpus("mp16") / "manifest.parquet"
    table = manifest.read_manifest(project.corpus("mp16"))
    said = [f"author {row}" if row % 2 else None for row in range(40)]
    table = table.set_column(table.schema.get_field_index("author"), manifest.MANIFEST.field("author"), [said])
    manifest.write_table(table, path, manifest.MANIFEST)
    found = neighbours.neighbours(project, bundle_of(project), [picture(7), picture(5)], count=3)
    first = found[0][0]
    assert (first.image_id, first.author, first.licence, first.photo) == ("mp16-7", "author 7", None, picture(7))
    assert first.likeness == pytest.approx(1, abs=1e-5)
    assert first.latitude == table["latitude"][7].as_py()
    held_out = {f"mp16-{row}" for row in range(1, 40, 4)}
    for of_photo in found:
        assert len(of_photo) == 3
        assert not held_out & {one.image_id for one in of_photo}, "row 5 itself is for validation"
        assert sorted((one.likeness for one in of_photo), reverse=True) == [one.likeness for one in of_photo]
        for one in of_photo:
            row = int(one.image_id.removeprefix("mp16-"))
            assert one.photo == picture(row)
            assert one.author == said[row]


def test_features_of_other_weights_are_not_searched(project):
    assert "mp16: features of other weights of clip" in neighbours.lacking(project, bundle_of(project))
    project.features("clip", "mp16").rename(project.features("clip", "moved"))
    reason = neighbours.lacking(project, Bundle("by_country", False, 5, {}, {"clip": Encoder((4,), 8, SAME, len, {})}))
    assert "mp16: no features of clip; run `geoloc encode mp16 --encoder clip`" in reason
    assert "reads no features" in neighbours.lacking(project, Bundle("by_country", False, 5, {}, {}))


def test_the_best_median_and_worst_photos_of_a_benchmark(project):
    answer(project, "by_country")
    known = pd.read_parquet(answers.path(project, "by_country", "im2gps")).dropna(subset=["true_latitude"])
    known["km"] = haversine_km(known.latitude, known.longitude, known.true_latitude, known.true_longitude)
    known = known.sort_values("km", kind="stable").reset_index(drop=True)
    found = command.of_benchmark(project, "by_country", "im2gps", 2)
    middle = (len(known) - 2) // 2
    wanted = known.iloc[[0, 1, middle, middle + 1, len(known) - 2, len(known) - 1]]
    assert [one.name for one in found] == wanted.image_id.tolist()
    assert [one.photo for one in found] == [picture(row) for row in wanted.row]
    assert [one.place for one in found] == list(zip(wanted.true_latitude, wanted.true_longitude, strict=True))
    expected = [
        f"{what}: {km:,.0f} km" for what, km in zip(np.repeat(["best", "median", "worst"], 2), wanted.km, strict=True)
    ]
    assert [one.note for one in found] == expected
    with pytest.raises(UserError, match="benchmark 'nowhere': not in the answers of by_country; expected one of:"):
        command.of_benchmark(project, "by_country", "nowhere", 1)
