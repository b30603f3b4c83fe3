"""Small random checkpoints in the formats in which the encoders of the catalogue are published."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
SENTENCES = (
    "In Norway people drive on the right side of the road.",
    "Utility poles in Japan are made of concrete, and there are many of them; they carry transformers, cables, lamps.",
    "¿Qué? Ångström – naïve café, 日本語 🙂",
    "",
    "red",
)
"""Of several lengths: one is longer than the towers below take, one is empty."""


@dataclass(frozen=True)
class Made:
    """How to make a checkpoint like that of an encoder.

    Attributes:
        write: Writes it to an empty folder.
        images: Features of photos as the library itself gives them: (folder, photos, pooling) → (N, *shape).
        texts: Features of texts as the library itself gives them: (folder, texts, pooling) → (N, D).
    """

    write: Callable[[Path], None]
    images: Callable[[Path, list[Any], str], Any] | None = None
    texts: Callable[[Path, list[str], str], Any] | None = None


def old_weights(folder: Path) -> None:
    """The weights as a pickle of tensors, as checkpoints were published before safetensors."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def as_trained(network: Any, size: int) -> None:
    """Let normalisations see data: fresh ones leave all photos nearly alike."""
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(8, 3, size, size))


# -- CLIP of transformers ----------------------------------------------------------------------------------------------


