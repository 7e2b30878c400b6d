"""Makes a tiny checkpoint of every family: real classes, random weights, a few hundred KB.

python tests/tiny.py qwen2_vl FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from experiments.tiny.text import TURNS as IM
from experiments.tiny.text import template, tokenizer

from support import chat_templates
from unsee.families import family_of
from unsee.models.processors import pictures_only
from unsee.models.vlm import VLM

WIDTH, HEADS, LAYERS, PATCH = 32, 4, 2, 14
RECIPES: dict[str, Callable[[], tuple[Any, Any]]] = {}
# Of types without a file in unsee/families.
FOUND: dict[str, Callable[[], tuple[Any, Any]]] = {}


def recipe(function: Callable[[], tuple[Any, Any]]) -> Callable[[], tuple[Any, Any]]:
    """Files a recipe under the family's name, which is the function's."""
    RECIPES[function.__name__] = function
    return function


def make(name: str, folder: Path) -> Path:
    """Writes the tiny checkpoint of a family; its model and processor are made from seed 0.

    A family that takes checkpoints of two classes has a recipe for each.
    """
    torch.manual_seed(0)
    model, processor = (RECIPES | FOUND)[name]()
    with torch.no_grad():
        for key, value in model.named_parameters():
            # What starts at nought (gates, position tables, Gemma's projector) would hide the
            # picture; norms stay.
            if "norm" not in key and not value.any():
                value.normal_(0, 0.3)
    tokens = processor.tokenizer
    model.generation_config.pad_token_id = tokens.pad_token_id
    ends = [tokens.eos_token_id]
    if name == "gemma3":
        # As published: turns end with a token that is not the tokenizer's eos token.
        ends.append(tokens.convert_tokens_to_ids("<end_of_turn>"))
    model.generation_config.eos_token_id = ends
    # Random weights do not write an end token by themselves: answers end after seven tokens.
    model.generation_config.exponential_decay_length_penalty = (6, 1000.0)
    family = family_of(model.config.model_type, json.loads(model.config.to_json_string()))
    VLM(model.eval(), processor, family, folder).save(folder)
    return folder


def text(kind: Any, tokens: Any, **more: Any) -> Any:
    """The configuration of a small language part."""
    return kind(
        vocab_size=len(tokens), hidden_size=WIDTH, intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=2,
        max_position_embeddings=2048, initializer_range=0.08, pad_token_id=tokens.pad_token_id,
        bos_token_id=tokens.bos_token_id, eos_token_id=tokens.eos_token_id, **more,
    )  # fmt: skip


def vision(kind: Any, size: int = 28, layers: int = LAYERS, **more: Any) -> Any:
    """The configuration of a small vision encoder."""
    return kind(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=layers,
        num_attention_heads=HEADS, image_size=size, patch_size=PATCH, **more,
    )  # fmt: skip


def pil(name: str) -> Any:
    """The image processor class of that name that this installation can run."""
    from transformers.utils import is_torchvision_available

    return getattr(hf, name if is_torchvision_available() else f"{name}Pil")


PINPOINTS = [[28, 56], [56, 28], [56, 56]]


@recipe
def llava() -> tuple[Any, Any]:
    tokens = tokenizer("<image>")
    processor = hf.LlavaProcessor(
        pil("CLIPImageProcessor")(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
        ),
        tokens, patch_size=PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=chat_templates.LLAVA, image_token="<image>",
    )  # fmt: skip
    config = hf.LlavaConfig(
        vision_config=vision(hf.CLIPVisionConfig, layers=3),
        text_config=text(hf.LlamaConfig, tokens),
        image_token_index=tokens.convert_tokens_to_ids("<image>"), image_seq_length=4,
    )  # fmt: skip
    return hf.LlavaForConditionalGeneration(config), processor


@recipe
def llava_next() -> tuple[Any, Any]:
    tokens = tokenizer("<image>")
    processor = hf.LlavaNextProcessor(
        pil("LlavaNextImageProcessor")(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28},
            image_grid_pinpoints=PINPOINTS,
        ),
        tokens, patch_size=PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=chat_templates.LLAVA, image_token="<image>",
    )  # fmt: skip
    config = hf.LlavaNextConfig(
        vision_config=vision(hf.CLIPVisionConfig, layers=3),
        text_config=text(hf.LlamaConfig, tokens),
        image_token_index=tokens.convert_tokens_to_ids("<image>"), image_grid_pinpoints=PINPOINTS,
    )  # fmt: skip
    return hf.LlavaNextForConditionalGeneration(config), processor


@recipe
def llava_onevision() -> tuple[Any, Any]:
    tokens = tokenizer("<image>", "<video>", *IM, eos=IM[1])
    processor = read(
        hf.LlavaOnevisionProcessor,
        pil("LlavaOnevisionImageProcessor")(
            size={"height": 28, "width": 28}, image_grid_pinpoints=PINPOINTS
        ),
        tokens, num_image_tokens=4, vision_feature_select_strategy="full",
        chat_template=template("<image>", *IM),
    )  # fmt: skip
    config = hf.LlavaOnevisionConfig(
        vision_config=vision(hf.SiglipVisionConfig, vision_use_head=False),
        text_config=text(hf.Qwen2Config, tokens),
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        video_token_index=tokens.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=PINPOINTS, vision_aspect_ratio="anyres_max_9",
    )  # fmt: skip
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def read(kind: Any, *parts: Any, **more: Any) -> Any:
    """The processor of a class; where one of videos can run, it must have one, too."""
    made = pictures_only(kind)
    if "video_processor" in made.get_attributes():
        name = kind.__name__.replace("Qwen2_5_VL", "Qwen2VL").replace("Processor", "VideoProcessor")
        more["video_processor"] = getattr(hf, name)()
    return made(*parts, **more)


def _qwen(
    tokens: Any, patch: int, processor: Any, config: Any, model: Any, sight: Any, words: Any
) -> tuple[Any, Any]:
    ids = dict(
        zip(
            ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id"),
            tokens.convert_tokens_to_ids(list(QWEN)),
            strict=True,
        )
    )
    images = pil("Qwen2VLImageProcessor")(
        min_pixels=(2 * patch) ** 2, max_pixels=(4 * patch) ** 2, patch_size=patch, merge_size=2
    )
    made = read(processor, images, tokens, chat_template=chat_templates.QWEN)
    return model(config(vision_config=sight, text_config=words, **ids)), made


def _qwen_text(kind: Any, sections: list[int]) -> Any:
    tokens = tokenizer(*QWEN, *IM, eos=IM[1])
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections}
    return tokens, text(kind, tokens, rope_parameters=rope)


@recipe
def qwen2_vl() -> tuple[Any, Any]:
    tokens, words = _qwen_text(
        hf.models.qwen2_vl.configuration_qwen2_vl.Qwen2VLTextConfig, [2, 1, 1]
    )
    sight = {
        "depth": LAYERS, "embed_dim": WIDTH, "hidden_size": WIDTH, "num_heads": HEADS,
        "mlp_ratio": 2, "patch_size": PATCH,
    }  # fmt: skip
    return _qwen(
        tokens, PATCH, hf.Qwen2VLProcessor, hf.Qwen2VLConfig, hf.Qwen2VLForConditionalGeneration,
        sight, words.to_dict(),
    )  # fmt: skip


@recipe
def qwen2_5_vl() -> tuple[Any, Any]:
    kind = hf.models.qwen2_5_vl.configuration_qwen2_5_vl.Qwen2_5_VLTextConfig
    tokens, words = _qwen_text(kind, [2, 1, 1])
    sight = {
        "depth": LAYERS, "hidden_size": WIDTH, "num_heads": HEADS, "out_hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH, "patch_size": PATCH, "window_size": 4 * PATCH,
        "fullatt_block_indexes": [1],
    }  # fmt: skip
    return _qwen(
        tokens, PATCH, hf.Qwen2_5_VLProcessor, hf.Qwen2_5_VLConfig,
        hf.Qwen2_5_VLForConditionalGeneration, sight, words.to_dict(),
    )  # fmt: skip


@recipe
def qwen3_vl() -> tuple[Any, Any]:
    kind = hf.models.qwen3_vl.configuration_qwen3_vl.Qwen3VLTextConfig
    tokens, words = _qwen_text(kind, [2, 1, 1])
    words.head_dim = WIDTH // HEADS
    sight = {
        "depth": LAYERS, "hidden_size": WIDTH, "num_heads": HEADS, "out_hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH, "patch_size": 16, "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }  # fmt: skip
    return _qwen(
        tokens, 16, hf.Qwen3VLProcessor, hf.Qwen3VLConfig, hf.Qwen3VLForConditionalGeneration,
        sight, words.to_dict(),
    )  # fmt: skip


IDEFICS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>")


@recipe
def idefics2() -> tuple[Any, Any]:
    tokens = tokenizer(*IDEFICS, eos=IDEFICS[2])
    processor = hf.Idefics2Processor(
        pil("Idefics2ImageProcessor")(size={"shortest_edge": 28, "longest_edge": 56}),
        tokens, image_seq_len=3, chat_template=template("<image>", end=IDEFICS[2], bos="<s>"),
    )  # fmt: skip
    resampler = {
        "resampler_n_latents": 3, "resampler_depth": 1, "resampler_n_heads": 2,
        "num_key_value_heads": 1, "resampler_head_dim": 16, "hidden_size": WIDTH,
    }  # fmt: skip
    sight = vision(hf.models.idefics2.configuration_idefics2.Idefics2VisionConfig, 56)
    config = hf.Idefics2Config(
        vision_config=sight, perceiver_config=resampler,
        text_config=text(hf.MistralConfig, tokens),
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return hf.Idefics2ForConditionalGeneration(config), processor


def _idefics3(processor: Any, images: Any, config: Any, sight: Any, model: Any, *more: Any) -> Any:
    grid = [f"<row_{i + 1}_col_{j + 1}>" for i in range(6) for j in range(6)]
    tokens = tokenizer(*IDEFICS, "<global-img>", *grid, eos=IDEFICS[2])
    made = processor(
        images(size={"longest_edge": 56}, max_image_size={"longest_edge": 28}),
        tokens, *more, image_seq_len=1, chat_template=chat_templates.IDEFICS3,
    )  # fmt: skip
    words = text(hf.LlamaConfig, tokens)
    told = config(
        vision_config=vision(sight), text_config=words, scale_factor=2,
        image_token_id=tokens.convert_tokens_to_ids("<image>"), pad_token_id=tokens.pad_token_id,
    )  # fmt: skip
    return model(told), made


@recipe
def idefics3() -> tuple[Any, Any]:
    return _idefics3(
        hf.Idefics3Processor, pil("Idefics3ImageProcessor"), hf.Idefics3Config,
        hf.models.idefics3.configuration_idefics3.Idefics3VisionConfig,
        hf.Idefics3ForConditionalGeneration,
    )  # fmt: skip


@recipe
def smolvlm() -> tuple[Any, Any]:
    return _idefics3(
        partial(read, hf.SmolVLMProcessor), pil("SmolVLMImageProcessor"), hf.SmolVLMConfig,
        hf.models.smolvlm.configuration_smolvlm.SmolVLMVisionConfig,
        hf.SmolVLMForConditionalGeneration,
    )  # fmt: skip


@recipe
def gemma3() -> tuple[Any, Any]:
    turn = ("<start_of_turn>", "<end_of_turn>")
    tokens = tokenizer(
        *turn, eos="<eos>", bos="<bos>", boi_token="<start_of_image>",
        eoi_token="<end_of_image>", image_token="<image_soft_token>",
    )  # fmt: skip
    processor = hf.Gemma3Processor(
        pil("Gemma3ImageProcessor")(size={"height": 56, "width": 56}),
        tokens, chat_template=chat_templates.GEMMA3, image_seq_length=4,
    )  # fmt: skip
    config = hf.Gemma3Config(
        text_config=text(hf.Gemma3TextConfig, tokens, head_dim=8),
        vision_config=vision(hf.SiglipVisionConfig, 56, vision_use_head=False),
        mm_tokens_per_image=4, image_token_index=tokens.image_token_id,
        boi_token_index=tokens.boi_token_id, eoi_token_index=tokens.eoi_token_id,
    )  # fmt: skip
    return hf.Gemma3ForConditionalGeneration(config), processor


@recipe
def internvl() -> tuple[Any, Any]:
    tokens = tokenizer(
        *IM, eos=IM[1], start_image_token="<img>", end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>", video_token="<video>",
    )  # fmt: skip
    processor = read(
        hf.InternVLProcessor,
        pil("GotOcr2ImageProcessor")(
            size={"height": 28, "width": 28}, crop_to_patches=True, min_patches=1, max_patches=3
        ),
        tokens, image_seq_length=1, chat_template=chat_templates.INTERNVL,
    )  # fmt: skip
    sight = vision(hf.InternVLVisionConfig, layers=LAYERS)
    sight.image_size, sight.patch_size = (28, 28), (14, 14)
    config = hf.InternVLConfig(
        vision_config=sight,
        text_config=text(hf.Qwen2Config, tokens),
        image_token_id=tokens.context_image_token_id,
        image_seq_length=1, downsample_ratio=0.5,
    )  # fmt: skip
    return hf.InternVLForConditionalGeneration(config), processor


@recipe
def paligemma() -> tuple[Any, Any]:
    tokens = tokenizer("<image>", bos="<bos>", eos="<eos>")
    images = pil("SiglipImageProcessor")(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    processor = hf.PaliGemmaProcessor(images, tokens)
    sight = vision(hf.SiglipVisionConfig, vision_use_head=False, projection_dim=WIDTH)
    words = text(hf.GemmaConfig, tokens, head_dim=8)
    config = hf.PaliGemmaConfig(
        vision_config=sight, text_config=words, projection_dim=WIDTH, hidden_size=WIDTH,
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return hf.PaliGemmaForConditionalGeneration(config), processor


@recipe
def mllama() -> tuple[Any, Any]:
    tokens = tokenizer(
        "<|image|>", "<|python_tag|>", "<|eot_id|>", bos="<|begin_of_text|>", eos="<|eot_id|>"
    )
    processor = hf.MllamaProcessor(
        pil("MllamaImageProcessor")(size={"height": 28, "width": 28}, max_image_tiles=2),
        tokens, chat_template=template("<|image|>", end="<|eot_id|>", bos="<|begin_of_text|>"),
    )  # fmt: skip
    sight = hf.models.mllama.configuration_mllama.MllamaVisionConfig(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS,
        num_global_layers=1, attention_heads=HEADS, image_size=28, patch_size=7,
        vision_output_dim=2 * WIDTH, max_num_tiles=2, intermediate_layers_indices=[0],
        supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]],
    )  # fmt: skip
    words = text(
        hf.models.mllama.configuration_mllama.MllamaTextConfig, tokens, cross_attention_layers=[1],
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    config = hf.MllamaConfig(
        vision_config=sight, text_config=words,
        image_token_index=tokens.convert_tokens_to_ids("<|image|>"),
    )  # fmt: skip
    return hf.MllamaForConditionalGeneration(config), processor


def found(function: Callable[[], tuple[Any, Any]]) -> Callable[[], tuple[Any, Any]]:
    """Files a recipe of a type without a file in unsee/families under its name."""
    FOUND[function.__name__] = function
    return function


@found
def qwen3_vl_moe() -> tuple[Any, Any]:
    kinds = hf.models.qwen3_vl_moe.configuration_qwen3_vl_moe
    tokens, words = _qwen_text(kinds.Qwen3VLMoeTextConfig, [2, 1, 1])
    words.head_dim, words.num_experts, words.num_experts_per_tok = WIDTH // HEADS, 4, 2
    words.moe_intermediate_size = WIDTH
    sight = {
        "depth": LAYERS, "hidden_size": WIDTH, "num_heads": HEADS, "out_hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH, "patch_size": 16, "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }  # fmt: skip
    return _qwen(
        tokens, 16, hf.Qwen3VLProcessor, hf.Qwen3VLMoeConfig,
        hf.Qwen3VLMoeForConditionalGeneration, sight, words.to_dict(),
    )  # fmt: skip


@found
def vipllava() -> tuple[Any, Any]:
    """The projector reads several layers of the tower, but not the last."""
    tokens = tokenizer("<image>")
    processor = hf.LlavaProcessor(
        pil("CLIPImageProcessor")(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
        ),
        tokens, patch_size=PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=chat_templates.LLAVA, image_token="<image>",
    )  # fmt: skip
    config = hf.VipLlavaConfig(
        vision_config=vision(hf.CLIPVisionConfig, layers=3),
        text_config=text(hf.LlamaConfig, tokens), vision_feature_layers=[-2, -3],
        image_token_index=tokens.convert_tokens_to_ids("<image>"), image_seq_length=4,
    )  # fmt: skip
    return hf.VipLlavaForConditionalGeneration(config), processor


@found
def aya_vision() -> tuple[Any, Any]:
    """A picture has as many rows of pixels as tiles."""
    marks = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>")
    tiles = [f"TILE_{i + 1}" for i in range(4)]
    tokens = tokenizer("<image>", *marks, *tiles, "TILE_GLOBAL", *IM, eos=IM[1])
    processor = hf.AyaVisionProcessor(
        pil("GotOcr2ImageProcessor")(
            size={"height": 56, "width": 56}, crop_to_patches=True, min_patches=1, max_patches=3
        ),
        tokens, patch_size=PATCH, img_size=56, downsample_factor=2,
        chat_template=template("<image>", *IM),
    )  # fmt: skip
    config = hf.AyaVisionConfig(
        vision_config=vision(hf.SiglipVisionConfig, 56, vision_use_head=False),
        text_config=text(hf.Cohere2Config, tokens, head_dim=WIDTH // HEADS),
        vision_feature_layer=-1, downsample_factor=2, adapter_layer_norm_eps=1e-6,
        alignment_intermediate_size=2 * WIDTH,
        image_token_index=tokens.convert_tokens_to_ids("<|IMG_PATCH|>"),
    )  # fmt: skip
    return hf.AyaVisionForConditionalGeneration(config), processor


@found
def lighton_ocr() -> tuple[Any, Any]:
    """Pictures of several sizes are padded to the largest, and the encoder leaves that out."""
    tokens = tokenizer(
        *IM, eos=IM[1], image_token="<image>", image_break_token="<break>",
        image_end_token="<end>",
    )  # fmt: skip
    processor = hf.LightOnOcrProcessor(
        pil("PixtralImageProcessor")(size={"longest_edge": 112}, patch_size=PATCH),
        tokens, patch_size=PATCH, spatial_merge_size=2, chat_template=template("<image>", *IM),
    )  # fmt: skip
    sight = vision(hf.PixtralVisionConfig, 112)
    config = hf.LightOnOcrConfig(
        vision_config=sight, spatial_merge_size=2, image_token_id=tokens.image_token_id,
        text_config=text(hf.Qwen3Config, tokens, head_dim=WIDTH // HEADS),
    )  # fmt: skip
    return hf.LightOnOcrForConditionalGeneration(config), processor


@found
def deepseek_vl() -> tuple[Any, Any]:
    tokens = tokenizer(*IM, eos=IM[1], image_token="<image>")
    processor = hf.DeepseekVLProcessor(
        pil("DeepseekVLImageProcessor")(size={"height": 28, "width": 28}, min_size=14),
        tokens, chat_template=template("<image>", *IM), num_image_tokens=4,
    )  # fmt: skip
    config = hf.DeepseekVLConfig(
        vision_config=vision(hf.SiglipVisionConfig, vision_use_head=False),
        text_config=text(hf.LlamaConfig, tokens), image_token_id=tokens.image_token_id,
    )  # fmt: skip
    return hf.DeepseekVLForConditionalGeneration(config), processor


if __name__ == "__main__":
    print(make(sys.argv[1], Path(sys.argv[2])))
