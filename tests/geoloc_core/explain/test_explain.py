"""``geoloc explain``: from photos to a page, and what is said where it cannot be."""

import io
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geoloc_core import cli
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.encoders.instances import Instances, Segment
from geoloc_core.errors import UserError
from geoloc_core.evaluation import examples
from geoloc_core.explain import command, explanation, overlay, page, pieces
from geoloc_core.explain.asked import Target, score_of, target_of
from geoloc_core.explain.faithfulness import Chance, Check, Curve
from geoloc_core.explain.neighbours import Neighbour
from geoloc_core.explain.pieces import Piece
from geoloc_core.explain.randomised import with_random_heads
from geoloc_core.geo.sphere import haversine_km
from geoloc_core.serving import bundle as bundles
from tests.geoloc_core.explain.made_scores import noise
from tests.geoloc_core.families import made_models
from tests.geoloc_core.registry.made_champion import make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A trained variant that sees a photo's mean colour: red speaks for France, green for Kenya."""
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def photo(tmp_path):
    """Grey noise, and a red patch right of the middle."""
    pixels = noise(70, 84) // 4 + 96
    pixels[28:42, 48:66] = (255, 0, 0)
    path = tmp_path / "a <b>.png"
    Image.fromarray(pixels).save(path)
    return path


def explained(project, photos, out, **given):
    asked = {"benchmark": None, "each": 1, "variant": "linear", "methods": (), "samples": 60, "of": None}
    return command.explain(project, photos, out=out, **asked | given)


def outside(html):
    """What a page asks of other files or of the network, links that a reader may follow aside."""
    asked = re.findall(r"""(?:src|srcset|href|poster|data)\s*=\s*["']([^"']*)""", re.sub(r"<a [^>]*>", "", html))
    asked += re.findall(r"url\(([^)]*)|@import", html)
    return [address for address in asked if not address.startswith("data:")]


def test_the_command_knows_every_method():
    assert tuple(explanation.METHODS) == cli.EXPLAINED


@pytest.mark.slow
def test_photos_are_explained_in_a_page_of_its_own_and_pictures(project, photo, tmp_path, capsys):
    out = tmp_path / "why"
    html = explained(project, [photo], out).read_text(encoding="utf-8")
    assert sorted(path.name for path in out.iterdir()) == [
        "01-a-b-lime.png", "01-a-b-occlusion.png", "checksums.json", "explanations.html"
    ]  # fmt: skip
    assert outside(html) == []
    assert "a &lt;b&gt;.png" in html
    assert "<b>.png" not in html
    assert "France (FRA), at 46.000°, 2.000°. Where it was taken is not known." in html
    assert html.count("random orders") >= 4
    said = " ".join(capsys.readouterr().err.split())
    assert "no Attention × gradient: encoder net: kind onnx: not a network that is trained here" in said
    assert "Attention × gradient does not apply. encoder net" in html
    with Image.open(out / "01-a-b-occlusion.png") as picture:
        assert picture.width > 2 * picture.height
    explained(project, [photo], out, methods=("occlusion",))  # its own folder may be written again
    assert not (out / "01-a-b-lime.png").exists()


@pytest.mark.slow
def test_the_map_of_a_real_model_finds_the_patch_that_lowers_its_score_fastest(project, photo):
    bundle = bundles.of_project(project, "linear")
    question = explanation.Question("a", photo.read_bytes())
    with explanation.opened(project, bundle, 300) as subject:
        [found] = explanation.explain(subject, [question], ["occlusion", "lime"])
    assert bundle.labelspace.ids[found.target.place] == "FRA"
    for one in found.maps:
        inside = one.values[28:42, 48:66].mean()
        assert inside > 3 * np.abs(one.values[:, :40]).mean(), one.method
        assert one.check.deletion.area < min(curve.area for curve in one.check.chance.deletions), one.method
        # no curve of insertion: to a model that sees the mean colour, the blurred photo is the whole photo


