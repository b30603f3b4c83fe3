"""What every model answers, whatever is inside: all that evaluation, serving and explanation know."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """The k most probable classes of N photos, best first, and one answer per photo.

    Attributes:
        classes: (N, k) int64 positions in the model's label space.
        probabilities: (N, k) of each class.
        latitudes: (N, k) of each class, degrees.
        longitudes: (N, k) of each class, degrees.
        latitude: (N,) of the answer, degrees.
        longitude: (N,) of the answer, degrees.
        auxiliary: Further (N, …) outputs by name.
    """

    classes: np.ndarray
    probabilities: np.ndarray
    latitudes: np.ndarray
    longitudes: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray
    auxiliary: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.classes)
