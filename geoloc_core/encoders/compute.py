"""How a network is run: on which device, in which precision, and as fast as the machine allows."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from geoloc_core.encoders.device import computes_bf16, device, multiplies_bf16, say_without_bf16
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import in_a_line
from geoloc_core.progress import say

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "bf16", "fp32"]
SMALL = 10_000_000
"""Parameters below which ``auto`` stays with fp32: a tower that tiny gains nothing from less."""
CPU_BATCH = 16
"""Photos that the CPU computes at a time: more do not fit its cache, and are no faster."""
GRAPH_BATCH = 32
"""Photos from which a batch on a GPU is worth a graph of its own."""


def on_device(network: "torch.nn.Module", preprocess: Preprocess, precision: Precision = "auto") -> "Forward":
    """The ``forward`` of an encoder.

    Args:
        network: From a tower's input (N, 3, size, size), normalised, to features (N, *shape). It is rewritten.
        preprocess: Gives mean and standard deviation.
        precision: ``auto`` computes in bf16 where the hardware multiplies it, and the tower is not tiny; ``bf16`` where
            the hardware computes in it at all. Elsewhere it is fp32.

    Returns:
        A function from scaled photos (N, size, size, 3) uint8 to features (N, *shape) float32.
    """
    return Forward(network, preprocess, precision)


class Forward:
    """A network on its device, called with photos; it is prepared on the first call, so that loading stays cheap.

    Attributes:
        precision: What it computes in: ``bf16`` or ``fp32``.
        fills: Whether to pad an incomplete batch to its full size.
    """

    def __init__(self, network: "torch.nn.Module", preprocess: Preprocess, precision: Precision) -> None:
        self._network, self._preprocess = network.eval().requires_grad_(False), preprocess
        self._run: Callable[[np.ndarray], Callable[[], np.ndarray]] | None = None
        self.precision = chosen(network, precision)
        self.fills = device().type == "cuda"

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        """(N, size, size, 3) uint8 → (N, *shape) float32."""
        return self.start(photos)()

    def start(self, photos: np.ndarray) -> Callable[[], np.ndarray]:
        """Start on some photos, which must not change until the returned function has returned their features."""
        if self._run is None:
            kind = OnGpu if device().type == "cuda" else OnCpu
            self._run = kind(self._network, self._preprocess, self.precision).start
        return self._run(photos)


def chosen(network: "torch.nn.Module", precision: Precision) -> str:
    """What a network is computed in on this machine, ``bf16`` or ``fp32``: see :func:`on_device`."""
    if precision == "bf16" and not computes_bf16():
        say_without_bf16()
        return "fp32"
    if precision != "auto":
        return precision
    large = sum(p.numel() for p in network.parameters()) >= SMALL
    return "bf16" if large and multiplies_bf16() else "fp32"


def _cast(network: "torch.nn.Module", precision: str) -> "torch.dtype":
    """Cast a network to its precision; batch statistics stay in fp32, as torch's kernels require."""
    import torch

    if precision == "fp32":
        return torch.float32
    network.to(torch.bfloat16)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.float()
    return torch.bfloat16


def _normaliser(preprocess: Preprocess, dtype: "torch.dtype") -> "Callable[[torch.Tensor], torch.Tensor]":
    """From pixels (N, H, W, 3) uint8 to a tower's input (N, 3, H, W), in fp32 up to the last step."""
    import torch

    mean, std = (torch.tensor(values, device=device()) for values in (preprocess.mean, preprocess.std))
    scale, shift = 1 / (255 * std), -mean / std
    return lambda pixels: (pixels.float() * scale + shift).to(dtype).permute(0, 3, 1, 2)


class OnCpu:
    """A network on the CPU, a few photos at a time."""

    def __init__(self, network: Any, preprocess: Preprocess, precision: str) -> None:
        import torch

        from geoloc_core.encoders import fused

        dtype = _cast(network, precision)
        fused.attend(network)
        if fused.can_pack():
            fused.pack(network)
        self._network = network.to(memory_format=torch.channels_last)
        self._normalised = _normaliser(preprocess, dtype)

    def start(self, photos: np.ndarray) -> Callable[[], np.ndarray]:
        """Compute when the features are asked for."""
        return lambda: self._features(photos)

    def _features(self, photos: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            pieces = torch.from_numpy(photos).split(CPU_BATCH)
            return torch.cat([self._network(self._normalised(piece)).float() for piece in pieces]).numpy()


class OnGpu:
    """A network on a GPU: compiled for its batch as a graph, photos copied on a stream beside the one that computes."""

    def __init__(self, network: Any, preprocess: Preprocess, precision: str) -> None:
        import torch

        from geoloc_core.encoders import fused

        self._device = device()
        dtype = _cast(network, precision)
        fused.attend(network)
        network = network.to(self._device, memory_format=torch.channels_last)
        normalised = _normaliser(preprocess, dtype)
        self._eager = lambda pixels: network(normalised(pixels)).float()
        self._compiled: Any = torch.compile(self._eager, mode="reduce-overhead", dynamic=False)
        self._rows = 0
        self._copies = torch.cuda.Stream()

    def start(self, photos: np.ndarray) -> Callable[[], np.ndarray]:
        """Queue the copy, the network and the copy back on the GPU, and return without waiting."""
        import torch

        with torch.inference_mode():
            with torch.cuda.stream(self._copies):
                pixels = torch.from_numpy(photos).to(self._device, non_blocking=True)
            here = torch.cuda.current_stream()
            here.wait_stream(self._copies)
            pixels.record_stream(here)
            features = self._computed(pixels)
            copied = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
            copied.copy_(features, non_blocking=True)
            done = torch.cuda.Event()
            done.record(here)

        def wait() -> np.ndarray:
            done.synchronize()
            return copied.numpy()

        return wait

    def _computed(self, pixels: "torch.Tensor") -> "torch.Tensor":
        import torch

        # one graph, of the first large batch: others are rare, and a graph takes long to make
        self._rows = self._rows or (len(pixels) if len(pixels) >= GRAPH_BATCH else 0)
        if self._compiled is None or len(pixels) != self._rows:
            return self._eager(pixels)
        torch.compiler.cudagraph_mark_step_begin()
        try:
            return self._compiled(pixels)
        except (torch.OutOfMemoryError, MemoryError):
            self._rows = 0
            raise
        except Exception as error:  # any: the compiler lacks a program or a library; a fault of the tower's comes again
            self._compiled = None
            say(f"torch.compile failed, so the tower runs uncompiled: {in_a_line(error)}")
            return self._eager(pixels)


def buffers(count: int, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Arrays (*shape) uint8 for photos; in pinned memory if there is a GPU."""
    if device().type == "cpu":
        return [np.empty(shape, np.uint8) for _ in range(count)]
    import torch

    return [torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy() for _ in range(count)]
