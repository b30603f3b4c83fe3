"""Small random segmenters, saved as published ones are."""

import torch


def vit(folder, size=32, dim=24):
    """A ViT of transformers."""
    from transformers import ViTConfig, ViTModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(1)
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 2 * dim}
    ViTModel(ViTConfig(image_size=size, patch_size=8, hidden_size=dim, **layers)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)


def segformer(folder, size=64, classes=150, labels=None):
    """A SegFormer of transformers, with as many classes as ADE20K unless told otherwise."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation
    from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

    torch.manual_seed(2)
    named = (
        {"id2label": dict(enumerate(labels)), "label2id": {name: n for n, name in enumerate(labels)}} if labels else {}
    )
    config = SegformerConfig(
        num_labels=len(labels or range(classes)),
        **named,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1] * 4,
        num_attention_heads=[1] * 4,
        decoder_hidden_size=16,
    )
    model = SegformerForSemanticSegmentation(config)
    if labels:
        torch.nn.init.normal_(model.decode_head.classifier.weight, std=3)  # random weights tell classes apart
    model.save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)


STREET = ("road", "building", "vegetation", "car", "sky", "person")


def mask2former(folder, labels=STREET, size=None):
    """A Mask2Former of transformers on a Swin backbone."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig
    from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

    torch.manual_seed(3)
    backbone = SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1] * 4,
        num_heads=[1] * 4,
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=12,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    model = Mask2FormerForUniversalSegmentation(config)
    model.class_predictor.bias.data[-1] = -5  # the class "nothing", which random weights would mostly name
    torch.nn.init.normal_(model.class_predictor.weight, std=2)
    model.save_pretrained(folder)
    processor = Mask2FormerImageProcessorPil(size=size or {"shortest_edge": 64, "longest_edge": 96})
    processor.save_pretrained(folder)


def shaken(network):
    """The network with statistics of normalisation that are not those of a fresh one."""
    torch.manual_seed(4)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return network.eval()
