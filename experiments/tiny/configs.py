"""Shrinks the configuration class of any model type by rules on the names of its fields.

A field keeps its default unless a rule or the table of `types.py` changes it, so that the kind of
every part (attention, experts, positions, projector) stays that of the real class. Of a model with
several kinds of layers, one of each kind is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

WIDTH, HEADS, GROUPS, HEAD, LAYERS, GRID = 64, 4, 2, 16, 2, 4

# The new value of a field, by its name; a tuple keeps its length.
SIZES: dict[str, Any] = dict.fromkeys(
    (
        "hidden_size d_model embed_dim embedding_dim decoder_hidden_size image_text_hidden_size "
        "text_hidden_size encoder_hidden_size vision_hidden_size out_hidden_size output_dim "
        "projection_dim projection_hidden_size projection_hidden_dim projector_output_dim "
        "word_embed_proj_dim vision_output_dim linear_hidden_size "
        "output_channels pooler_output_size adapter_in_dim adapter_out_dim ple_embed_dim "
        "image_token_embed_dim moe_hidden_size hidden_size_per_layer_input"
    ).split(),
    WIDTH,
)
SIZES |= dict.fromkeys(
    (
        "intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff mlp_dim "
        "intermediate_size_mlp moe_intermediate_size shared_expert_intermediate_size "
        "shared_experts_intermediate_size shared_intermediate_size projector_hidden_size "
        "projection_intermediate_size alignment_intermediate_size share_expert_dim "
        "moe_shared_expert_intermediate_size expert_ffn_hidden_size"
    ).split(),
    2 * WIDTH,
)
SIZES |= dict.fromkeys(
    (
        "num_hidden_layers encoder_layers decoder_layers depth layers n_layers num_layers "
        "num_decoder_layers conf_num_hidden_layers max_window_layers resampler_depth "
        "aligner_num_add_layers"
    ).split(),
    LAYERS,
)
SIZES |= dict.fromkeys(
    (
        "num_attention_heads attention_heads encoder_attention_heads decoder_attention_heads "
        "num_heads conf_num_attention_heads swa_num_attention_heads num_sliding_attention_heads "
        "index_n_heads linear_num_value_heads linear_num_heads mamba_num_heads resampler_n_heads "
        "resampler_heads"
    ).split(),
    HEADS,
)
SIZES |= dict.fromkeys(
    "num_key_value_heads swa_num_key_value_heads linear_num_key_heads n_groups".split(), GROUPS
)
SIZES |= dict.fromkeys(
    (
        "head_dim d_kv global_head_dim linear_key_head_dim linear_value_head_dim linear_head_dim "
        "mamba_head_dim index_head_dim swa_head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim "
        "resampler_head_dim resampler_dim_head ssm_state_size"
    ).split(),
    HEAD,
)
SIZES |= dict.fromkeys("n_routed_experts num_experts num_local_experts moe_num_experts".split(), 4)
SIZES |= dict.fromkeys("num_experts_per_tok moe_topk moe_k num_query_tokens".split(), 2)
SIZES |= dict.fromkeys("n_group topk_group n_shared_experts moe_num_shared_experts".split(), 1)
SIZES |= {
    "query_pre_attn_scalar": HEAD,
    "qk_head_dim": 2 * HEAD,
    "kv_lora_rank": 2 * HEAD,
    "q_lora_rank": 2 * HEAD,
    "index_topk": 64,
    "max_position_embeddings": 4096,
    "num_embeddings": 64,
    "codebook_size": 64,
    "base_channels": 32,
    "resolution": 64,
    "image_seq_length": GRID**2,
    "mm_tokens_per_image": 4,
    "num_global_layers": 1,
    "deepstack_visual_indexes": (0,),
    "fullatt_block_indexes": (1,),
    "global_attn_indexes": (1,),
    "insert_layer_id": 0,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 0,
    "num_kv_shared_layers": 0,
    "resampler_n_latents": 4,
    "resampler_num_latents": 4,
    "latent_query_num": 4,
    "initializer_range": 0.08,
    "init_std": 0.08,
}
# Fields that follow from others when they are left out.
DERIVED = frozenset({"transformers_version", "architectures", "model_type", "dtype"})
LARGEST_PATCH = 16


def shrink(
    kind: type[PretrainedConfig],
    words: int,
    changes: Mapping[str, Any],
    ids: Mapping[str, int],
    path: str = "",
    default: PretrainedConfig | None = None,
) -> PretrainedConfig:
    """Returns a small configuration of a class.

    Args:
        kind: The class.
        words: Size of the vocabulary.
        changes: Fields to set, by dotted path ("text_config.head_dim"); a class stands for a small
            configuration of it.
        ids: Ids of special tokens, by field ("image_token_id").
        path: Dotted path of this configuration in the whole, with a dot at its end.
        default: The configuration with default values; None makes it.
    """
    plain = kind()
    whole = plain if default is None else default
    fields = {k: v for k, v in vars(whole).items() if not k.startswith("_") and k not in DERIVED}
    chosen = _chosen_layers(fields)
    given: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, PretrainedConfig):
            given[name] = shrink(type(value), words, changes, ids, f"{path}{name}.", value)
            continue
        part = changes.get(f"{path}{name}")
        if isinstance(part, type):
            given[name] = shrink(part, words, changes, ids, f"{path}{name}.")
            continue
        if name in ids:
            given[name] = ids[name]
            continue
        small = _small(name, value, fields, chosen, words)
        if small is not value or value != getattr(plain, name, None):
            given[name] = small
    patch = fields.get("patch_size")
    if isinstance(fields.get("image_size"), (int, list, tuple)):
        side = GRID * (_patch(patch) if patch is not None else 14)
        given["image_size"] = _like(side, fields["image_size"])
    if "image_grid_pinpoints" in fields:
        given["image_grid_pinpoints"] = pinpoints(given["vision_config"].image_size)
    for name in [n for n in changes if n.startswith(path) and "." not in n[len(path) :]]:
        if not isinstance(changes[name], type):
            given[name[len(path) :]] = changes[name]
    return kind(**given)


def pinpoints(side: int) -> list[list[int]]:
    """Returns the sizes of pictures that are cut into tiles of a side."""
    return [[side, 2 * side], [2 * side, side], [2 * side, 2 * side]]


def _small(
    name: str, value: Any, fields: Mapping[str, Any], chosen: Sequence[int], words: int
) -> Any:
    """The value of one field in the small configuration."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if name == "vocab_size":
        return words
    if name in ("num_hidden_layers", "n_layers", "depth") and chosen:
        return len(chosen)
    if name == "patch_size":
        return value if _differ(value) else _like(_patch(value), value)
    if name in ("rope_parameters", "rope_scaling"):
        return _rope(value)
    depth, many = _depth(fields), isinstance(value, (list, tuple))
    if many and depth and len(value) == depth:
        if list(value) == list(range(depth)):
            return list(range(len(chosen)))
        return [SIZES.get(name, value[i]) for i in chosen]
    if name.endswith("num_key_value_heads") and value == fields.get(_queries(name)):
        return HEADS
    if name in SIZES:
        wanted = SIZES[name]
        return type(value)(wanted) if isinstance(wanted, tuple) else _like(wanted, value)
    return value