def clip(size: int, patch: int, old: bool) -> Made:
    def write(folder: Path) -> None:
        import torch
        from transformers import CLIPConfig, CLIPModel

        torch.manual_seed(size + patch)
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        text = {**shape, "max_position_embeddings": 20, "bos_token_id": 49406, "eos_token_id": 49407}
        config = CLIPConfig(
            text_config=text, vision_config={**shape, "image_size": size, "patch_size": patch}, projection_dim=24
        )
        CLIPModel(config).save_pretrained(folder)
        clip_vocabulary(folder)
        prepared = {"image_mean": CLIP_MEAN, "image_std": CLIP_STD, "do_center_crop": True, "do_normalize": True}
        prepared |= {"do_resize": True, "resample": 3, "size": size, "crop_size": size}
        if old:  # sizes were numbers, and the class had another name
            prepared |= {"feature_extractor_type": "CLIPFeatureExtractor"}
            old_weights(folder)
        else:
            prepared |= {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
            prepared |= {"image_processor_type": "CLIPImageProcessor"}
        (folder / "preprocessor_config.json").write_text(json.dumps(prepared))

    def images(folder: Path, photos: list[Any], pooling: str) -> Any:
        from transformers import CLIPModel
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        pixels = CLIPImageProcessorPil.from_pretrained(folder)(photos, return_tensors="pt")["pixel_values"]
        model = CLIPModel.from_pretrained(folder).eval()
        output = model.vision_model(pixel_values=pixels)
        return {
            "projection": model.visual_projection(output.pooler_output),
            "class": output.pooler_output,
            "mean": output.last_hidden_state.mean(1),
            "tokens": output.last_hidden_state,
        }[pooling]

    def texts(folder: Path, sentences: list[str], pooling: str) -> Any:
        from transformers import CLIPModel, CLIPTokenizer

        tokenizer = CLIPTokenizer.from_pretrained(folder)
        tokens = tokenizer(sentences, padding=True, truncation=True, max_length=20, return_tensors="pt")
        model = CLIPModel.from_pretrained(folder).eval()
        output = model.text_model(**tokens)
        kept = tokens["attention_mask"].unsqueeze(-1)
        return {
            "projection": model.text_projection(output.pooler_output),
            "class": output.pooler_output,
            "mean": (output.last_hidden_state * kept).sum(1) / kept.sum(1),
        }[pooling]

    return Made(write, images, texts)


def clip_vocabulary(folder: Path) -> None:
    """CLIP's own vocabulary, as open_clip brings it, in the files of transformers."""
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer

    encoder = dict(SimpleTokenizer().encoder)
    encoder["<|startoftext|>"] = encoder.pop("<start_of_text>")
    encoder["<|endoftext|>"] = encoder.pop("<end_of_text>")
    (folder / "vocab.json").write_text(json.dumps(encoder), encoding="utf-8")
    with gzip.open(Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as stream:
        merges = stream.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")


# -- CLIP of open_clip -------------------------------------------------------------------------------------------------

TRANSFORMER = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
RESIDUAL = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "patch_size": None}
TIMM = {"image_size": 64, "timm_model_name": "test_byobnet", "timm_model_pretrained": False, "timm_pool": "avg",
        "timm_proj": "linear"}  # fmt: skip


def open_clip_config(vision: dict[str, Any]) -> dict[str, Any]:
    text = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    return {"embed_dim": 24, "quick_gelu": "timm_model_name" not in vision, "vision_cfg": vision, "text_cfg": text}


def open_clip(vision: dict[str, Any]) -> Made:
    def write(folder: Path) -> None:
        import torch
        from open_clip.model import CLIP

        from geoloc_core.encoders.openclip import save_clip

        torch.manual_seed(0)
        config = open_clip_config(vision)
        prepared = {"size": vision["image_size"], "mean": CLIP_MEAN, "std": CLIP_STD, "interpolation": "bicubic"}
        model = CLIP(**config)
        as_trained(model.visual, vision["image_size"])
        save_clip(model, config, {**prepared, "resize_mode": "shortest"}, folder)

    def images(folder: Path, photos: list[Any], pooling: str) -> Any:
        import open_clip as library
        import torch

        model, transform = library.create_model_from_pretrained(f"local-dir:{folder}")
        pixels = torch.stack([transform(photo) for photo in photos])
        visual = model.eval().visual
        if pooling == "projection":
            return model.encode_image(pixels)
        tokens = visual.transformer(visual._embeds(pixels))
        return {"class": visual.ln_post(tokens)[:, 0], "mean": tokens.mean(1), "tokens": tokens}[pooling]

    def texts(folder: Path, sentences: list[str], pooling: str) -> Any:
        import open_clip as library

        assert pooling == "projection"
        model, _ = library.create_model_from_pretrained(f"local-dir:{folder}")
        return model.eval().encode_text(library.get_tokenizer(f"local-dir:{folder}")(sentences))

    return Made(write, images, texts)


# -- ViT and ResNet ----------------------------------------------------------------------------------------------------


def vit(patch: int, old: bool) -> Made:
    def write(folder: Path) -> None:
        import torch
        from transformers import ViTConfig, ViTForImageClassification

        torch.manual_seed(patch)
        shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
        ViTForImageClassification(ViTConfig(image_size=32, patch_size=patch, **shape)).save_pretrained(folder)
        prepared = {"do_normalize": True, "do_resize": True, "resample": 2, "size": 32}
        prepared |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        if old:
            old_weights(folder)
        else:
            prepared |= {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
        (folder / "preprocessor_config.json").write_text(
            json.dumps({"feature_extractor_type": "ViTFeatureExtractor", **prepared})
        )

    def images(folder: Path, photos: list[Any], pooling: str) -> Any:
        from transformers import ViTModel
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

        pixels = ViTImageProcessorPil.from_pretrained(folder)(photos, return_tensors="pt")["pixel_values"]
        tokens = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()(pixels).last_hidden_state
        return {"class": tokens[:, 0], "mean": tokens.mean(1), "tokens": tokens}[pooling]

    return Made(write, images)


def resnet(old: bool) -> Made:
    def write(folder: Path) -> None:
        import torch
        from transformers import ResNetConfig, ResNetForImageClassification

        torch.manual_seed(0)
        config = ResNetConfig(embedding_size=8, hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 1, 1])
        model = ResNetForImageClassification(config)
        as_trained(model, 64)
        model.save_pretrained(folder)
        prepared = {"crop_pct": 0.875, "do_normalize": True, "do_resize": True, "resample": 3, "size": 64}
        prepared |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
        prepared |= {"feature_extractor_type": "ConvNextFeatureExtractor"}
        (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
        if old:
            old_weights(folder)

    def images(folder: Path, photos: list[Any], pooling: str) -> Any:
        from transformers import ResNetModel
        from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

        pixels = ConvNextImageProcessorPil.from_pretrained(folder)(photos, return_tensors="pt")["pixel_values"]
        output = ResNetModel.from_pretrained(folder).eval()(pixels)
        grid = output.last_hidden_state
        return {
            "mean": output.pooler_output.flatten(1),
            "max": grid.amax((2, 3)),
            "tokens": grid.flatten(2).transpose(1, 2),
        }[pooling]

    return Made(write, images)


# -- Text alone --------------------------------------------------------------------------------------------------------


def roberta(old: bool) -> Made:
    def write(folder: Path) -> None:
        import torch
        from tokenizers import ByteLevelBPETokenizer
        from transformers import RobertaConfig, RobertaForMaskedLM, RobertaTokenizer

        trained = ByteLevelBPETokenizer()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        trained.train_from_iterator(SENTENCES, vocab_size=330, special_tokens=special)
        trained.save_model(str(folder))  # vocab.json and merges.txt, as they were first published
        torch.manual_seed(0)
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = RobertaConfig(vocab_size=330, max_position_embeddings=22, type_vocab_size=1, **shape)
        RobertaForMaskedLM(config).save_pretrained(folder)
        if old:
            old_weights(folder)
        else:
            RobertaTokenizer.from_pretrained(folder).save_pretrained(folder)

    return Made(write, texts=_last_state("RobertaModel", 20))


def distilbert() -> Made:
    def write(folder: Path) -> None:
        import torch
        from transformers import DistilBertConfig, DistilBertForMaskedLM, DistilBertTokenizer

        words = {word.lower() for text in SENTENCES for word in text.replace(".", " .").replace(",", " ,").split()}
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##s", *sorted(words)]
        (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
        torch.manual_seed(0)
        config = DistilBertConfig(
            vocab_size=len(pieces), max_position_embeddings=20, dim=32, hidden_dim=64, n_layers=2, n_heads=2
        )
        DistilBertForMaskedLM(config).save_pretrained(folder)
        DistilBertTokenizer.from_pretrained(folder, do_lower_case=True).save_pretrained(folder)

    return Made(write, texts=_last_state("DistilBertModel", 20))


def _last_state(network: str, longest: int) -> Callable[[Path, list[str], str], Any]:
    def texts(folder: Path, sentences: list[str], pooling: str) -> Any:
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        tokens = tokenizer(sentences, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        states = getattr(transformers, network).from_pretrained(folder).eval()(**tokens).last_hidden_state
        kept = tokens["attention_mask"].unsqueeze(-1)
        return {"class": states[:, 0], "mean": (states * kept).sum(1) / kept.sum(1)}[pooling]

    return texts


MADE: dict[str, Made] = {
    "clip-vit-b32": clip(64, 32, old=True),
    "clip-vit-l14": clip(28, 14, old=False),
    "clip-vit-l14-336": clip(42, 14, old=True),
    "streetclip": clip(42, 14, old=False),
    "clip-rn50x16": open_clip(RESIDUAL),
    "vit-l16-in21k": vit(16, old=False),
    "vit-b16-in21k": vit(8, old=True),
    "resnet50": resnet(old=False),
    "roberta-base": roberta(old=False),
    "distilbert": distilbert(),
}
"""By the encoder of the catalogue that each is like."""
OTHERS: dict[str, tuple[str, Made]] = {
    "open_clip transformer": ("open_clip", open_clip(TRANSFORMER)),
    "open_clip timm": ("open_clip", open_clip(TIMM)),
    "resnet, old": ("resnet", resnet(old=True)),
    "roberta, old": ("bert", roberta(old=True)),
}
"""Further formats, with their kind."""
