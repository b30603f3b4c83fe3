"""A real pretrained network (MobileNetV2, ImageNet), through the ``onnx`` tower, names what real photos show."""

import numpy as np
import pytest

from geoloc_core.encoders import encoder
from geoloc_core.encoders.towers import onnx

SHOWN = {
    "exif_gps/ianare+exif-samples/jpg/Kodak_CX7530.jpg": "agama",
    "exif_gps/drewnoakes+metadata-extractor-images/jpg/Sony_DSC-HX5V__2_.jpg": "street sign",
    "exif_gps/drewnoakes+metadata-extractor-images/jpg/Panasonic_DMC-LX3__Lumix_.jpg": "palace",
    "exif_gps/drewnoakes+metadata-extractor-images/jpg/FujiFilm_FinePixS1Pro__2_.jpg": "hay",
    "exif_gps/drewnoakes+metadata-extractor-images/jpg/FujiFilm_FinePixS1Pro__5_.jpg": "minibus",
    "exif_gps/rwcarlsen+goexif/exif/sample1.jpg": "throne",
    "exif_gps/ianare+exif-samples/jpg/gps/DSCN0040.jpg": "monastery",
}
"""A lizard on a rock in Kenya, the Vittoriano in Rome, an emperor's throne in Beijing, a church in Arezzo."""
SACRE_COEUR = ("church", "monastery", "mosque", "palace", "bell cote", "dome")
"""What of the labels a basilica with white domes may be called."""


@pytest.fixture(scope="module")
def named(shared, tmp_path_factory):
    """A function from a photo's path to the network's label and its probability."""
    folder = tmp_path_factory.mktemp("mobilenet")
    (folder / "model.onnx").symlink_to(shared / "weights/mobilenetv2_same_tf2.onnx")
    labels = (shared / "weights/imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
    tower = encoder.load(onnx.Options(kind="onnx", output="logits"), folder)
    assert tower.shape == (len(labels),) == (1001,)

    def name(path: str) -> tuple[str, float]:
        (logits,) = tower([(shared / "images" / path).read_bytes()])
        probabilities = np.exp(logits - logits.max())
        best = int(logits.argmax())
        return labels[best], float(probabilities[best] / probabilities.sum())

    return name


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.rpartition("/")[2])
def test_a_photo_is_named_after_what_it_shows(named, path):
    label, probability = named(path)
    assert label.split(",")[0] == SHOWN[path]
    assert probability > 0.4


def test_every_photo_of_a_landmark_is_a_building_of_its_kind(named, shared):
    photos = sorted((shared / "images/landmark_sacre_coeur").rglob("*.jpg"))
    assert len(photos) == 10
    for photo in photos:
        label, _ = named(str(photo.relative_to(shared / "images")))
        assert label.split(",")[0] in SACRE_COEUR, photo.name
