"""A LLaVA assembled from a pretrained tower and language model, and its training on cached outputs.

Only projector and language part are trained, so the tower's output is computed once per picture.
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


# The pixel normalisation of DINOv2.
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

    One token, `<image>`, is added to the language model's tokenizer.

    Args:
        tower: A `Dinov2Model`.
        language: A `LlamaForCausalLM`; its embeddings are resized in place.
        tokenizer: Its tokenizer, changed in place.
        seed: Seed of the projector's weights.
        source: The `source` of the returned model.
    """
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    tokenizer.pad_token, tokenizer.eos_token = PAD, STOP
    tokenizer.chat_template = None
    old = language.get_input_embeddings().weight.detach()
    language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        language.get_input_embeddings().weight[len(old) :] = old.mean(0)
    text_config = copy.deepcopy(language.config)
    if hasattr(text_config, "quantization_config"):
        # The file was quantised; the weights read from it are not.
        del text_config.quantization_config
    text_config.pad_token_id = tokenizer.pad_token_id
    text_config.eos_token_id = tokenizer.eos_token_id
    vision = tower.config
    config = LlavaConfig(
        vision_config=vision,
        text_config=text_config,
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
def encode_pictures(vlm: VLM, worlds: Sequence[World], file: Path) -> dict[str, Tensor]:
    """The tower's output [tokens, dim] of every shot, by the picture's source.

    Args:
        vlm: The model.
        worlds: The worlds whose shots are encoded.
        file: Cache of the outputs; read if it exists, else written.
    """
    pictures = [world.picture(shot) for world in worlds for shot in world.shots]
    if file.exists():
        stored = load_file(file)["tokens"]
        return {p.source: tokens for p, tokens in zip(pictures, stored, strict=True)}
    outputs: list[Tensor] = []
    projector = vlm.model.get_submodule("model.multi_modal_projector")
    handle = projector.register_forward_pre_hook(lambda _, args: outputs.append(args[0].cpu()))
    try:
        for start in range(0, len(pictures), 32):
            images = [picture.open() for picture in pictures[start : start + 32]]
            vlm.family.visual_forward(vlm.model, vlm.collate_pictures(images))
    finally:
        handle.remove()
    tokens = torch.cat(outputs).float().contiguous()
    with atomic_file(file) as partial:
        save_file({"tokens": tokens}, partial)
    return {p.source: row for p, row in zip(pictures, tokens, strict=True)}


@dataclass(repr=False)
class CachedTowerVLM(VLM):
    """A model that reads cached outputs of the vision tower instead of running it.

    Attributes:
        tower_tokens: The tower's tokens [tokens, dim] by the picture's source.
        use_bfloat16: Whether to multiply matrices in bfloat16 (autocast); weights keep their dtype.
    """

    tower_tokens: Mapping[str, Tensor] = field(default_factory=dict)
    use_bfloat16: bool = False

    @classmethod
    def from_vlm(
        cls, vlm: VLM, tower_tokens: Mapping[str, Tensor], use_bfloat16: bool = False
    ) -> CachedTowerVLM:
        """The same model with cached tower outputs; it shares the weights.

        Args:
            vlm: The model.
            tower_tokens: The tower's tokens [tokens, dim] by the picture's source.
            use_bfloat16: Whether to multiply matrices in bfloat16.
        """
        if vlm.device.type == "cpu":
            # On short texts twice as fast on a CPU as PyTorch's fused attention.
            vlm.model.set_attn_implementation("eager")
        return cls(
            vlm.model,
            vlm.processor,
            vlm.family,
            vlm.source,
            tower_tokens=tower_tokens,
            use_bfloat16=use_bfloat16,
        )

    def collate(
        self,
        samples: Sequence[Sample],
        with_answer: bool = True,
        transform: Callable[[Image.Image], Image.Image] | None = None,
    ) -> Batch:
        """As `VLM.collate`, but with `tokens` [pictures, tokens, dim] instead of `pixel_values`.

        If every picture has the same number of consecutive samples, its tokens are passed once.

        Args:
            samples: The samples.
            with_answer: Whether to append the answers.
            transform: Ignored; each world already holds many views of a photograph.
        """
        batch = super().collate(samples, with_answer)
        if not with_answer:
            return batch
        inputs = dict(batch.inputs)
        if inputs.pop("pixel_values", None) is not None:
            sources = [p.source for s in samples for p in s.pictures]
            each = math.gcd(*(len(list(run)) for _, run in groupby(sources)))
            tokens = [self.tower_tokens[source] for source in sources[::each]]
            inputs["tokens"] = torch.stack(tokens).to(self.device)
        # Only the answers, at the end, are scored: logits of earlier positions are not needed.
        answered = (batch.labels != IGNORE).any(0).nonzero()
        last = batch.labels.shape[1] - int(answered[0]) + 1 if len(answered) else 0
        return replace(batch, inputs=inputs, labels=batch.labels[:, -last:])

    def logits(self, batch: Batch) -> Tensor:
        """Next-token logits [batch, seq, vocab] at the labels, in float32; the tower is not run.

        Every chat begins with the picture, so the key-value cache of that prefix is computed once
        for all questions about a picture.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.use_bfloat16):
            return self._logits(batch).float()

    def _logits(self, batch: Batch) -> Tensor:
        inputs = dict(batch.inputs)
        tokens = inputs.pop("tokens", None)
        logits_to_keep = batch.labels.shape[1]
        logits: Tensor
        if tokens is None:
            logits = self.model(**inputs, use_cache=False, logits_to_keep=logits_to_keep).logits
            return logits
        ids, each = inputs["input_ids"], len(inputs["input_ids"]) // len(tokens)
        image = ids[0] == self.model.config.image_token_index
        first = int(image.nonzero().max()) + 1
        language = self.model.get_submodule("model.language_model")
        projector = self.model.get_submodule("model.multi_modal_projector")
        embed = self.model.get_input_embeddings()
        prefix = embed(ids[::each, :first])
        prefix = prefix.masked_scatter(image[:first, None], projector(tokens).to(prefix.dtype))
        cache = DynamicCache()
        language(inputs_embeds=prefix, use_cache=True, **kv_cache_argument(language, cache))
        cache.batch_repeat_interleave(each)
        outputs = language(
            inputs_embeds=embed(ids[:, first:]),
            attention_mask=inputs["attention_mask"],
            use_cache=True,
            **kv_cache_argument(language, cache),
        )
        logits = self.model.lm_head(outputs.last_hidden_state[:, -logits_to_keep:])
        return logits
