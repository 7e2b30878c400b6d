"""Makes a tiny checkpoint of every image encoder: real classes, random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from support.tiny import HEADS, LAYERS, PATCH, WIDTH, pil, tokenizer, vision
from unsee.families import family_of
from unsee.models.processors import EncoderProcessor
from unsee.models.vlm import VLM

ENCODER_RECIPES: dict[str, Callable[[], tuple[Any, Any]]] = {}
SIDE = {"height": 28, "width": 28}


def recipe(function: Callable[[], tuple[Any, Any]]) -> Callable[[], tuple[Any, Any]]:
    """Files a recipe under the model type, which is the function's name."""
    ENCODER_RECIPES[function.__name__] = function
    return function


def make_encoder(name: str, folder: Path) -> Path:
    """Writes the tiny checkpoint of a model type, made from seed 0."""
    torch.manual_seed(0)
    model, processor = ENCODER_RECIPES[name]()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "norm" not in key and not value.any():
                value.normal_(0, 0.3)
    VLM(model.eval(), processor, family_of(model.config.model_type), folder).save(folder)
    return folder


def text_tower(kind: Any, tokens: Any, **more: Any) -> Any:
    """The configuration of a small text tower."""
    return kind(
        vocab_size=len(tokens), hidden_size=WIDTH, intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, max_position_embeddings=32,
        pad_token_id=tokens.pad_token_id, bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id, **more,
    )  # fmt: skip


@recipe
def clip() -> tuple[Any, Any]:
    tokens = tokenizer()
    images = pil("CLIPImageProcessor")(size={"shortest_edge": 28}, crop_size=SIDE)
    config = hf.CLIPConfig(
        text_config=text_tower(hf.CLIPTextConfig, tokens).to_dict(),
        vision_config=vision(hf.CLIPVisionConfig).to_dict(),
        projection_dim=16,
    )
    return hf.CLIPModel(config), EncoderProcessor(images, tokens)


def dino_images() -> Any:
    return pil("BitImageProcessor")(size={"shortest_edge": 28}, crop_size=SIDE)


@recipe
def dinov2() -> tuple[Any, Any]:
    config = vision(hf.Dinov2Config, mlp_ratio=2)
    return hf.Dinov2Model(config), EncoderProcessor(dino_images())


@recipe
def dinov2_with_registers() -> tuple[Any, Any]:
    config = vision(hf.Dinov2WithRegistersConfig, mlp_ratio=2)
    return hf.Dinov2WithRegistersModel(config), EncoderProcessor(dino_images())


@recipe
def siglip() -> tuple[Any, Any]:
    tokens = tokenizer()
    config = hf.SiglipConfig(
        text_config=text_tower(hf.SiglipTextConfig, tokens, projection_size=WIDTH).to_dict(),
        vision_config=vision(hf.SiglipVisionConfig).to_dict(),
    )
    return hf.SiglipModel(config), EncoderProcessor(pil("SiglipImageProcessor")(size=SIDE), tokens)


@recipe
def siglip2() -> tuple[Any, Any]:
    # It is read again as Gemma's, whose spaces this vocabulary does not have.
    tokens = tokenizer("<unk>")
    images = pil("Siglip2ImageProcessor")(patch_size=PATCH, max_num_patches=9)
    config = hf.Siglip2Config(
        text_config=text_tower(hf.Siglip2TextConfig, tokens, projection_size=WIDTH).to_dict(),
        vision_config=vision(hf.Siglip2VisionConfig, num_patches=9).to_dict(),
    )
    return hf.Siglip2Model(config), EncoderProcessor(images, tokens)


@recipe
def dinov3_vit() -> tuple[Any, Any]:
    # The published checkpoints' own image processor needs torchvision.
    config = vision(hf.DINOv3ViTConfig, num_register_tokens=2)
    return hf.DINOv3ViTModel(config), EncoderProcessor(pil("ViTImageProcessor")(size=SIDE))


@recipe
def vit() -> tuple[Any, Any]:
    config = vision(hf.ViTConfig)
    return hf.ViTModel(config, add_pooling_layer=False), EncoderProcessor(
        pil("ViTImageProcessor")(size=SIDE)
    )


TINY_VIT = {"img_size": 28, "patch_size": 7, "embed_dim": 32, "depth": 2, "num_heads": 2}
TINY_SWIN = {"img_size": 28, "patch_size": 2, "embed_dim": 12, "depths": (1, 1)}
TIMM_SIZES: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": TINY_VIT,
    "eva02_tiny_patch14_224": TINY_VIT,
    "vit_base_patch16_siglip_224": TINY_VIT,
    "resnet10t": {},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 32)},
    "swin_tiny_patch4_window7_224": TINY_SWIN | {"num_heads": (1, 2)},
}


def timm_encoder(architecture: str) -> tuple[Any, Any]:
    """A small encoder of an architecture of timm, in transformers' wrapper."""
    sizes = TIMM_SIZES[architecture]
    side = sizes.get("img_size", 32)
    pictures = {
        "input_size": [3, side, side],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }
    config = hf.TimmWrapperConfig(
        architecture=architecture, model_args=sizes, pretrained_cfg=pictures, num_labels=0
    )
    images = hf.TimmWrapperImageProcessor(pictures, architecture)
    return hf.TimmWrapperModel(config), EncoderProcessor(images)


@recipe
def timm_wrapper() -> tuple[Any, Any]:
    return timm_encoder("vit_tiny_patch16_224")
