"""Experts that vote over the pieces of a photo, against a count by hand."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

from geoloc_core.contracts.batch import Batch, Data, Pieces, Run
from geoloc_core.contracts.geolocator import Card, Trained, load
from geoloc_core.contracts.needs import Needs
from geoloc_core.errors import UserError
from geoloc_core.families.feature_experts import FeatureExperts, Options, fit
from geoloc_core.geo.labelspace import LabelSpace

from .made_models import experts

COUNTRIES = ["AUT", "BEL", "CHE"]


def space(codes) -> LabelSpace:
    count = len(codes)
    places = np.arange(count, dtype=float)
    return LabelSpace("country", list(codes), list(codes), [""] * count, places, places)


@dataclass(frozen=True)
class Says:
    """An expert whose pictures are what it answers: a class, and how sure it is."""

    labelspace: LabelSpace
    groups: list[str]

    def of_pieces(self, pieces):
        found = np.zeros((len(pieces), len(self.labelspace)))
        for row, picture in enumerate(pieces.pictures):
            code, share = picture.decode().split()
            found[row, self.labelspace.ids.index(code)] = float(share)
        return found


def pieces_of(*photos) -> Pieces:
    """Pieces of photos, each as its group, its class, what its expert says of it, and its area."""
    flat = [piece for photo in photos for piece in photo]
    return Pieces(
        np.concatenate([[0], np.cumsum([len(photo) for photo in photos])]).astype(int),
        np.array([piece[1] for piece in flat], dtype=object),
        np.array([piece[0] for piece in flat], dtype=object),
        np.ones(len(flat), np.float32),
        np.array([piece[3] for piece in flat], np.int32),
        [piece[2].encode() for piece in flat],
    )


PHOTOS = pieces_of(
    [("ground", "road", "AUT 0.6", 5), ("vehicles", "car", "CHE 0.9", 90), ("ground", "sand", "AUT 0.6", 5)],
    [],
    [(None, "sky", "BEL 1.0", 100), ("vegetation", "tree", "BEL 1.0", 100)],
    [("vehicles", "car", "CHE 0.7", 1)],
)


def model(vote, training=(0, 1, 2, 3)) -> FeatureExperts:
    def trained(codes, groups):
        card = Card(family="fine_tuned", needs=Needs(inputs=(), labels="country"), fingerprints={}, parameters=100)
        return Trained(card, Says(space(codes), groups))

    data = Data(
        images={},
        texts={},
        answers={},
        space=space(COUNTRIES),
        targets=np.array([0, 1, 1, 2]),
        training=np.array(training),
        validation=np.array([0, 1]),
        latitudes=np.full(4, np.nan),
        longitudes=np.full(4, np.nan),
        pieces={"cut": PHOTOS},
        models={"ground": trained(["AUT", "BEL"], ["ground"]), "cars": trained(["CHE", "DEU", "AUT"], ["vehicles"])},
    )
    options = Options(
        kind="feature_experts", corpus="g50", pieces="cut", experts=("ground", "cars"), labels="country", vote=vote
    )
    fitted = fit(data, options, Run(1, None, [], lambda metrics, epoch: None))
    assert fitted.figures == {
        "experts": 2,
        "validation_photos_without_a_piece": 1,
        "trainable_parameters": 0,
        "parameters": 200,
    }
    return fitted.model


def test_the_country_named_most_often_wins_and_the_pieces_are_named():
    answer = model("majority").predict(Batch(pieces={"cut": PHOTOS}), 3)
    first = [COUNTRIES[at] for at in answer.classes[:, 0]]
    assert first == ["AUT", "BEL", "BEL", "CHE"], "two votes of three; no piece: the most frequent; no expert: the same"
    # votes 2 and 1, means 1.2/3 and 0.9/3, over 3 pieces + 1
    assert answer.probabilities[0] == pytest.approx([(2 + 0.4) / 4, (1 + 0.3) / 4, 0])
    assert answer.probabilities[1] == pytest.approx([0.5, 0.25, 0.25])
    assert answer.evidence.ids[0].tolist() == ["ground: road", "ground: sand", "vehicles: car"]
    assert answer.evidence.weights[0] == pytest.approx([0.5, 0.5, 0])
    assert answer.evidence.ids[1].tolist() == ["", "", ""]


def test_a_country_without_a_training_photo_is_the_least_frequent():
    answer = model("majority", training=(0, 1, 2)).predict(Batch(pieces={"cut": PHOTOS}), 3)
    assert [COUNTRIES[at] for at in answer.classes[1]] == ["BEL", "AUT", "CHE"], "without a piece, by frequency"
    assert answer.probabilities[1] == pytest.approx([2 / 3, 1 / 3, 0])
    assert COUNTRIES[answer.classes[3, 0]] == "CHE", "its expert says so"


def test_a_weighted_vote_counts_the_area():
    answer = model("weighted").predict(Batch(pieces={"cut": PHOTOS}), 3)
    assert COUNTRIES[answer.classes[0, 0]] == "CHE"
    assert answer.probabilities[0] == pytest.approx([0.9 * 0.9, 0.1 * 0.6, 0])
    assert answer.evidence.ids[0, 0] == "vehicles: car"


def test_photos_alone_and_together_get_the_same_answer():
    for vote in ("majority", "weighted"):
        together = model(vote).predict(Batch(pieces={"cut": PHOTOS}), 3, np.array([0, 1, -1, 2]))
        for photo in range(4):
            batch = Batch(pieces={"cut": PHOTOS}).rows(np.array([photo]))
            alone = model(vote).predict(batch, 3)
            assert alone.classes[0].tolist() == together.classes[photo].tolist()
            assert alone.probabilities[0] == pytest.approx(together.probabilities[photo])
        assert together.truth.rank.tolist()[2] == -1


def test_of_many_pieces_the_three_that_speak_most_are_named():
    seen = pieces_of([], [("ground", f"piece {n}", f"AUT 0.{n}", 1) for n in (2, 5, 1, 3, 4)])
    answer = model("majority").predict(Batch(pieces={"cut": seen}), 1)
    assert answer.evidence.ids[1].tolist() == ["ground: piece 5", "ground: piece 4", "ground: piece 3"]
    assert answer.evidence.weights[1] == pytest.approx([5 / 15, 4 / 15, 3 / 15])


def test_experts_of_other_variants_than_it_needs_are_refused(tmp_path):
    trained = experts()
    ground, rest = trained.model.experts.items()
    Trained(trained.card, replace(trained.model, experts=dict([rest, ground]))).save(tmp_path)
    with pytest.raises(UserError, match=r"experts\.json: experts rest, ground; expected ground, rest"):
        load(tmp_path)


def test_experts_that_do_not_go_together_are_said_with_the_parameters():
    def expert(**changed):
        plain = {"kind": "fine_tuned", "pieces": "cut", "corpus": "g50", "labels": "country", "groups": ("ground",)}
        return SimpleNamespace(**plain | changed)

    def flaws(**variants):
        block = {"corpus": "g50", "pieces": "cut", "experts": tuple(variants), "labels": "country"}
        return Options(kind="feature_experts", **block).flaws(SimpleNamespace(variants=variants))

    assert not flaws(one=expert(), other=expert(groups=("vegetation", "vehicles")), missing=None)
    for wrong, says in (
        (expert(kind="classifier"), "'one'; expected variants of fine_tuned with pieces: cut"),
        (expert(pieces="other"), "'one'; expected variants of fine_tuned with pieces: cut"),
        (expert(corpus="c"), "'one' learns country from c; expected country from g50"),
        (expert(labels="cells"), "'one' learns cells from g50; expected country from g50"),
        (expert(groups=None), "'one' has no groups; expected the groups whose pieces it is shown"),
    ):
        assert flaws(one=wrong) == [f"experts: {says}"]
    twice = flaws(one=expert(groups=("vehicles", "ground")), other=expert())
    assert twice == ["experts: 'other' and 'one' both have ground; expected one expert each"]
