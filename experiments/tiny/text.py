"""A small real tokenizer and a chat template, for tiny checkpoints."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

# How turns begin and end.
TURNS = ("<|im_start|>", "<|im_end|>")


def tokenizer(*specials: str, bos: str = "<s>", eos: str = "</s>", **named: str) -> Any:
    """Returns a byte-level tokenizer: any text, one token a byte.

    Args:
        specials: Special tokens beside "<pad>", bos and eos.
        bos: The token that begins a text.
        eos: The token that ends an answer.
        named: Special tokens that are attributes of the tokenizer, such as `image_token`.
    """
    listed = list(dict.fromkeys(["<pad>", bos, eos, *specials, *named.values()]))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: i for i, word in enumerate([*listed, *letters])}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(listed)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token=bos, eos_token=eos,
        extra_special_tokens=named or list(specials),
    )  # fmt: skip


def template(image: str, start: str = "", end: str = "</s>", bos: str = "") -> str:
    """Returns a chat template.

    Args:
        image: The text that stands for a picture.
        start: The text that begins a turn.
        end: The text that ends a turn.
        bos: The text that begins a chat.
    """
    return (
        "{{- '" + bos + "' -}}"
        "{%- for m in messages -%}{{- '" + start + "' + m['role'] + '\\n' -}}"
        "{%- for p in m['content'] -%}{%- if p['type'] == 'image' -%}{{- '" + image + "' -}}"
        "{%- else -%}{{- p['text'] -}}{%- endif -%}{%- endfor -%}{{- '" + end + "\\n' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '" + start + "assistant\\n' -}}{%- endif -%}"
    )