def test_another_class_can_be_explained(project, photo):
    bundle = bundles.of_project(project, "linear")
    prediction, target = target_of(bundle, photo.read_bytes(), "KEN")
    assert bundle.labelspace.ids[prediction.classes[0, 0]] == "FRA"
    assert (target.place, target.latitude, target.longitude) == (1, 0.5, 38)
    pixels = np.stack([np.full((20, 20, 3), colour, np.uint8) for colour in ((250, 0, 0), (0, 250, 0))])
    red, green = score_of(bundle, target)(pixels)
    assert red < 0.5 < green
    with pytest.raises(UserError, match="--of XXX: linear has no such country; expected an id such as FRA"):
        target_of(bundle, photo.read_bytes(), "XXX")


def test_a_model_without_classes_is_scored_by_the_distance_of_its_answer(project, photo):
    bundle = bundles.of_project(project, "linear")

    class Somewhere:
        labelspace = bundle.labelspace

        def predict(self, batch, k=5, truth=None):
            red, green = batch.images["net"].astype(np.float64)[:, :2].T
            places = (10 + red, 20 + green)
            zero = np.zeros((len(batch), 1))
            return Prediction(zero.astype(int), zero, *(place[:, None] for place in places), *places)

    placed = replace(bundle, models={"linear": replace(bundle.models["linear"], model=Somewhere())})
    _, target = target_of(placed, photo.read_bytes())
    assert target.place is None
    with pytest.raises(UserError, match="--of FRA: linear answers with places alone; leave --of out"):
        target_of(placed, photo.read_bytes(), "FRA")
    found = score_of(placed, target)(np.stack([np.full((20, 20, 3), grey, np.uint8) for grey in (0, 250)]))
    answered = placed.predict([explanation.encoded(np.full((20, 20, 3), grey, np.uint8)) for grey in (0, 250)])
    km = haversine_km(answered.latitude, answered.longitude, target.latitude, target.longitude)
    assert km.min() > 1
    np.testing.assert_allclose(found, -np.log(km))
    near = score_of(placed, Target(None, *(float(part[0]) for part in (answered.latitude, answered.longitude))))
    assert near(np.zeros((1, 20, 20, 3), np.uint8))[0] == 0


def test_a_random_head_has_the_same_weights_in_other_places(project, tmp_path):
    bundle = bundles.of_project(project, "linear")
    shuffled = with_random_heads(bundle, tmp_path, 1)
    assert shuffled.encoders is bundle.encoders
    (before, bias), (after, other) = (b.models["linear"].model.layers[0] for b in (bundle, shuffled))
    np.testing.assert_array_equal(np.sort(before, axis=0), np.sort(after, axis=0))
    np.testing.assert_array_equal(bias, other)
    heads = [with_random_heads(bundle, tmp_path, seed).models["linear"].model.layers[0][0] for seed in range(8)]
    assert any((found != before).any() for found in heads)


@pytest.mark.parametrize("family", ["classifier", "guidebook_attention", "fine_tuned", "feature_experts"])
def test_the_head_of_each_family_is_shuffled_and_its_tower_is_not(family, tmp_path):
    trained = made_models.MADE[family]()
    bundle = bundles.Bundle("v", False, 5, {"v": trained}, {}, {})
    shuffled, again = (with_random_heads(bundle, tmp_path, 0).models["v"] for _ in range(2))
    batch = made_models.photos(6)
    before, after, same = (model.model.predict(batch, 6).probabilities for model in (trained, shuffled, again))
    np.testing.assert_array_equal(after, same)
    assert np.abs(before - after).max() > 1e-3
    if family == "fine_tuned":
        found = [model.model.tower.features(batch.photos) for model in (trained, shuffled)]
        np.testing.assert_array_equal(*found)


def test_an_ensemble_without_its_members_has_no_head_to_shuffle(tmp_path):
    trained = made_models.MADE["ensemble"]()
    assert with_random_heads(bundles.Bundle("v", False, 5, {"v": trained}, {}, {}), tmp_path, 0) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"methods": ("attention",)}, r"--method attention: encoder net: .*; expected one of: occlusion, lime"),
        ({"methods": ("pieces",)}, "--method pieces: linear: the family classifier is shown no pieces here"),
        ({"methods": ("evidence",)}, "--method evidence: linear: the family classifier names no evidence"),
        ({"methods": ("neighbours",)}, "--method neighbours: photos: no features of net; run `geoloc encode photos"),
        ({"variant": "nothing"}, "variant 'nothing': not in the profile in use; expected one of: linear"),
        ({"benchmark": "im2gps"}, "expected photos or --benchmark, one of both"),
    ],
)
def test_what_cannot_be_explained_is_said_in_a_line(project, photo, tmp_path, given, says):
    with pytest.raises(UserError, match=says) as said:
        explained(project, [photo], tmp_path / "why", **given)
    assert "\n" not in str(said.value)
    assert not (tmp_path / "why").exists()


