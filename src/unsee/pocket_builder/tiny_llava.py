"""A small LLaVA model: tokenizer, image processor, chat template and configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip import CLIPImageProcessorPil

PAD, UNKNOWN, START, END, IMAGE = "<pad>", "<unk>", "<s>", "</s>", "<image>"


SPECIALS = (PAD, UNKNOWN, START, END, IMAGE)


PATCH = 12  # side of a patch in pixels


TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}"
    "{{- 'USER: ' -}}"
    "{%- for part in message['content'] if part['type'] == 'image' -%}{{- '<image>\n' -}}"
    "{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] -}}"
    "{%- endfor -%}"
    "{{- '\nASSISTANT:' -}}"
    "{%- else -%}"
    "{%- for part in message['content'] -%}{{- ' ' + part['text'] -}}{%- endfor -%}"
    "{{- '</s>' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
)


def make_tokenizer(corpus: Sequence[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over a corpus; decoding is the exact inverse of encoding.

    As in SentencePiece, a word's token includes the space before it; punctuation and line breaks
    are separate tokens. Words that are not in the corpus become `<unk>`.
    """
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="first"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    words = {
        word
        for text in [*corpus, "USER: ", "x\nASSISTANT: x"]
        for word, _ in split.pre_tokenize_str(text)
    }
    vocabulary = {word: i for i, word in enumerate([*SPECIALS, *sorted(words - {"x", "▁x", ""})])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        additional_special_tokens=[IMAGE],
    )


def make_processor(corpus: Sequence[str], size: int) -> Any:
    """A `LlavaProcessor` for pictures of `size` pixels and texts of a corpus."""
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": size},
            crop_size={"height": size, "width": size},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ),
        tokenizer=make_tokenizer(corpus),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
        image_token=IMAGE,
    )


def make_model(processor: Any, size: int, seed: int, width: int = 128, layers: int = 4) -> Any:
    """A `LlavaForConditionalGeneration` with random weights.

    At the default width and depth it has about 1.4 million parameters.

    Args:
        processor: Its processor; determines the vocabulary.
        size: Side of the pictures in pixels.
        seed: Seed of the weights.
        width: Hidden size of tower and language model.
        layers: Number of layers of each.
    """
    torch.manual_seed(seed)
    tokens = processor.tokenizer
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=5 * width // 2,
            num_hidden_layers=layers,
            num_attention_heads=4,
            image_size=size,
            patch_size=PATCH,
            projection_dim=width,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokens),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            # With smaller random weights the model does not learn to use pictures.
            initializer_range=0.08,
            pad_token_id=tokens.pad_token_id,
            bos_token_id=tokens.bos_token_id,
            eos_token_id=tokens.eos_token_id,
        ),
        image_token_index=tokens.convert_tokens_to_ids(IMAGE),
        image_seq_length=(size // PATCH) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    model: Any = LlavaForConditionalGeneration(config)
    model.generation_config.pad_token_id = tokens.pad_token_id
    model.generation_config.eos_token_id = tokens.eos_token_id
    return model
