"""Memory that runs out costs speed, not the work."""

import numpy as np
import pytest

from geoloc_core.encoders.compute import on_device
from geoloc_core.encoders.memory import Halving, ran_out
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import UserError

PREPROCESS = Preprocess(8, "crop", "bilinear", (0.5,) * 3, (0.25,) * 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def greedy(monkeypatch):
    """A network that asks its allocator for a petabyte where it is given more than some photos."""
    import torch

    from geoloc_core.encoders import compute

    monkeypatch.setattr(compute, "CPU_BATCH", 64)

    class Greedy(torch.nn.Module):
        def __init__(self, most: int) -> None:
            super().__init__()
            self.most = most

        def forward(self, images):
            if len(images) > self.most:
                torch.empty(2**50, dtype=torch.uint8)
            return images.mean(dim=(2, 3))

    return lambda most: Halving(on_device(Greedy(most), PREPROCESS, "fp32"))


def test_a_batch_too_large_is_halved_until_it_fits(greedy, capsys):
    careful = greedy(3)
    np.testing.assert_array_equal(careful(PIXELS), greedy(11)(PIXELS))
    assert capsys.readouterr().err.splitlines() == [
        "out of memory with a batch of 11 photos; continuing with 5",
        "out of memory with a batch of 5 photos; continuing with 2",
    ]
    careful(PIXELS)
    assert not capsys.readouterr().err, "what was learned is kept"


def test_one_photo_that_does_not_fit_is_said_in_one_line(greedy):
    with pytest.raises(UserError, match=r"^out of memory with one photo: .*choose a smaller encoder$"):
        greedy(0)(PIXELS)


def test_other_errors_are_not_taken_for_it():
    def broken(photos):
        raise ValueError("shapes differ")

    with pytest.raises(ValueError, match="shapes differ"):
        Halving(broken)(PIXELS)


def test_every_allocator_is_understood():
    import torch

    assert ran_out(MemoryError())
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    with pytest.raises(MemoryError) as numpys:
        np.empty(2**60, np.uint8)
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**50, dtype=torch.uint8)
    assert ran_out(numpys.value)
    assert ran_out(torchs.value)
    assert not ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