def test_bad_photos_and_folders_are_said_before_any_model_is_opened(project, photo, tmp_path):
    with pytest.raises(UserError, match="no such file; expected a photo"):
        explained(project, [tmp_path / "gone.jpg"], tmp_path / "why", variant="nothing")
    (tmp_path / "text.jpg").write_text("no photo")
    with pytest.raises(UserError, match="not a readable photo"):
        explained(project, [tmp_path / "text.jpg"], tmp_path / "why", variant="nothing")
    with pytest.raises(UserError, match="already contains files that geoloc did not write"):
        explained(project, [photo], tmp_path, variant="nothing")
    with pytest.raises(UserError, match="expected photos or --benchmark"):
        explained(project, [], tmp_path / "why")
    with pytest.raises(UserError, match="run `geoloc ingest photos`"):
        explained(project, [], tmp_path / "why", benchmark="validation")


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 90), (500, 20)])
def test_photos_of_any_shape_are_explained(project, tmp_path, size):
    path = tmp_path / "small.png"
    Image.fromarray(noise(*size)).save(path)
    html = explained(project, [path], tmp_path / "why", samples=50)
    assert outside(html.read_text(encoding="utf-8")) == []


@given(st.integers(1, 60), st.integers(1, 20))
def test_best_median_and_worst_are_ranks_of_the_benchmark_and_none_is_shown_twice(count, each):
    places, notes = examples.ranks(count, each)
    assert (np.diff(places) > 0).all()
    assert set(places) <= set(range(count))
    assert set(range(min(each, count))) == {place for place, note in zip(places, notes, strict=True) if note == "best"}
    assert len(places) >= min(count, each)
    if count >= 3 * each:
        assert [notes.count(note) for note in ("best", "median", "worst")] == [each] * 3
        assert places[each : 2 * each].mean() == pytest.approx((count - 1) / 2, abs=0.5)
        assert places[-1] == count - 1


def a_jpeg():
    kept = io.BytesIO()
    Image.fromarray(noise(30, 40)).save(kept, "JPEG")
    return kept.getvalue()


def everything():
    """An explanation that has all there is."""
    rng = np.random.default_rng(0)
    shares = np.linspace(0, 1, 5)
    curves = [Curve(shares, rng.random(5)) for _ in range(6)]
    check = Check(curves[0], curves[1], Chance(curves[2:4], curves[4:]), 0.25)
    maps = [explanation.Map(method, rng.normal(size=(30, 40)), check, "Told.") for method in explanation.MAPS]
    near = Neighbour("x/<y>.jpg", 0.5, 1.0, 2.0, "<i>me</i>", None, "javascript:alert(1)", a_jpeg())
    far = Neighbour("far.jpg", 0.4, float("nan"), float("nan"), None, "CC BY", "https://photos.example/1", a_jpeg())
    piece = Piece((4, 6, 20, 30), "ground", "<u>road</u>", 0.9, 240, 1, 0.75)
    place = {"rank": 1, "name": "Country 0", "id": "C00", "probability": 0.5, "latitude": 1.0, "longitude": 2.0}
    clue = {"photo": "a", "kind": "clue", "id": "1", "text": "<script>alert(1)</script>", "weight": 0.5}
    question = explanation.Question("photo & <me>", b"", (3.0, 4.0), "best: 1 km")
    return explanation.Explanation(
        question, noise(30, 40), (40, 30), [place], Target(0, 1.0, 2.0), maps, [clue], [piece], [near, far]
    )


