"""The model types whose tiny checkpoint needs more than the rules, in one table.

Sizes that fit each other, tokens and placeholders are from the processor and model classes of
transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import Gemma4UnifiedVisionConfig, Gemma4VisionConfig

from experiments.tiny.configs import GROUPS, HEAD, HEADS, WIDTH


@dataclass(frozen=True)
class TypeNotes:
    """What a model type needs beside the rules of this package.

    Attributes:
        config: Fields of its configuration, by dotted path.
        image: The text that stands for a picture; "" is the processor's image token.
        processor: The processor class, where transformers maps none to the type.
        images: The class of its image processor, where transformers maps none to the type.
        videos: The class of its video processor, as above.
        sounds: The class of its feature extractor, as above.
        tokens: Special tokens that are not in the processor's source.
        named: Special tokens that are attributes of the tokenizer.
        ids: Tokens by the field of the configuration that holds their ids, where the field is not
            named like an attribute of the processor.
        options: Options of the processor.
        image_options: Options of the image processor.
        video_options: Options of the video processor.
        unknown: The tokenizer's token for unknown text, which one processor counts from.
        chats: Whether published checkpoints have a chat template; others get one without a
            placeholder for the picture.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    image: str = ""
    processor: str = ""
    images: str = ""
    videos: str = ""
    sounds: str = ""
    tokens: tuple[str, ...] = ()
    named: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    image_options: Mapping[str, Any] = field(default_factory=dict)
    video_options: Mapping[str, Any] = field(default_factory=dict)
    unknown: str = ""
    chats: bool = True


ROPE = {"rope_type": "default", "rope_theta": 10000.0}
M_ROPE = {"text_config.rope_parameters": {**ROPE, "mrope_section": [4, 2, 2]}}
SIGHT = ("<|vision_start|>", "<|vision_end|>")
SOUND = {"audio_token": "<|audio|>", "boa_token": "<|boa|>", "eoa_token": "<|eoa|>"}
QWEN = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN_IDS = {"vision_start_token_id": SIGHT[0], "vision_end_token_id": SIGHT[1]}
OMNI: dict[str, Any] = {
    "image": QWEN,
    "images": "Qwen2VLImageProcessor",
    "videos": "Qwen2VLVideoProcessor",
    "sounds": "WhisperFeatureExtractor",
    "named": {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "audio_token": "<|audio_pad|>",
        "vision_bos_token": SIGHT[0],
        "vision_eos_token": SIGHT[1],
    },
    "ids": QWEN_IDS,
}
GLM = "<|begin_of_image|><|image|><|end_of_image|>"
GLM_TOKENS = ("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>")
GLM_IDS = {
    "image_start_token_id": GLM_TOKENS[0],
    "image_end_token_id": GLM_TOKENS[1],
    "video_start_token_id": GLM_TOKENS[2],
    "video_end_token_id": GLM_TOKENS[3],
}
GLM_ROPE = {"text_config.rope_parameters": {**ROPE, "mrope_section": [4, 2, 2]}}
GLM_MOE_ROPE = {
    "text_config.rope_parameters": {
        **ROPE,
        "partial_rotary_factor": 0.5,
        "mrope_section": [2, 1, 1],
    }
}
ROWS_AND_COLUMNS = tuple(f"<row_{i}_col_{j}>" for i in range(1, 5) for j in range(1, 5))
LFM_ROWS_AND_COLUMNS = tuple(f"<|img_row_{i}_col_{j}|>" for i in range(1, 5) for j in range(1, 5))
SQUARE = {"height": 64, "width": 64}
GEMMA4: dict[str, Any] = {
    "images": "Gemma4ImageProcessor",
    "videos": "Gemma4VideoProcessor",
    "sounds": "Gemma4AudioFeatureExtractor",
}
# The names of the codes of a picture: digits are spelled by letters.
IMGIMG = tuple("IMGIMG" + "".join(chr(ord("A") + int(d)) for d in str(n)) + "Z" for n in range(64))
VISUAL = tuple(f"<|visual token {n:06d}|>" for n in range(64))

