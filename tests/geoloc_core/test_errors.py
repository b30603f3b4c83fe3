"""What is wrong with the program or the machine is never told as a fault of the input."""

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import features

import geoloc_core
from geoloc_core import pictures
from geoloc_core.corpora import perceptual
from geoloc_core.corpora.decode import Decoder
from geoloc_core.corpora.fetch import first_photos
from geoloc_core.corpora.photo import Photo
from geoloc_core.corpora.sources import photos as photos_source
from geoloc_core.encoders import checkpoints, huggingface, openclip
from geoloc_core.encoders.instances import Instances, Segment
from geoloc_core.encoders.preprocess import Preprocess, decode
from geoloc_core.encoders.text.tokens import tokenizer_of
from geoloc_core.encoders.towers import onnx
from geoloc_core.errors import UserError, in_a_line
from geoloc_core.serving.answer import read_photos
from geoloc_core.serving.bundle import Bundle
from tests.geoloc_core.test_pictures import coloured, saved

ROOT = Path(geoloc_core.__file__).parent
BROAD = {"Exception", "BaseException"}
AS_A_WHOLE = {"registry/tracking.py"}
"""Where it is not the input but a server that is judged, by several calls."""


def names_of(handler: ast.ExceptHandler) -> set[str]:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {kind.id if isinstance(kind, ast.Name) else ast.unparse(kind) if kind else "BaseException" for kind in kinds}


