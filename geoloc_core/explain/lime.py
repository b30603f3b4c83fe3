"""LIME: a linear model of which superpixels the answer rests on.

Ribeiro, Singh and Guestrin 2016, "Why should I trust you?", sections 3.3 and 3.4: superpixels are switched off at
random, each such photo is weighed by how near it is to the whole one, and a linear model of the switches is fitted to
the scores. Superpixels are SLIC's (Achanta et al. 2012). ICONIP's model is explained so.
"""

import numpy as np

from geoloc_core.explain.regions import Score, mean_colour, scores_of

SUPERPIXELS = 50
COMPACTNESS = (10.0, 100.0, 1000.0)
"""How much nearness counts beside colour: the first that gives half as many superpixels as are wanted, at least."""
WIDTH = 0.25
"""Of the kernel, in cosine distance."""
RIDGE = 1.0


def superpixels(photo: np.ndarray, count: int = SUPERPIXELS) -> np.ndarray:
    """The superpixel (H, W) of each pixel of a photo (H, W, 3), from 0 without gaps; about so many.

    Of a grainy photo, superpixels that follow its colours are specks, and SLIC joins them to one; so they follow
    nearness instead.
    """
    from skimage.segmentation import slic

    for compactness in COMPACTNESS:
        found = slic(photo, n_segments=count, compactness=compactness, sigma=1, start_label=0, channel_axis=2)
        numbers: np.ndarray = np.unique(found, return_inverse=True)[1].reshape(found.shape)
        if numbers.max() + 1 >= count / 2:
            break
    return numbers


def lime(score: Score, photo: np.ndarray, regions: np.ndarray, samples: int = 300, seed: int = 0) -> np.ndarray:
    """What each superpixel adds to the score, as a map (H, W) float64.

    Args:
        score: The model.
        photo: (H, W, 3) uint8.
        regions: (H, W) its S superpixels.
        samples: Photos with superpixels switched off; the whole photo is one of them.
        seed: Of the switches.
    """
    switches = np.random.default_rng(seed).random((samples, int(regions.max()) + 1)) < 0.5
    switches[0] = True
    scores = scores_of(score, photo, mean_colour(photo), regions, switches)
    return np.asarray(linear(switches, scores)[regions])


def linear(switches: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Coefficients (S,) of the weighted ridge regression of scores (M,) on switches (M, S).

    The weight of a sample is exp(−D² / σ²), D the cosine distance of its switches to those of the whole photo.
    """
    from sklearn.linear_model import Ridge

    distance = 1 - np.sqrt(switches.mean(axis=1))
    weights = np.exp(-(distance**2) / WIDTH**2)
    return np.asarray(Ridge(alpha=RIDGE).fit(switches.astype(np.float64), scores, sample_weight=weights).coef_)