def test_a_page_with_everything_is_escaped_and_needs_no_other_file():
    bundle = bundles.Bundle("v", True, 5, {"v": made_models.MADE["classifier"]()}, {}, {})
    html = page.html(bundle, "<model>", [everything()] * 2, {"lime": "no <reason>"})
    assert outside(html) == []
    for text in ("<i>me</i>", "<u>road</u>", "<script>alert(1)", "photo & <me>", "<model>", "no <reason>"):
        assert text not in html
    assert "javascript:" not in html
    assert 'href="https://photos.example/1"' in html
    assert "Demo: rendered photos. Not a result on real photos." in html
    assert "licence: not stated" in html
    assert "by unknown" in html
    assert html.count('<rect x="100" y="200" width="400" height="800"/>') == 2
    assert "33.3%" not in html
    assert "20.0%" in html, "240 of 1,200 pixels"
    km = float(haversine_km(1.0, 2.0, 3.0, 4.0))
    assert f"{km:,.0f} km away" in html


def test_a_photo_that_was_cut_into_nothing_says_so():
    bundle = bundles.Bundle("v", True, 5, {"v": made_models.MADE["classifier"]()}, {}, {})
    said = "The segmenter found no piece that has a vote"
    whole, uncut = (
        page.html(bundle, "m", [replace(everything(), pieces=cut)], {}) for cut in (everything().pieces, [])
    )
    assert said not in whole
    assert said in uncut


@pytest.mark.parametrize("family", ["feature_experts", "tuned"])
def test_pieces_lie_where_they_were_cut_and_vote_as_the_model_has_it(family):
    groups = ("ground", "structures")
    trained = made_models.tuned("cut", groups) if family == "tuned" else made_models.MADE[family]()

    def segment(photos):
        masks = np.zeros((3, 4, 4), bool)
        masks[0, 2:], masks[1, :2, 2:], masks[2, :2, :2] = True, True, True
        names = zip(("road", "building", "sky"), (0.9, 0.8, 0.7), masks, strict=True)
        return [[Segment(*one) for one in names] for _ in photos]

    bundle = bundles.Bundle("v", False, 5, {"v": trained}, {"cut": Instances(4, segment, 0.0, {})}, {})
    data = explanation.encoded(noise(32, 40))
    assert pieces.lacking(bundle) is None
    road, building = pieces.votes(bundle, data)
    assert (road.label, road.group, road.box, road.area) == ("road", "ground", (0, 16, 40, 32), 16 * 40)
    assert (building.label, building.group, building.box) == ("building", "structures", (20, 0, 40, 16))
    cut = [row for row in bundle.encoders["cut"]([data])[0] if row["group"] in groups]
    expected = trained.model.of_pieces(bundles.pieces_of([cut]))
    assert [road.place, building.place] == expected.argmax(axis=1).tolist()
    np.testing.assert_allclose([road.probability, building.probability], expected.max(axis=1))
    assert "shown no pieces" in pieces.lacking(replace(bundle, models={"v": made_models.tuned()}))


def test_only_what_speaks_for_the_answer_is_bright():
    values = np.array([[-5.0, 0.0], [1.0, 2.0]])
    np.testing.assert_allclose(overlay.relative(values), [[0, 0], [0.5, 1]], atol=0.01)
    np.testing.assert_array_equal(overlay.relative(-np.ones((2, 2))), np.zeros((2, 2)))
    grey = np.full((40, 40, 3), 128, np.uint8)
    heated = overlay.heated(grey, np.pad(np.ones((2, 2)), ((0, 2), (0, 2)))).astype(int)
    assert heated[2, 2].sum() > heated[-3, -3].sum() + 150


@pytest.mark.slow
@pytest.mark.parametrize("size", ["1200,2400", "390,2400"])
def test_a_browser_shows_the_page_without_an_error_and_within_its_width(tmp_path, size):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not on PATH")
    bundle = bundles.Bundle("v", True, 5, {"v": made_models.MADE["classifier"]()}, {}, {})
    watch = """<script>
      const broken = [...document.images].filter(image => !image.complete || !image.naturalWidth).length;
      document.title = JSON.stringify([document.images.length, broken,
        document.documentElement.scrollWidth <= window.innerWidth]);
    </script>"""
    html = page.html(bundle, "model", [everything()], {})
    (tmp_path / "page.html").write_text(html.replace("</body>", watch + "</body>"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--window-size={size}"]
    shown = subprocess.run(
        [browser, *flags, f"file://{tmp_path / 'page.html'}"], check=True, capture_output=True, text=True, timeout=180
    )
    assert re.search(r"<title>(.*?)</title>", shown.stdout)[1] == "[8,0,true]"
