"""What is explained: an answer of a model, and how strongly other photos are answered so."""

from dataclasses import dataclass

import numpy as np

from geoloc_core.contracts.prediction import Prediction
from geoloc_core.errors import UserError
from geoloc_core.explain.regions import Score
from geoloc_core.geo.sphere import haversine_km
from geoloc_core.pictures import encoded
from geoloc_core.serving.bundle import Bundle

NEAR_KM = 1.0
"""Distance that counts as none, so that its logarithm is finite."""


@dataclass(frozen=True)
class Target:
    """The answer that is explained.

    Attributes:
        place: A class of the model; None of a model that answers with places and has no probability of a class.
        latitude: Degrees.
        longitude: Degrees.
    """

    place: int | None
    latitude: float
    longitude: float


def target_of(bundle: Bundle, photo: bytes, named: str | None = None) -> tuple[Prediction, Target]:
    """What a photo is answered, and which part of it is explained: its best class, or another one that is named.

    Raises:
        UserError: The model has no class of that name, or no classes at all.
    """
    space = bundle.labelspace
    first = bundle.predict([photo], 5)
    place = int(first.classes[0, 0])
    if named is not None:
        place = int(space.index([named])[0])
        if place < 0:
            raise UserError(
                f"--of {named}: {bundle.variant} has no such {space.kind}; expected an id such as {space.ids[0]}"
            )
    truth = bundle.predict([photo], 1, truth=np.array([place])).truth
    if truth is None or truth.rank[0] < 0:
        if named is not None:
            raise UserError(f"--of {named}: {bundle.variant} answers with places alone; leave --of out")
        return first, Target(None, float(first.latitude[0]), float(first.longitude[0]))
    if named is not None:
        return first, Target(place, float(space.latitudes[place]), float(space.longitudes[place]))
    return first, Target(place, float(first.latitude[0]), float(first.longitude[0]))


def score_of(bundle: Bundle, target: Target) -> Score:
    """How strongly photos are answered as the target is.

    The probability of its class; of a model without classes the negative logarithm of the distance, in kilometres, of
    the answer to the target.
    """

    def score(photos: np.ndarray) -> np.ndarray:
        data = [encoded(photo) for photo in photos]
        if target.place is not None:
            truth = bundle.predict(data, 1, truth=np.full(len(data), target.place)).truth
            assert truth is not None
            return truth.probability.astype(np.float64)
        found = bundle.predict(data, 1)
        km = haversine_km(found.latitude, found.longitude, target.latitude, target.longitude)
        return -np.log(np.maximum(km, NEAR_KM))

    return score
