"""Model families: every quirk of a pretrained model lives in a module of this folder.

A family says which checkpoints it takes (`model_types`), where the parts are, which layers carry
visual representations, and how samples become a batch. The base class does what most do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from PIL import Image

from unsee.errors import DataError, ModelError
from unsee.losses import IGNORE
from unsee.registry import Registry
from unsee.types import Batch, Parts, Sample

if TYPE_CHECKING:
    from torch import Tensor, nn

FAMILIES: Registry[type[Family]] = Registry("family", "unsee.families")


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
        resumes: Whether what the LLM made of a picture holds for every question that follows, and
            can be gone on from: not where it looks ahead, or reads pictures by cross attention.
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
    resumes: ClassVar[bool] = True

    def check(self, processor: Any) -> None:
        """Refuses a processor whose settings the family cannot follow.

        Raises:
            ModelError: If one of them is such.
        """

    def visual_layers(self, model: nn.Module) -> dict[str, str]:
        """Short name of every visual representation, to the module whose output it is.

        In order from input to output: "encoder.0", ..., "projector". What is neither the
        encoder's nor "projector" goes around it into the LLM.
        """
        raise NotImplementedError

    def unread_layers(self, model: nn.Module) -> list[str]:
        """Modules of the encoder whose output nothing reads: they need not be run."""
        return []

    def visual_mlps(self, model: nn.Module) -> dict[str, tuple[str, str]]:
        """Short encoder layer name, to the names of its MLP's (inner, outer) linear modules."""
        raise NotImplementedError

    def language_layers(self, model: nn.Module) -> dict[str, str]:
        """Short name of every block of the LLM, "language.0", ..., to its module.

        The blocks are the longest list of modules in the language part.

        Raises:
            ModelError: If it has none.
        """
        lists = [
            (len(module), name)
            for name, module in model.named_modules()
            if type(module).__name__ == "ModuleList" and f"{name}.".startswith(self.parts.language)
        ]
        if not lists:
            raise ModelError(f"the language part of family '{self.name}' has no list of blocks.")
        count, name = max(lists)
        return {f"language.{i}": f"{name}.{i}" for i in range(count)}

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

    def positions(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Positions of a batch's tokens [batch, seq], or [axes, batch, seq] where it has axes."""
        return (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)

    def hidden(self, model: Any, inputs: dict[str, Tensor], module: str) -> Tensor:
        """What a module of the LLM gives [batch, seq, dim] for a batch."""
        found: list[Tensor] = []

        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            found.append(output if isinstance(output, torch.Tensor) else output[0])

        handle = model.get_submodule(module).register_forward_hook(keep)
        try:
            self.logits(model, inputs)
        finally:
            handle.remove()
        return found[-1]

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
            answer = [{"type": "text", "text": sample.turn}]
            chat.append({"role": "assistant", "content": answer})
        return chat

    def text(self, processor: Any, sample: Sample, with_answer: bool) -> str:
        """The sample as the model's own chat template writes it.

        What a template writes after the answer's end token (a line break) is left out: no model
        is asked for it. A turn that is begun for the model ends where it is to go on.
        """
        if sample.prefill and not with_answer:
            begun = self.text(processor, replace(sample, answer=""), with_answer=True)
            return begun[: begun.rindex(sample.prefill) + len(sample.prefill)]
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

    def spell(
        self, processor: Any, samples: Sequence[Sample], texts: Sequence[str]
    ) -> list[tuple[list[int], list[int], int]]:
        """Tokens of each prompt, of the whole text, and where the answer begins in these.

        Pictures are not expanded. An image placeholder expands alike in both, so that the
        difference is the answer. `texts` is what `text` makes of the samples, answers included.

        Raises:
            DataError: If an answer has no token.
        """
        tokens, adds = processor.tokenizer, self.adds_specials(processor, texts)
        prompts = [self.text(processor, sample, with_answer=False) for sample in samples]
        prompt_ids, whole_ids = (
            tokens(list(some), add_special_tokens=adds)["input_ids"] for some in (prompts, texts)
        )
        found = []
        for sample, prompt, whole in zip(samples, prompt_ids, whole_ids, strict=True):
            shared = next(
                (i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b),
                min(len(prompt), len(whole)),
            )
            if len(whole) <= shared:
                raise DataError(f"sample {sample.id}: its answer '{sample.answer}' is empty.")
            found.append((prompt, whole, shared))
        return found

    def collate(
        self, processor: Any, samples: Sequence[Sample], with_answer: bool, images: Sequence[Any]
    ) -> Batch:
        """Samples to a batch; labels cover exactly the answers, the end token included.

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
            spelled = self.spell(processor, samples, texts)
            for row, (_, whole, begin) in enumerate(spelled):
                end = int(inputs["attention_mask"][row].sum())
                start = end - len(whole) + begin
                labels[row, start:end] = inputs["input_ids"][row, start:end]
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

    def as_seen(self, processor: Any, image: Image.Image) -> Image.Image:
        """The picture in the size at which the model sees it, whole and in 8 bits.

        Raises:
            ModelError: If the processor makes anything else of pictures than one normalised grid
                each, such as tiles or packed patches.
        """
        values = self.collate_pictures(processor, [image])["pixel_values"].float()
        refused = ModelError(
            f"the processor of family '{self.name}' makes no plain grid of a picture (tiles, "
            "packed patches, or padding): pixels cannot be traced to what the model reads."
        )
        if values.dim() != 4 or values.shape[:2] != (1, 3):
            raise refused
        scale, offset = self._normalisation(processor)
        pixels = ((values - offset) / scale).round().clamp(0, 255)
        seen = Image.fromarray(pixels[0].permute(1, 2, 0).to(torch.uint8).numpy())
        again = self.collate_pictures(processor, [seen])["pixel_values"].float()
        if again.shape != values.shape or not torch.allclose(
            again, self.pixel_values(processor, pixels), atol=1e-4
        ):
            raise refused
        return seen

    def pixel_values(self, processor: Any, pixels: Tensor) -> Tensor:
        """What the model reads of pixels [pictures, 3, height, width] of 0..255, differentiably.

        Equal to what the processor makes of pictures from `as_seen`.
        """
        scale, offset = self._normalisation(processor)
        return pixels * scale.to(pixels) + offset.to(pixels)

    def _normalisation(self, processor: Any) -> tuple[Tensor, Tensor]:
        """Per channel, what a pixel is multiplied by and what is then added."""
        images = processor.image_processor
        rescale = float(images.rescale_factor) if images.do_rescale else 1.0
        mean, std = torch.zeros(3), torch.ones(3)
        if images.do_normalize:
            mean, std = torch.tensor(images.image_mean), torch.tensor(images.image_std)
        return (rescale / std)[None, :, None, None], (-mean / std)[None, :, None, None]


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
