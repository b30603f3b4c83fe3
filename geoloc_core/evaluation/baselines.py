"""What a model must beat: an answer that never looks at the photo."""

import numpy as np

from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.models.prediction import Prediction


def most_frequent(labelspace: LabelSpace, train_classes: np.ndarray, k: int) -> Prediction:
    """Always answer the k most frequent classes of the training rows.

    Args:
        labelspace: The C classes.
        train_classes: (M,) classes of the training rows; −1, unknown, is not counted.
        k: How many answers, at most C.

    Returns:
        One row. Probabilities are the classes' shares; equally frequent classes keep the label space's order.
    """
    counts = np.bincount(train_classes[train_classes >= 0], minlength=len(labelspace))
    best = np.argsort(-counts, kind="stable")[:k]
    latitudes, longitudes = labelspace.latitudes[best][None], labelspace.longitudes[best][None]
    return Prediction(
        classes=best.astype(np.int64)[None],
        probabilities=(counts[best] / max(int(counts.sum()), 1))[None],
        latitudes=latitudes,
        longitudes=longitudes,
        latitude=latitudes[:, 0],
        longitude=longitudes[:, 0],
    )


def repeated(answer: Prediction, n: int) -> Prediction:
    """The same single row for n photos, without copies."""

    def stretch(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, (n, *values.shape[1:]))

    return Prediction(
        classes=stretch(answer.classes),
        probabilities=stretch(answer.probabilities),
        latitudes=stretch(answer.latitudes),
        longitudes=stretch(answer.longitudes),
        latitude=stretch(answer.latitude),
        longitude=stretch(answer.longitude),
    )
