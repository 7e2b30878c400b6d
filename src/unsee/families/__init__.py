"""Model families: every quirk of a pretrained model lives in a module of this folder.

A family says which checkpoints it takes (`model_types`), where the parts are, which layers carry
visual representations, and how samples become a batch. The base class does what the Hugging Face
processors have in common, so that a module states only what is different.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from unsee.errors import DataError, ModelError
from unsee.losses import IGNORE
from unsee.registry import Registry
from unsee.types import Batch, Sample

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

FAMILIES: Registry[type[Family]] = Registry("family", "unsee.families")


@dataclass(frozen=True)
class Parts:
    """Where the parts of a model are: prefixes of parameter names, disjoint and covering.

    Attributes:
        encoder: The vision encoder.
        projector: What turns its output into the tokens that the LLM reads.
        language: The LLM.
    """

    encoder: tuple[str, ...]
    projector: tuple[str, ...]
    language: tuple[str, ...]

    def prefixes(self, part: str) -> tuple[str, ...]:
        """The prefixes of a part; "visual" is encoder and projector, "all" is everything.

        Raises:
            ModelError: If there is no such part.
        """
        named = {
            "encoder": self.encoder,
            "projector": self.projector,
            "visual": self.encoder + self.projector,
            "language": self.language,
            "all": self.encoder + self.projector + self.language,
        }
        if part not in named:
            raise ModelError(f"unknown part '{part}'. Allowed: {', '.join(named)}.")
        return named[part]


class Family:
    """What a family of checkpoints has in common with all others; override what differs.

    Attributes:
        name: Its registered name.
        model_types: The `model_type`s of config.json that it takes.
        parts: Where its parts are.
        lora_targets: Regular expression of the LLM's linear layers that LoRA adapts.
        aligned: Whether every picture has the same tokens, token i being the same place in each;
            not so with tiles or dynamic resolution.
        visual_names: Names of the visual part's inputs in a batch.
        nested: Whether the processor wants the pictures of each row as a list of their own.
        chats: Whether its processors must have a chat template.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    model_types: ClassVar[tuple[str, ...]]
    parts: ClassVar[Parts]
    lora_targets: ClassVar[str]
    aligned: ClassVar[bool] = False
    visual_names: ClassVar[tuple[str, ...]] = ("pixel_values",)
    nested: ClassVar[bool] = False
    chats: ClassVar[bool] = True

    def visual_layers(self, model: nn.Module) -> dict[str, str]:
        """Short name of every visual representation, to the module whose output it is.

        In order from input to output: "encoder.0", ..., "projector".
        """
        raise NotImplementedError

    def visual_mlps(self, model: nn.Module) -> dict[str, tuple[str, str]]:
        """Short encoder layer name, to the names of its MLP's (inner, outer) linear modules."""
        raise NotImplementedError

    def visual_forward(self, model: Any, inputs: dict[str, Tensor]) -> None:
        """Runs the visual part alone on a batch from `collate_pictures`."""
        model.get_image_features(**inputs)

    def placeholder(self, processor: Any) -> str | None:
        """What stands for a picture in plain text; None is the token that config.json names."""
        return None

    def logits(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Next-token logits [batch, seq, vocab] of a batch."""
        logits: Tensor = model(**inputs, use_cache=False).logits
        return logits

    def visual_inputs(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inputs of a batch that its visual part reads, and what `shares` needs."""
        return {name: inputs[name] for name in self.visual_names if name in inputs}

    def shares(self, inputs: dict[str, Tensor]) -> list[int]:
        """How the tokens of any visual layer are divided among the pictures: in proportion to this.

        A layer's output, flattened to [tokens, dim], holds picture after picture; with tiles or
        dynamic resolution they take unequal parts of it.
        """
        return [1] * len(inputs["pixel_values"])

    def split(self, output: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
        """A visual layer's raw output as one tensor [tokens, dim] a picture; see `shares`."""
        shares = self.shares(inputs)
        flat = output.flatten(0, -2)
        unit, rest = divmod(len(flat), sum(shares))
        if rest:
            raise ModelError(
                f"{len(flat)} tokens of a visual layer cannot be divided among pictures that take "
                f"{sum(shares)} shares of it: the family '{self.name}' does not fit this model."
            )
        return list(flat.split([unit * share for share in shares]))

    def checkpoint_keys(self, name: str) -> tuple[str, ...]:
        """The names under which checkpoints on disk may hold parameter `name`."""
        return (name,)

    def messages(self, sample: Sample, with_answer: bool) -> list[dict[str, Any]]:
        """The chat of a sample, in the form that the processors' chat templates read."""
        content = [{"type": "image"} for _ in sample.pictures]
        content.append({"type": "text", "text": sample.question})
        chat: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if with_answer:
            answer = [{"type": "text", "text": sample.answer}]
            chat.append({"role": "assistant", "content": answer})
        return chat

    def text(self, processor: Any, sample: Sample, with_answer: bool) -> str:
        """The sample as the model's own chat template writes it.

        What a template writes after the answer's end token (a line break) is left out: no model
        is asked for it.
        """
        text = str(
            processor.apply_chat_template(
                self.messages(sample, with_answer),
                tokenize=False,
                add_generation_prompt=not with_answer,
            )
        )
        return text.rstrip("\n") if with_answer else text

    def process(
        self,
        processor: Any,
        texts: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        side: str,
    ) -> dict[str, Tensor]:
        """Runs the processor on texts and the images of each, padded on `side`."""
        shown = list(images) if self.nested else [image for row in images for image in row]
        return dict(
            processor(
                text=list(texts),
                images=shown if any(images) else None,
                padding=True,
                padding_side=side,
                add_special_tokens=self.adds_specials(processor, texts),
                return_tensors="pt",
            )
        )

    def adds_specials(self, processor: Any, texts: Sequence[str]) -> bool:
        """Whether the tokenizer should add its start token: not where the template has done so."""
        start = processor.tokenizer.bos_token
        return not (start and all(text.startswith(start) for text in texts))

    def collate(
        self, processor: Any, samples: Sequence[Sample], with_answer: bool, images: Sequence[Any]
    ) -> Batch:
        """Samples to a batch; labels cover exactly the answers, the end token included.

        Where an answer begins is found by tokenising the prompt with and without it: an image
        placeholder expands alike in both, so the difference is the answer.

        Args:
            processor: The checkpoint's processor.
            samples: Rows of the batch, with and without pictures.
            with_answer: True to train or score (padded right), False to generate (padded left).
            images: The opened pictures of the samples that have one, in order.

        Raises:
            DataError: If an answer has no token.
        """
        texts = [self.text(processor, sample, with_answer) for sample in samples]
        side = "right" if with_answer else "left"
        left = iter(images)
        rows = [[next(left) for _ in sample.pictures] for sample in samples]
        inputs = self.process(processor, texts, rows, side)
        labels = torch.full_like(inputs["input_ids"], IGNORE)
        if with_answer:
            tokens = processor.tokenizer
            prompts = [self.text(processor, sample, with_answer=False) for sample in samples]
            adds = self.adds_specials(processor, texts)
            whole_ids, prompt_ids = (
                tokens(some, add_special_tokens=adds)["input_ids"] for some in (texts, prompts)
            )
            for row, (sample, prompt, whole) in enumerate(
                zip(samples, prompt_ids, whole_ids, strict=True)
            ):
                shared = next(
                    (i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b),
                    min(len(prompt), len(whole)),
                )
                length = len(whole) - shared
                if length <= 0:
                    raise DataError(f"sample {sample.id}: its answer '{sample.answer}' is empty.")
                end = int(inputs["attention_mask"][row].sum())
                labels[row, end - length : end] = inputs["input_ids"][row, end - length : end]
        return Batch(
            inputs,
            labels,
            tuple(sample.id for sample in samples),
            tuple(len(sample.pictures) for sample in samples),
        )

    def collate_pictures(self, processor: Any, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Images to the visual inputs alone, for `visual_forward`."""
        shown = [[image] for image in images] if self.nested else list(images)
        found = processor.image_processor(images=shown, return_tensors="pt")
        return {name: found[name] for name in self.visual_names if name in found}


def family_of(model_type: str) -> Family:
    """The family that takes a `model_type`.

    Raises:
        ModelError: If none does, with those that do.
    """
    known: list[str] = []
    for _, family in FAMILIES.items():
        if model_type in family.model_types:
            return family()
        known += family.model_types
    raise ModelError(
        f"no family takes checkpoints of type '{model_type}'. Known types: "
        f"{', '.join(sorted(known))}. A family is one file in unsee/families (CONTRIBUTING.md)."
    )
