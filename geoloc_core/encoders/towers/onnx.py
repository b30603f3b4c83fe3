"""Any network exported to ONNX: one image input, one feature output. The folder holds ``model.onnx``."""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, FiniteFloat, PositiveFloat

from geoloc_core.blocks import blocks
from geoloc_core.encoders.encoder import Encoder
from geoloc_core.encoders.options import Tower
from geoloc_core.encoders.preprocess import Preprocess
from geoloc_core.errors import UserError, in_a_line, is_of_the_machine
from geoloc_core.threads import limited

FILE = "model.onnx"
FILES = (FILE,)


class Options(Tower):
    """An ONNX network: its file does not state the preprocessing, so these options do."""

    kind: Literal["onnx"]
    output: str
    """Name of the output that is the feature."""
    size: int = Field(224, gt=0)
    """Width and height of the photo as the network sees it, in pixels."""
    mode: Literal["crop", "squash"] = "crop"
    """Whether the middle of the photo is cut out, or the whole is squeezed into the square."""
    resample: Literal["bicubic", "bilinear"] = "bilinear"
    """How it is resized."""
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.5, 0.5, 0.5)
    """What is subtracted of red, green and blue, which are from 0 to 1."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.5, 0.5, 0.5)
    """What they are then divided by."""
    batch: int = Field(32, gt=0)


def load(options: Options, weights: Path) -> Encoder:
    """Open an ONNX network.

    Raises:
        UserError: The network is missing or unreadable, or has no such output.
    """
    import onnxruntime as ort

    path = weights / FILE
    if not path.is_file():
        raise UserError(f"{weights}: no {FILE}; give its path under checkpoints.*.file and run `geoloc download`")
    providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in ort.get_available_providers()]
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = limited()
    try:
        session = ort.InferenceSession(path, settings, providers=providers)
    except Exception as error:  # any: onnxruntime's own classes derive from Exception alone, and it exports none
        if is_of_the_machine(error):
            raise
        raise UserError(f"{path}: not an ONNX network: {in_a_line(error)}") from None
    outputs = {o.name: o.shape for o in session.get_outputs()}
    if options.output not in outputs:
        raise UserError(f"{path}: no output {options.output!r}; expected one of: {', '.join(outputs)}")
    image = session.get_inputs()[0]
    channels_last = image.shape[-1] == len("RGB")
    fixed_batch = image.shape[0] if isinstance(image.shape[0], int) else None

    preprocess = Preprocess(options.size, options.mode, options.resample, options.mean, options.std)

    def forward(photos: np.ndarray) -> np.ndarray:
        images = preprocess.normalised(photos)
        images = images.transpose(0, 2, 3, 1) if channels_last else images
        images = np.ascontiguousarray(images)
        return np.concatenate([_run(images[some]) for some in blocks(len(images), fixed_batch or len(images))])

    def _run(images: np.ndarray) -> np.ndarray:
        # a network exported for a fixed batch gets the last one filled up
        missing = (fixed_batch or len(images)) - len(images)
        filled = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)]) if missing else images
        feature = session.run([options.output], {image.name: filled})[0][: len(images)]
        return feature.reshape(len(images), -1)

    probe = np.zeros((1, options.size, options.size, 3), np.uint8)
    return Encoder(
        shape=forward(probe).shape[1:],
        batch=options.batch,
        preprocess=preprocess,
        forward=forward,
        identity={"kind": options.kind, "output": options.output},
    )