TYPES: dict[str, TypeNotes] = {
    "aria": TypeNotes(
        {
            "projector_patch_to_query_dict": {1225: 128, 4900: 256},
            "vision_config.patch_size": 14,
            "vision_config.image_size": 980,
        }
    ),
    "aya_vision": TypeNotes(
        options={"img_size": 56},
        ids={"image_token_id": "<|IMG_PATCH|>", "image_token_index": "<|IMG_PATCH|>"},
    ),
    "chameleon": TypeNotes(tokens=IMGIMG, named={"sep_token": "<reserved08706>"}),
    "cohere2_vision": TypeNotes(image_options={"patch_size": 2}),
    "cohere_compass": TypeNotes(
        {"text_config.rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
        image="<|VISION_START|><|IMAGE_PAD|><|VISION_END|>",
    ),
    "cosmos3_edge": TypeNotes(image=QWEN),
    "cosmos3_omni": TypeNotes(
        processor="Qwen3VLProcessor", image=QWEN, videos="Qwen3VLVideoProcessor"
    ),
    "deepseek_ocr2": TypeNotes(
        {
            "text_config.mlp_layer_types": ["dense", "sparse"],
            "text_config.num_experts_per_tok": 2,
            "vision_config.sam_config.downsample_channels": [32, 64],
            "vision_config.sam_config.image_size": 1024,
        },
        image_options={"size": {"height": 1024, "width": 1024}, "tile_size": 768},
    ),
    "diffusion_gemma": TypeNotes(
        {
            "text_config.num_experts": 4,
            "text_config.moe_intermediate_size": 2 * WIDTH,
            "text_config.top_k_experts": 2,
        },
        named=SOUND,
        **GEMMA4,
    ),
    "gemma4": TypeNotes(
        {"vision_config": Gemma4VisionConfig, "text_config.vocab_size_per_layer_input": 400},
        named=SOUND,
    ),
    "gemma4_unified": TypeNotes({"vision_config": Gemma4UnifiedVisionConfig}, named=SOUND),
    "dots3_note": TypeNotes(
        {"audio_config.adapter_input_size": WIDTH}, image_options={"temporal_patch_size": 1}
    ),
    "emu3": TypeNotes(
        {"vq_config.hidden_size": 128},
        tokens=(*VISUAL, "<|extra_200|>"),
        named={"image_token": "<image>"},
    ),
    "ernie4_5_vl_moe": TypeNotes(
        {"text_config.rope_parameters": {**ROPE, "mrope_section": [3, 3, 2]}},
        video_options={"draw_on_frames": False},
    ),
    "exaone4_5": TypeNotes(image=QWEN, tokens=SIGHT, ids=QWEN_IDS),
    "fast_vlm": TypeNotes(
        {
            "vision_config.architecture": "test_convnext",
            "vision_config.hidden_size": 64,
            "vision_config.model_args": {},
        },
        processor="LlavaProcessor",
        images="CLIPImageProcessor",
        options={"patch_size": 32},
    ),
    "fuyu": TypeNotes(tokens=("|SPEAKER|", "|NEWLINE|"), chats=False),
    "gemma3n": TypeNotes(
        {
            "vision_config.architecture": "test_convnext",
            "vision_config.hidden_size": 64,
            "vision_soft_tokens_per_image": 4,
        },
        options={"image_seq_length": 4},
    ),
    "git": TypeNotes(chats=False),
    "glm4v": TypeNotes(GLM_ROPE, image=GLM, tokens=GLM_TOKENS, ids=GLM_IDS),
    "glm46v": TypeNotes(GLM_ROPE, image=GLM, tokens=GLM_TOKENS, ids=GLM_IDS),
    "glm4v_moe": TypeNotes(
        GLM_MOE_ROPE,
        image=GLM,
        tokens=GLM_TOKENS,
        ids=GLM_IDS,
        images="Glm4vImageProcessor",
        videos="Glm4vVideoProcessor",
    ),
    "glm5_next": TypeNotes(
        {"text_config.qk_rope_head_dim": 0, "text_config.qk_head_dim": HEAD},
        image=GLM,
        tokens=GLM_TOKENS,
        ids=GLM_IDS,
    ),
    "glm_ocr": TypeNotes(
        GLM_ROPE,
        processor="Glm46VProcessor",
        image=GLM,
        tokens=GLM_TOKENS,
        ids=GLM_IDS,
        images="Glm46VImageProcessor",
        videos="Glm46VVideoProcessor",
    ),
    "glmga": TypeNotes(
        GLM_ROPE,
        processor="Glm46VProcessor",
        image=GLM,
        tokens=GLM_TOKENS,
        ids=GLM_IDS,
        videos="Glm46VVideoProcessor",
    ),
    # A picture has 256 tokens; attention to all of its patches at once would take minutes.
    "got_ocr2": TypeNotes(
        {"vision_config.image_size": 1024, "vision_config.global_attn_indexes": []},
        image="<img><imgpad></img>",
    ),
    "granite4_vision": TypeNotes(
        {
            "deepstack_layer_map": [[0, 0]],
            "spatial_target_layers": [0, 1, 0, 1],
            "downsample_rate": "1/2",
        }
    ),
    "granite_docling": TypeNotes(options={"image_seq_len": 1}, tokens=ROWS_AND_COLUMNS),
    "hunyuan_vl": TypeNotes(
        {
            "text_config.head_dim": HEAD,
            "text_config.num_key_value_heads": GROUPS,
            "text_config.rope_parameters": {**ROPE, "mrope_section": [2, 2, 2, 2]},
        },
        image="<|image_start|><|image|><|image_end|>",
    ),
    "hyperclovax_vision_v2": TypeNotes(image=QWEN, tokens=SIGHT),
    "idefics2": TypeNotes(
        options={"image_seq_len": 4},
        image_options={"size": {"shortest_edge": 28, "longest_edge": 56}},
    ),
    "idefics3": TypeNotes(options={"image_seq_len": 4}, tokens=ROWS_AND_COLUMNS),
    "internvl": TypeNotes({"image_seq_length": 4}, options={"image_seq_length": 4}),
    "kosmos-2": TypeNotes(
        {"latent_query_num": 64},
        processor="Kosmos2Processor",
        options={"num_patch_index_tokens": 16},
        tokens=tuple(f"<patch_index_{n:04d}>" for n in range(16)),
        unknown="<pad>",
        chats=False,
    ),
    "kosmos-2.5": TypeNotes({"latent_query_num": 16}, processor="Kosmos2_5Processor", chats=False),
    "lfm2_vl": TypeNotes(tokens=LFM_ROWS_AND_COLUMNS),
    "lfm3_vl": TypeNotes(image=QWEN),
    "minimax_m3_vl": TypeNotes(
        tokens=("]<]image[>[", "]<]video[>[", "]<]start of image[>[", "]<]end of image[>[")
    ),
    "molmo2": TypeNotes(
        {"adapter_config.vision_feature_layer": [1, 0]},
        image_options={"overlap_margins": [1, 1]},
        ids={
            "image_patch_id": "<im_patch>",
            "image_start_token_id": "<im_start>",
            "image_end_token_id": "<im_end>",
            "low_res_image_start_token_id": "<low_res_im_start>",
            "frame_start_token_id": "<frame_start>",
            "frame_end_token_id": "<frame_end>",
        },
    ),
    "muse_glimmer": TypeNotes({"out_hidden_size": 4 * WIDTH}, ids={"image_token_id": "<|patch|>"}),
    "muse_spark": TypeNotes({"out_hidden_size": 4 * WIDTH}),
    "nemotron_h_omni": TypeNotes(
        {"vision_config.video_temporal_patch_size": 2},
        videos="NemotronH_Omni_Reasoning_V3VideoProcessor",
        sounds="ParakeetFeatureExtractor",
    ),
    "ovis2": TypeNotes(
        options={"image_seq_length": 16},
        tokens=("<IMG_START>", "<IMG_GRID>"),
        ids={
            "image_token_id": "<IMG_ATOM>",
            "visual_indicator_token_ids": (
                "<IMG_START>",
                "<IMG_GRID>",
                "<IMG_COL>",
                "<IMG_ROW>",
                "<IMG_END>",
            ),
        },
    ),
    "paddleocr_vl": TypeNotes(M_ROPE),
    "paligemma": TypeNotes(image_options={"image_seq_length": 16}, chats=False),
    "perception_lm": TypeNotes(
        {
            "vision_config.architecture": "vit_pe_core_tiny_patch16_384",
            "vision_config.model_args": {
                "embed_dim": 64,
                "depth": 2,
                "num_heads": 4,
                "img_size": [64, 64],
                "global_pool": "",
                "use_post_transformer_norm": False,
            },
            "vision_use_cls_token": True,
        },
        options={"pooling_ratio": 1},
    ),
    "pp_chart2table": TypeNotes(
        {"vision_config.image_size": 256},
        image="<img>" + "<imgpad>" * 16 + "</img>",
        tokens=("<img>", "<imgpad>", "</img>"),
        ids={"image_token_id": "<imgpad>", "image_token_index": "<imgpad>"},
    ),
    "pp_formulanet": TypeNotes(chats=False),
    "qianfan_ocr": TypeNotes(
        {"image_seq_length": 4}, image="<image>", options={"image_seq_length": 4}
    ),
    "qwen2_vl": TypeNotes(M_ROPE, image=QWEN, tokens=SIGHT),
    "qwen2_5_vl": TypeNotes(M_ROPE, image=QWEN, tokens=SIGHT),
    "qwen2_5_omni_thinker": TypeNotes(M_ROPE, processor="Qwen2_5OmniProcessor", **OMNI),
    "qwen3_omni_moe_thinker": TypeNotes(
        {"audio_config.downsample_hidden_size": 16}, processor="Qwen3OmniMoeProcessor", **OMNI
    ),
    "qwen3_vl": TypeNotes(image=QWEN),
    "qwen3_vl_moe": TypeNotes(
        image=QWEN, images="Qwen2VLImageProcessor", videos="Qwen3VLVideoProcessor"
    ),
    "qwen3_5": TypeNotes(image=QWEN),
    "qwen3_5_moe": TypeNotes(image=QWEN),
    "qwen4_exp": TypeNotes(
        {
            "text_config.indexer_n_heads": HEADS,
            "text_config.indexer_kv_heads": 1,
            "text_config.indexer_head_dim": HEAD,
            "text_config.indexer_budget": 64,
            "text_config.indexer_compress_ratio": 4,
        },
        image=QWEN,
    ),
    "smolvlm": TypeNotes(options={"image_seq_len": 4}, tokens=ROWS_AND_COLUMNS),
    "step3p7": TypeNotes(
        {"text_config.sliding_window": 64},
        tokens=("<patch_start>", "<patch_end>", "<im_start>", "<im_end>"),
        image_options={"patch_size": 56, "max_image_size": 224},
    ),
    "video_llama_3": TypeNotes(image=QWEN, tokens=SIGHT),
    "vipllava": TypeNotes(
        {"vision_feature_layers": [-1, -2]}, options={"vision_feature_select_strategy": "default"}
    ),
    "blip": TypeNotes(chats=False),
    "blip-2": TypeNotes(chats=False),
    "instructblip": TypeNotes(chats=False),
    "unlimited_ocr": TypeNotes({"vision_config.sam_config.downsample_channels": [32, 64]}),
    "florence2": TypeNotes(
        image_options={"image_seq_length": 5, "size": SQUARE, "crop_size": SQUARE}, chats=False
    ),
    "idefics": TypeNotes(chats=False),
    "pix2struct": TypeNotes(chats=False),
    "udop": TypeNotes(chats=False),
    "gemma3": TypeNotes(
        image="<|boi|>",
        options={"image_seq_length": 4},
        ids={"image_token_index": "<|image|>", "image_token_id": "<|image|>"},
    ),
    "t5gemma2": TypeNotes(
        image="<|boi|>",
        options={"image_seq_length": 4},
        ids={"image_token_index": "<|image|>", "image_token_id": "<|image|>"},
    ),
    "shieldgemma2": TypeNotes(
        image="<|boi|>",
        options={"image_seq_length": 4},
        ids={"image_token_index": "<|image|>", "image_token_id": "<|image|>"},
    ),
    "mllama": TypeNotes(
        {
            "vision_config.intermediate_layers_indices": [0],
            "vision_config.vision_output_dim": 2 * WIDTH,
            "text_config.cross_attention_layers": [1],
        }
    ),
    "inkling2": TypeNotes(image_options={"size": {"height": 32, "width": 32}}),
    "inkling_mm_model": TypeNotes(
        {"vision_config.n_layers": 4}, image_options={"size": {"height": 16, "width": 16}}
    ),
    "llama4": TypeNotes(
        {"vision_config.intermediate_size": 4 * WIDTH, "vision_config.projector_input_dim": WIDTH},
        ids={"image_token_index": "<|patch|>"},
    ),
}