def too_broad(source: str) -> Iterator[tuple[int, str]]:
    """Lines of a module where an ``except`` may swallow a fault of the program's own, and why."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Try):
            continue
        for handler in node.handlers:
            if "NameError" in names_of(handler):
                yield handler.lineno, "NameError is a mistake of the program's"
            if not BROAD & names_of(handler):
                continue
            if " # any: " not in lines[handler.lineno - 1]:
                yield handler.lineno, "says not what raises anything"
            last = handler.body[-1]
            if isinstance(last, ast.Raise) and last.exc is None:
                continue  # it cleans up, and hides nothing
            if len(node.body) > 1:
                yield node.lineno, "more than one call"
            if any(isinstance(inner, ast.Import | ast.ImportFrom) for inner in ast.walk(ast.Module(node.body, []))):
                yield node.lineno, "imports"


@pytest.mark.slow
def test_no_except_is_broader_than_one_call_that_raises_anything():
    modules = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")}
    found = [(name, *said) for name in modules.keys() - AS_A_WHOLE for said in too_broad(modules[name])]
    assert not found


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("try:\n    f()\nexcept Exception:\n    pass", "says not what raises anything"),
        ("try:\n    f()\nexcept:\n    pass", "says not what raises anything"),
        ("try:\n    f()\nexcept (OSError, Exception):  # any: f\n    pass", None),
        ("try:\n    a = g()\n    f(a)\nexcept Exception:  # any: f\n    pass", "more than one call"),
        ("try:\n    import torch\nexcept Exception:  # any: f\n    pass", "imports"),
        ("try:\n    a = g()\n    f(a)\nexcept BaseException:  # any: f\n    h()\n    raise", None),
        ("try:\n    f()\nexcept (NameError, OSError):\n    pass", "NameError is a mistake of the program's"),
    ],
)
def test_a_broad_except_is_found(source, said):
    assert [why for _, why in too_broad(source)] == ([said] if said else [])


@pytest.fixture
def afresh() -> Iterator[None]:
    """Pillow made ready anew."""
    pictures.formats.cache_clear()
    yield
    pictures.formats.cache_clear()


def ingested(data: bytes, _: Path) -> object:
    return Decoder(1e9).check(Photo("x", data, "x.jpg", "g"))


def encoded(data: bytes, _: Path) -> object:
    return Preprocess(32, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3).pixels(data)


def cut(data: bytes, _: Path) -> object:
    return Instances(2, lambda photos: [[Segment("sky", 1.0, np.ones((2, 2), bool))] for _ in photos], 0.0, {})([data])


def decoded(data: bytes, _: Path) -> object:
    return decode(data)


def read(data: bytes, folder: Path) -> object:
    (folder / "a.jpg").write_bytes(data)
    return read_photos([folder / "a.jpg"])


def predicted(data: bytes, _: Path) -> object:
    return Bundle("v", False, 10, {}, {}).predict([data])


def drawn(data: bytes, folder: Path) -> object:
    (folder / "a.jpg").write_bytes(data)
    return first_photos(folder, photos_source.Options(kind="photos"), 1)


DOORS: list[Callable[[bytes, Path], object]] = [ingested, encoded, cut, decoded, read, predicted, drawn]
DATA = {"jpeg": saved(coloured(), "JPEG"), "png": saved(coloured(), "PNG"), "no photo": b"hello"}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", DATA)
def test_a_missing_decoder_is_told_as_a_missing_library(kind, door, tmp_path, monkeypatch, afresh):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImportError, match="pillow_heif"):
        door(DATA[kind], tmp_path)


@pytest.mark.parametrize("door", DOORS)
def test_a_pillow_without_a_decoder_is_told_as_one(door, tmp_path, monkeypatch, afresh):
    monkeypatch.setattr(features, "check", lambda name: name not in ("webp", "avif"))
    with pytest.raises(ImportError, match="built without a decoder of AVIF, WEBP"):
        door(DATA["png"], tmp_path)


def test_a_missing_fast_decoder_is_told_as_a_missing_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(ImportError, match="simplejpeg"):
        encoded(DATA["jpeg"], tmp_path)


@pytest.mark.parametrize("error", [NameError, AttributeError, TypeError, KeyError])
def test_a_mistake_of_the_program_refuses_no_photo(monkeypatch, error):
    def mistaken(_: object) -> None:
        raise error("a mistake")

    monkeypatch.setattr(perceptual, "small", mistaken)
    with pytest.raises(error, match="a mistake"):
        Decoder(1e9).check(Photo("x", DATA["png"], "x.png", "g"))


class Network:
    """A network whose library fails."""


def open_checkpoint(folder: Path) -> None:
    huggingface.open_network(Network, folder)


def open_onnx(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"")
    onnx.load(onnx.Options(kind="onnx", output="y"), folder)


def open_tokenizer(folder: Path) -> None:
    (folder / "vocab.txt").write_bytes(b"")
    tokenizer_of(folder, 8)


def open_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text("{}")
    huggingface.open_processor(folder)


def open_clip_model(folder: Path) -> None:
    openclip.open_model(folder)


def from_hub(folder: Path) -> None:
    checkpoints._from_hub("some/one", "0" * 40, "model.safetensors", "params.yaml")


LIBRARIES = {
    "transformers": (f"{__name__}.Network.from_pretrained", open_checkpoint),
    "onnxruntime": ("onnxruntime.InferenceSession", open_onnx),
    "tokenizers": ("transformers.AutoTokenizer.from_pretrained", open_tokenizer),
    "processors": ("transformers.AutoImageProcessor.from_pretrained", open_processor),
    "open_clip": ("open_clip.create_model", open_clip_model),
    "huggingface_hub": ("huggingface_hub.hf_hub_download", from_hub),
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (ImportError("no such library"), ImportError),
        (MemoryError("none left"), MemoryError),
        (KeyError("x"), UserError),
    ],
    ids=["missing", "memory", "damaged"],
)
def test_a_library_that_is_missing_is_no_damaged_checkpoint(monkeypatch, tmp_path, library, raised, seen):
    name, opened = LIBRARIES[library]

    def fails(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(name, fails, raising=False)
    with pytest.raises(seen):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a\n  b"), "a b"),
        (ValueError(), "ValueError"),
        (ValueError(f"malformed: {object()!r}"), "malformed: …"),
        (ValueError("x" * 999), "x" * 300),
    ],
)
def test_an_error_is_one_line(error, said):
    assert in_a_line(error) == said
