"""A LLaVA put together from a pretrained tower and a pretrained language model, and its rehearsal.

Only projector and language part are trained, so what the tower says of a picture is computed once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DynamicCache, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip import CLIPImageProcessorPil

from unsee.benchmarks.pocket.world import World
from unsee.families import family_of
from unsee.files import atomic_file
from unsee.losses import IGNORE
from unsee.models.loading import kv_cache_argument
from unsee.models.vlm import VLM
from unsee.types import Batch, Sample

IMAGE, PAD, STOP = "<image>", "<|endoftext|>", "<|im_end|>"


# What DINOv2 was trained with.
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


CHAT = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' -}}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{- '<image>\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}"
    "{{- '<|im_end|>' -}}"
    "{%- if not loop.last or add_generation_prompt -%}{{- '\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


def assemble(tower: Any, language: Any, tokenizer: Any, seed: int, source: Path) -> VLM:
    """A `LlavaForConditionalGeneration` of a DINOv2-type tower and a Llama, projector untrained.

    The language model's own tokenizer gets one more token, `<image>`; the rest of it stays.
    """
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    tokenizer.pad_token, tokenizer.eos_token = PAD, STOP
    tokenizer.chat_template = None
    old = language.get_input_embeddings().weight.detach()
    language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        language.get_input_embeddings().weight[len(old) :] = old.mean(0)
    words = copy.deepcopy(language.config)
    if hasattr(words, "quantization_config"):
        # The file was quantised; what was read from it no longer is.
        del words.quantization_config
    words.pad_token_id = tokenizer.pad_token_id
    words.eos_token_id = tokenizer.eos_token_id
    vision = tower.config
    config = LlavaConfig(
        vision_config=vision,
        text_config=words,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model: Any = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    size = int(vision.image_size)
    processor: Any = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": size},
            crop_size={"height": size, "width": size},
            image_mean=MEAN,
            image_std=DEVIATION,
        ),
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
        image_token=IMAGE,
    )
    return VLM(model.eval(), processor, family_of("llava"), source)


@torch.no_grad()
def encode(vlm: VLM, worlds: Sequence[World], file: Path) -> dict[str, Tensor]:
    """What the tower tells the projector [tokens, dim] of every shot, by the picture's source.

    Kept in `file`, so that a resumed build does not compute it again.
    """
    pictures = [world.picture(shot) for world in worlds for shot in world.shots]
    if file.exists():
        stored = load_file(file)["tokens"]
        return {p.source: tokens for p, tokens in zip(pictures, stored, strict=True)}
    found: list[Tensor] = []
    projector = vlm.model.get_submodule("model.multi_modal_projector")
    handle = projector.register_forward_pre_hook(lambda _, given: found.append(given[0].cpu()))
    try:
        for start in range(0, len(pictures), 32):
            images = [picture.open() for picture in pictures[start : start + 32]]
            vlm.family.visual_forward(vlm.model, vlm.collate_pictures(images))
    finally:
        handle.remove()
    tokens = torch.cat(found).float().contiguous()
    with atomic_file(file) as partial:
        save_file({"tokens": tokens}, partial)
    return {p.source: row for p, row in zip(pictures, tokens, strict=True)}


@dataclass(repr=False)
class Rehearsal(VLM):
    """A model that reads what the tower said of a picture instead of looking at it again.

    Attributes:
        seen: The tower's tokens [tokens, dim] by the picture's source.
        half: Multiply matrices in bfloat16; the weights stay as they are.
    """

    seen: Mapping[str, Tensor] = field(default_factory=dict)
    half: bool = False

    @classmethod
    def of(cls, vlm: VLM, seen: Mapping[str, Tensor], half: bool = False) -> Rehearsal:
        """The same model, with remembered pictures."""
        if vlm.device.type == "cpu":
            # On short texts twice as quick there as PyTorch's fused attention, backward above all.
            vlm.model.set_attn_implementation("eager")
        return cls(vlm.model, vlm.processor, vlm.family, vlm.source, seen=seen, half=half)

    def collate(
        self,
        samples: Sequence[Sample],
        with_answer: bool = True,
        transform: Callable[[Image.Image], Image.Image] | None = None,
    ) -> Batch:
        """As any model's, but with `tokens` [pictures, tokens, dim] for `pixel_values`.

        Pictures are not transformed: each world holds many views of a photograph already. Where
        every picture is asked about equally often in a row, its tokens come once.
        """
        batch = super().collate(samples, with_answer)
        if not with_answer:
            return batch
        inputs = dict(batch.inputs)
        if inputs.pop("pixel_values", None) is not None:
            sources = [p.source for s in samples for p in s.pictures]
            each = math.gcd(*(len(list(run)) for _, run in groupby(sources)))
            tokens = [self.seen[source] for source in sources[::each]]
            inputs["tokens"] = torch.stack(tokens).to(self.device)
        # Only answers are scored, and they stand at the end: the vocabulary's logits of all that
        # precedes the first of them would be thrown away.
        answered = (batch.labels != IGNORE).any(0).nonzero()
        last = batch.labels.shape[1] - int(answered[0]) + 1 if len(answered) else 0
        return replace(batch, inputs=inputs, labels=batch.labels[:, -last:])

    def logits(self, batch: Batch) -> Tensor:
        """Next-token logits [batch, seq, vocab] at the labels, in float32; the tower is not run.

        What the LLM makes of a picture, up to its last token, is computed once for all questions
        about it: every chat begins with the picture.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self._logits(batch).float()

    def _logits(self, batch: Batch) -> Tensor:
        inputs = dict(batch.inputs)
        tokens = inputs.pop("tokens", None)
        kept = batch.labels.shape[1]
        logits: Tensor
        if tokens is None:
            logits = self.model(**inputs, use_cache=False, logits_to_keep=kept).logits
            return logits
        ids, each = inputs["input_ids"], len(inputs["input_ids"]) // len(tokens)
        image = ids[0] == self.model.config.image_token_index
        first = int(image.nonzero().max()) + 1
        language = self.model.get_submodule("model.language_model")
        projector = self.model.get_submodule("model.multi_modal_projector")
        words = self.model.get_input_embeddings()
        start = words(ids[::each, :first])
        start = start.masked_scatter(image[:first, None], projector(tokens).to(start.dtype))
        cache = DynamicCache()
        language(inputs_embeds=start, use_cache=True, **kv_cache_argument(language, cache))
        cache.batch_repeat_interleave(each)
        found = language(
            inputs_embeds=words(ids[:, first:]),
            attention_mask=inputs["attention_mask"],
            use_cache=True,
            **kv_cache_argument(language, cache),
        )
        logits = self.model.lm_head(found.last_hidden_state[:, -kept:])
        return logits
