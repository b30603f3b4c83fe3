"""Small CLIPs with random weights."""

import torch
from open_clip.model import CLIP

TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 3}


def transformer(seed: int = 0, **vision) -> CLIP:
    torch.manual_seed(seed)
    return CLIP(16, {**VISION, **vision}, TEXT)


def convolutional(seed: int = 0) -> CLIP:
    torch.manual_seed(seed)
    vision = {"image_size": 32, "timm_model_name": "test_byobnet", "timm_pool": "avg", "timm_proj": "linear"}
    return CLIP(16, {**vision, "timm_model_pretrained": False}, TEXT)