def _queries(name: str) -> str:
    """The field with the number of query heads, for one with the number of key-value heads."""
    return name.replace("key_value", "attention")


def _depth(fields: Mapping[str, Any]) -> int:
    """The number of layers; 0 if no field says it."""
    names = ("num_hidden_layers", "n_layers", "depth")
    return next((fields[n] for n in names if isinstance(fields.get(n), int)), 0)


def _chosen_layers(fields: Mapping[str, Any]) -> list[int]:
    """The layers to keep: the first of each kind, at least two; lists a layer tell the kinds."""
    depth = _depth(fields)
    chosen: set[int] = set()
    for value in fields.values():
        if isinstance(value, (list, tuple)) and len(value) == depth > LAYERS:
            kinds = [str(item) for item in value]
            if list(value) != list(range(depth)):
                chosen |= {kinds.index(kind) for kind in kinds}
    for extra in range(depth):
        if len(chosen) >= LAYERS:
            break
        chosen.add(extra)
    return sorted(chosen)


def _differ(value: Any) -> bool:
    """Whether a value is a list of several numbers, one a stage."""
    return isinstance(value, (list, tuple)) and len(set(value)) > 1


def _patch(value: Any) -> int:
    first = value[0] if isinstance(value, (list, tuple)) else value
    return min(int(first), LARGEST_PATCH)


def _like(number: Any, value: Any) -> Any:
    """The number, as many times as the value it replaces has entries."""
    return type(value)([number] * len(value)) if isinstance(value, (list, tuple)) else number


def _rope(value: Any) -> Any:
    """Rotary settings whose sections fit the head."""
    if not isinstance(value, Mapping):
        return value
    if any(isinstance(inner, Mapping) for inner in value.values()):
        return {name: _rope(inner) for name, inner in value.items()}
    small = dict(value)
    share = float(value.get("partial_rotary_factor") or 1.0)
    if "partial_rotary_factor" in value:
        small["partial_rotary_factor"] = share = max(share, 0.5)
    sections = value.get("mrope_section")
    if sections:
        half, count = int(HEAD * share / 2), len(sections)
        base, rest = divmod(half, count)
        small["mrope_section"] = [base + (i < rest) for i in range(count)]
    return small
