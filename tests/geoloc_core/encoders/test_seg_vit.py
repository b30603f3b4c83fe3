"""The coloured map that the ViT sees is the segmenter's own, pixel by pixel."""

import numpy as np
import pytest
import torch
from PIL import Image

from geoloc_core.encoders import encoder, hrnet, palette
from geoloc_core.encoders.composite import Composite
from geoloc_core.encoders.preprocess import decode
from geoloc_core.encoders.towers import seg_vit, vit
from geoloc_core.errors import UserError

from . import made_segmenters as made
from .test_preprocess import photo

PHOTOS = [photo(70, 50), photo(50, 90), photo(64, 64, "PNG")]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def options(**chosen) -> seg_vit.Options:
    return seg_vit.Options(kind="seg_vit", batch=2, **chosen)


def seen_by_vit(folder, maps: list[np.ndarray], colours: np.ndarray) -> np.ndarray:
    """Features by the libraries alone: Pillow colours and scales the maps, transformers reads them."""
    from transformers import ViTModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    pictures = [Image.fromarray(colours[one]).resize((32, 32), Image.Resampling.NEAREST) for one in maps]
    inputs = ViTImageProcessorPil.from_pretrained(folder)(pictures, return_tensors="pt")
    with torch.inference_mode():
        model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
        return model(**inputs).last_hidden_state[:, 0].numpy()


def same(folder, maps: list[np.ndarray], colours: np.ndarray, **chosen) -> None:
    """Hold the tower of a folder against the libraries: its map, then what the ViT makes of that map.

    Kernels that round otherwise may tell a pixel on the border of two classes otherwise, one in thousands.
    """
    tower = seg_vit.load(options(**chosen), folder)
    assert isinstance(tower.forward, Composite)
    photos = tower.preprocess(PHOTOS)
    classes = tower.forward.networks[0](photos).astype(np.uint8)
    scaled = [Image.fromarray(one.astype(np.uint8)).resize((32, 32), Image.Resampling.NEAREST) for one in maps]
    assert (classes == np.stack([np.asarray(one) for one in scaled])).mean() > 0.999
    theirs = seen_by_vit(folder / "vit", list(classes), colours)
    np.testing.assert_allclose(tower.forward(photos), theirs, atol=1e-5)


@pytest.fixture
def folder(tmp_path):
    made.vit(tmp_path / "vit")
    made.segformer(tmp_path / "segmenter")
    return tmp_path


def maps_of(folder) -> list[np.ndarray]:
    from transformers import SegformerForSemanticSegmentation
    from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

    processor = SegformerImageProcessorPil.from_pretrained(folder)
    model = SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    with torch.inference_mode():
        found = model(**processor([decode(p) for p in PHOTOS], return_tensors="pt"))
    return [one.numpy() for one in processor.post_process_semantic_segmentation(found, [(64, 64)] * len(PHOTOS))]


def test_a_segmenter_of_transformers_gives_its_librarys_map(folder):
    tower = encoder.load(options(), folder)
    maps = maps_of(folder / "segmenter")
    assert len(np.unique(maps)) > 3
    assert tower.shape == (24,)
    assert tower.preprocess.size == 64
    same(folder, maps, palette.ade20k())


@pytest.mark.slow
def test_a_universal_segmenter_does_too(folder):
    from transformers import Mask2FormerForUniversalSegmentation
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

    segmenter = folder / "universal" / "segmenter"
    made.vit(folder / "universal" / "vit")
    made.mask2former(segmenter, [f"class {number}" for number in range(150)], {"height": 64, "width": 64})
    model = Mask2FormerForUniversalSegmentation.from_pretrained(segmenter).eval()
    processor = Mask2FormerImageProcessorPil.from_pretrained(segmenter)
    with torch.inference_mode():
        found = model(**processor([decode(p) for p in PHOTOS], return_tensors="pt"))
    maps = processor.post_process_semantic_segmentation(found, [(64, 64)] * len(PHOTOS))
    same(folder / "universal", [one.numpy() for one in maps], palette.ade20k())


def test_colours_can_be_replaced_and_the_fingerprint_follows(folder):
    before = encoder.load(options(), folder)
    colours = np.random.default_rng(0).integers(0, 256, (150, 3), dtype=np.uint8)
    np.savetxt(folder / "segmenter" / palette.FILE, colours, delimiter=",", fmt="%d")
    after = encoder.load(options(), folder)
    same(folder, maps_of(folder / "segmenter"), colours)
    assert after.fingerprint != before.fingerprint


def test_the_palette_is_ade20ks():
    colours = palette.ade20k()
    assert colours.shape == (150, 3)
    known = {0: (120, 120, 120), 2: (6, 230, 230), 6: (140, 140, 140), 20: (0, 102, 200), 149: (92, 0, 255)}
    assert {number: tuple(colours[number]) for number in known} == known


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["1,2,3"] * 149, "149 colours for 150 classes"),
        (["1,2"] * 150, "expected three numbers from 0 to 255 a line"),
        (["1,2,256"] * 150, "expected three numbers from 0 to 255 a line"),
        (["red,2,3"] * 150, "expected a line `red,green,blue` for each class"),
    ],
)
def test_a_wrong_palette_is_said_in_one_line(tmp_path, lines, says):
    (tmp_path / palette.FILE).write_text("\n".join(lines))
    with pytest.raises(UserError, match=says) as error:
        palette.read(tmp_path, 150)
    assert "\n" not in str(error.value)


