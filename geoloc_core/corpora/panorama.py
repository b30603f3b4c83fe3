"""Perspective views out of equirectangular panoramas."""

from functools import lru_cache

import numpy as np


def perspective(
    panorama: np.ndarray, yaw: float, pitch: float, hfov: float, width: int = 1024, height: int = 768
) -> np.ndarray:
    """What a pinhole camera in the middle of a panorama sees, between pixels bilinearly.

    Args:
        panorama: (H, W, C) uint8, equirectangular: its middle column is yaw 0, its rows run from +90° to −90°.
        yaw: Degrees to the right of the middle column.
        pitch: Degrees above the horizon.
        hfov: Horizontal field of view in degrees, under 180.
        width: Pixels of the view.
        height: Pixels of the view.

    Returns:
        (height, width, C) uint8.
    """
    rows, columns = panorama.shape[:2]
    top, left, down, right = _samples(rows, columns, yaw, pitch, hfov, width, height)
    below, beside = np.minimum(top + 1, rows - 1), (left + 1) % columns
    upper = panorama[top, left] * (1 - right) + panorama[top, beside] * right
    lower = panorama[below, left] * (1 - right) + panorama[below, beside] * right
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)


@lru_cache(maxsize=4)
def _samples(
    rows: int, columns: int, yaw: float, pitch: float, hfov: float, width: int, height: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The pixel above and left of each sample, and how far below and right of it the sample lies, from 0 to 1."""
    longitude, latitude = directions(yaw, pitch, hfov, width, height)
    x = ((longitude / 360 + 0.5) * columns - 0.5) % columns
    y = np.clip((0.5 - latitude / 180) * rows - 0.5, 0, rows - 1)
    left, top = np.floor(x).astype(np.intp) % columns, np.floor(y).astype(np.intp)
    return top, left, (y - np.floor(y)).astype(np.float32)[..., None], (x - np.floor(x)).astype(np.float32)[..., None]


def directions(yaw: float, pitch: float, hfov: float, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of a view looks.

    Returns:
        Yaw (−180 … 180) and pitch (−90 … 90) in degrees, each (height, width).
    """
    focal = width / 2 / np.tan(np.radians(hfov) / 2)
    right = (np.arange(width) + 0.5 - width / 2)[None, :] / focal
    up = -(np.arange(height) + 0.5 - height / 2)[:, None] / focal
    tilt = np.radians(pitch)
    forward = np.cos(tilt) - up * np.sin(tilt)
    above = np.sin(tilt) + up * np.cos(tilt)
    longitude = np.degrees(np.arctan2(right, forward)) + yaw
    latitude = np.degrees(np.arctan2(above, np.hypot(right, forward)))
    return (longitude + 180) % 360 - 180, latitude
