import numpy as np
import pytest

from geoloc_core.corpora.panorama import directions, perspective


def sphere(rows: int = 512) -> np.ndarray:
    """A panorama whose colour is its direction: x to the right of yaw 0, y up, z ahead, from −1…1 to 0…255."""
    latitude = np.radians(90 - (np.arange(rows) + 0.5) * 180 / rows)[:, None]
    longitude = np.radians((np.arange(2 * rows) + 0.5) * 180 / rows - 180)[None, :]
    xyz = (
        np.cos(latitude) * np.sin(longitude),
        np.sin(latitude) + 0 * longitude,
        np.cos(latitude) * np.cos(longitude),
    )
    return np.rint((np.stack(xyz, axis=-1) + 1) * 127.5).astype(np.uint8)


def rays(yaw: float, pitch: float, hfov: float, width: int, height: int) -> np.ndarray:
    """The same directions by matrices: a ray per pixel, tilted about x, then turned about y."""
    half = np.tan(np.radians(hfov / 2))
    x = np.linspace(-half, half, 2 * width + 1)[1::2]
    y = np.linspace(half, -half, 2 * height + 1)[1::2] * height / width
    ray = np.stack([*np.meshgrid(x, y), np.ones((height, width))], axis=-1)
    t, p = np.radians(yaw), np.radians(pitch)
    tilt = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    turn = np.array([[np.cos(t), 0, np.sin(t)], [0, 1, 0], [-np.sin(t), 0, np.cos(t)]])
    ray = ray @ tilt.T @ turn.T
    return ray / np.linalg.norm(ray, axis=-1, keepdims=True)


@pytest.mark.parametrize("yaw", [45, 135, 180, 225, 315])
@pytest.mark.parametrize("pitch", [-15, 0, 60])
def test_each_pixel_has_the_colour_of_its_direction(yaw, pitch):
    view = perspective(sphere(), yaw, pitch, 90, 64, 48)
    assert view.shape == (48, 64, 3)
    assert np.abs(view - (rays(yaw, pitch, 90, 64, 48) + 1) * 127.5).max() < 2


def test_the_middle_looks_along_yaw_and_pitch_and_the_edges_half_the_field_away():
    yaw, pitch = directions(45, -15, 90, 1025, 769)
    assert (yaw[384, 512], pitch[384, 512]) == pytest.approx((45, -15))
    yaw, _ = directions(0, 0, 90, 1024, 768)
    assert (yaw[384, 0], yaw[384, -1]) == pytest.approx((-45, 45), abs=0.05)


def test_four_views_of_ninety_degrees_meet_without_a_gap_across_the_seam():
    views = [perspective(sphere(), yaw, 0, 90, 64, 48).astype(int) for yaw in (45, 135, 225, 315)]
    for here, there in zip(views, views[1:] + views[:1], strict=True):
        assert np.abs(here[:, -1] - there[:, 0]).max() < 10