def test_a_segmenter_of_other_classes_needs_its_own_colours(folder):
    made.segformer(folder / "segmenter", classes=19)
    with pytest.raises(UserError, match=r"has 19 classes, ADE20K has 150; give their colours in palette\.csv"):
        encoder.load(options(), folder)


def tiny_hrnet():
    """The library's own network, narrow and shallow: its blocks and its forward, another list of widths."""
    from mit_semseg.lib.nn import SynchronizedBatchNorm2d
    from mit_semseg.models.hrnet import Bottleneck, HRNetV2
    from torch import nn

    class Tiny(HRNetV2):
        def __init__(self):
            nn.Module.__init__(self)
            self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False), SynchronizedBatchNorm2d(64)
            self.conv2, self.bn2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False), SynchronizedBatchNorm2d(64)
            self.relu = nn.ReLU()
            self.layer1 = self._make_layer(Bottleneck, 64, 8, 2)
            channels = [32]
            for number, modules in ((2, 1), (3, 2), (4, 1)):
                widths = [6 * 2**branch for branch in range(number)]
                layout = {"NUM_MODULES": modules, "NUM_BRANCHES": number, "BLOCK": "BASIC", "FUSE_METHOD": "SUM"}
                layout |= {"NUM_BLOCKS": (2,) * number, "NUM_CHANNELS": tuple(widths)}
                setattr(self, f"transition{number - 1}", self._make_transition_layer(channels, widths))
                stage, channels = self._make_stage(layout, widths)
                setattr(self, f"stage{number}", stage)
                setattr(self, f"stage{number}_cfg", layout)

    return Tiny(), 6 * (1 + 2 + 4 + 8)


def published_hrnet():
    from mit_semseg.models.hrnet import HRNetV2

    return HRNetV2(n_class=1000), 720


def csail(folder, make):
    """The library's segmenter, saved as CSAIL publishes it."""
    models = pytest.importorskip("mit_semseg.models.models")
    torch.manual_seed(0)
    trunk, channels = make()
    decoder = models.C1(num_class=150, fc_dim=channels, use_softmax=True)
    folder.mkdir()
    for network, name in ((trunk, hrnet.ENCODER), (decoder, hrnet.DECODER)):
        torch.save(made.shaken(network).state_dict(), folder / name)
    return models.SegmentationModule(trunk, decoder, None).eval()


@pytest.mark.parametrize("make", [tiny_hrnet, pytest.param(published_hrnet, marks=pytest.mark.slow)])
def test_hrnet_equals_csails_own(tmp_path, make):
    theirs = csail(tmp_path / "segmenter", make)
    ours, classes = hrnet.load(tmp_path / "segmenter")
    photos = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        logits = torch.nn.functional.interpolate(ours(photos), size=(64, 96), mode="bilinear", align_corners=False)
        np.testing.assert_allclose(logits.softmax(1), theirs({"img_data": photos}, segSize=(64, 96)), atol=1e-5)
    assert classes == 150


def test_the_tower_prepares_and_colours_as_csail_does(tmp_path):
    from torchvision import transforms

    theirs = csail(tmp_path / "segmenter", tiny_hrnet)
    made.vit(tmp_path / "vit")
    normalise = transforms.Normalize(MEAN, STD)
    maps = []
    for data in PHOTOS:
        pixels = np.float32(decode(data).resize((64, 64), Image.Resampling.BILINEAR)) / 255.0
        inputs = normalise(torch.from_numpy(pixels.transpose(2, 0, 1)))
        with torch.inference_mode():
            maps.append(theirs({"img_data": inputs[None]}, segSize=(64, 64)).argmax(1)[0].numpy())
    same(tmp_path, maps, palette.ade20k(), size=64)


@pytest.mark.parametrize("spoil", ["missing", "truncated", "swapped", "no_segmenter"])
def test_a_broken_csail_checkpoint_is_said_in_one_line(tmp_path, spoil):
    folder = tmp_path / "segmenter"
    csail(folder, tiny_hrnet)
    made.vit(tmp_path / "vit")
    match spoil:
        case "missing":
            (folder / hrnet.DECODER).unlink()
        case "truncated":
            (folder / hrnet.ENCODER).write_bytes((folder / hrnet.ENCODER).read_bytes()[:5000])
        case "swapped":
            (folder / hrnet.DECODER).replace(folder / hrnet.ENCODER)
            torch.save({"conv_last.weight": torch.zeros(1)}, folder / hrnet.DECODER)
        case "no_segmenter":
            (folder / hrnet.ENCODER).unlink()
    with pytest.raises(UserError, match=r"^[^\n]+$") as error:
        encoder.load(options(size=64), tmp_path)
    assert str(folder) in str(error.value)


def test_the_vit_is_the_vit_towers_own(folder):
    alone = encoder.load(vit.Options(kind="vit", pooling="mean"), folder / "vit")
    tower = encoder.load(options(pooling="mean"), folder)
    assert tower.shape == alone.shape
    assert encoder.load(options(), folder).fingerprint != tower.fingerprint
