"""Models of which it is known where they look."""

import numpy as np


def noise(height=56, width=56, seed=0):
    """A photo of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def looks_at(top, left, high, wide):
    """A model that answers the more strongly, the redder one rectangle is, and sees nothing else."""

    def score(photos):
        return photos[:, top : top + high, left : left + wide, 0].mean(axis=(1, 2)) / 255

    return score


def planted(top=16, left=32, edge=8):
    """A photo of noise with a red rectangle, and a model that looks at it alone."""
    photo = noise()
    photo[top : top + edge, left : left + edge] = (255, 0, 0)
    return photo, looks_at(top, left, edge, edge), (slice(top, top + edge), slice(left, left + edge))
