"""Model families: what differs between pretrained models is in the modules of this folder.

A family says which checkpoints it handles (`model_types`), where the parts of a model are, which
layers have visual representations, and how samples become a batch. The base class does what is
right for most models.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from PIL import Image

from unsee.errors import DataError, ModelError, quoted
from unsee.losses import IGNORE
from unsee.registry import Registry
from unsee.types import Batch, Parts, Sample

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unsee.families.mmproj import Mmproj
    from unsee.families.stored_names import StoredNames

FAMILIES: Registry[type[Family]] = Registry("family", "unsee.families")
# Image encoders alone: families whose models answer no question.
ENCODERS: Registry[type[Family]] = Registry("encoder", "unsee.families.encoders")

# Names of attributes and methods of families before 0.2, which subclasses may still define.
RENAMED = {
    "adds_specials": "adds_special_tokens",
    "as_seen": "preprocessed",
    "chats": "uses_chat_template",
    "check": "check_processor",
    "nested": "nests_images",
    "resumes": "reuses_prefix",
    "shares": "token_shares",
    "spell": "tokenize_answers",
}


# Stands for an answer where only the text around it is of interest.
PROBE = "unsee"


@dataclass(frozen=True)
class AnswerEnd:
    """How the answers of a checkpoint end.

    Attributes:
        template: The chat template that this was found with.
        written: The text that the template writes after an answer.
        text: The text that ends an answer in training, up to its end token.
        token: The id of the end token.
    """

    template: str
    written: str
    text: str
    token: int


ANSWER_ENDS: WeakKeyDictionary[Any, AnswerEnd] = WeakKeyDictionary()


class Family:
    """Base class of model families; subclasses override what differs.

    Attributes:
        name: The registered name.
        source: The paper or page that describes the models.
        model_types: The values of `model_type` in config.json that it handles.
        parts: The parts of its models, as prefixes of parameter names.
        lora_targets: Regular expression of the names of the LLM's linear layers that LoRA adapts.
        aligned: Whether every picture has the same number of tokens, with token i at the same
            position in each; False with tiles or dynamic resolution.
        visual_names: Names of the visual part's inputs in a batch.
        nests_images: Whether the processor takes one list of pictures per row.
        uses_chat_template: Whether its processors must have a chat template.
        reuses_prefix: Whether the LLM's key-value cache of a picture is valid for every question
            that follows it; False with bidirectional prefix attention or cross attention.
        answers_questions: Whether its models answer questions; False for image encoders.
        auto_class: The class of transformers that builds its models from a configuration.
        model_options: Further options of that class.
        is_found: Whether the parts are found from transformers and not written down, so that they
            are checked on load.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    model_types: ClassVar[tuple[str, ...]]
    parts: ClassVar[Parts]
    lora_targets: ClassVar[str]
    aligned: ClassVar[bool] = False
    visual_names: ClassVar[tuple[str, ...]] = ("pixel_values",)
    nests_images: ClassVar[bool] = False
    uses_chat_template: ClassVar[bool] = True
    reuses_prefix: ClassVar[bool] = True
    answers_questions: ClassVar[bool] = True
    auto_class: ClassVar[str] = "AutoModelForImageTextToText"
    model_options: ClassVar[Mapping[str, Any]] = {}
    is_found: ClassVar[bool] = False

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Family:
        """The family of a checkpoint with this config.json."""
        return cls()

    def __init_subclass__(cls) -> None:
        """Accepts the old names of attributes and methods, with a warning."""
        super().__init_subclass__()
        for old in RENAMED.keys() & vars(cls).keys():
            new = RENAMED[old]
            warnings.warn(f"{cls.__name__}.{old} is now {new}", FutureWarning, stacklevel=2)
            setattr(cls, new, vars(cls)[old])

    def check_processor(self, processor: Any) -> None:
        """Refuses a processor with settings that the family does not support.

        Raises:
            ModelError: If a setting is not supported.
        """

    def visual_layers(self, model: nn.Module) -> dict[str, str]:
        """The module whose output each visual representation is, by the layer's short name.

        In order from input to output: "encoder.0", ..., "projector". Layers with other names feed
        the LLM directly, without going through the projector.
        """
        raise NotImplementedError

    def represented(self, layer: str, output: Tensor) -> Tensor:
        """The part of a layer's output [pictures, tokens, dim] that is compared; by default all.

        Args:
            layer: The layer's short name.
            output: The output; [pictures, dim] of a layer that pools.
        """
        return output

    def pooled(self, layer: str, tokens: Tensor) -> Tensor:
        """A picture's features [tokens, dim] at a layer as one vector: the mean over its tokens.

        Args:
            layer: The layer's short name.
            tokens: The features.
        """
        return tokens.flatten(0, -2).mean(0)

    def embed_text(self, model: Any, processor: Any, texts: Sequence[str]) -> Tensor | None:
        """Texts in the space of the pictures' embeddings [texts, dim]; None without a text tower.

        Args:
            model: The Hugging Face model.
            processor: The checkpoint's processor.
            texts: The texts.
        """
        return None

    def unread_layers(self, model: nn.Module) -> list[str]:
        """Names of encoder modules whose output is not used, so that they need not run."""
        return []

    def visual_mlps(self, model: nn.Module) -> dict[str, tuple[str, str]]:
        """The names of the (inner, outer) linear modules of each encoder layer's MLP."""
        raise NotImplementedError

    def language_layers(self, model: nn.Module) -> dict[str, str]:
        """The module name of every block of the LLM, by short name: "language.0", ...

        The blocks are the longest `ModuleList` in the language part.

        Raises:
            ModelError: If the language part has no `ModuleList`.
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
        """Runs only the visual part, on inputs from `collate_pictures`."""
        model.get_image_features(**inputs)

    @torch.no_grad()
    def count_features(self, model: Any, inputs: dict[str, Tensor]) -> int | None:
        """The number of image tokens that the LLM gets for pictures.

        None if pictures do not take the place of tokens.

        Args:
            model: The Hugging Face model.
            inputs: From `collate_pictures`.
        """
        outputs: list[Tensor] = []
        projector = model.get_submodule(self.visual_layers(model)["projector"])
        handle = projector.register_forward_hook(lambda _m, _i, output: outputs.append(output))
        try:
            self.visual_forward(model, inputs)
        finally:
            handle.remove()
        return sum(output.flatten(0, -2).shape[0] for output in outputs)

    def placeholder(self, processor: Any) -> str | None:
        """The text that stands for a picture; None is the image token that config.json names."""
        return None

    def image_token_id(self, processor: Any) -> int | None:
        """The id of the token that the model replaces by a picture's features, if it is known."""
        token = getattr(processor, "image_token_id", None)
        return token if type(token) is int else None

    def takes_text_alone(self, processor: Any) -> bool:
        """Whether its models answer questions without a picture."""
        return True

    def visual_entry(self, model: nn.Module) -> str | None:
        """The module with which a pass over pictures begins, where layers run once a picture."""
        return None

    def model_inputs(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inputs of a batch that the model itself takes; by default all."""
        return inputs

    def logits(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Next-token logits [batch, seq, vocab] of a batch."""
        logits: Tensor = model(**inputs, use_cache=False).logits
        return logits

    def positions(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Position ids of a batch's tokens: [batch, seq], or [axes, batch, seq] with axes."""
        return (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)

    def hidden(self, model: Any, inputs: dict[str, Tensor], module: str) -> Tensor:
        """The output [batch, seq, dim] of a module of the LLM for a batch.

        Args:
            model: The Hugging Face model.
            inputs: The inputs of the batch.
            module: The module's name.
        """
        outputs: list[Tensor] = []

        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            outputs.append(output if isinstance(output, torch.Tensor) else output[0])

        handle = model.get_submodule(module).register_forward_hook(keep)
        try:
            self.logits(model, inputs)
        finally:
            handle.remove()
        return outputs[-1]

    def visual_inputs(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inputs of a batch that the visual part and `token_shares` read."""
        return {name: inputs[name] for name in self.visual_names if name in inputs}

    def token_shares(self, inputs: dict[str, Tensor]) -> list[int]:
        """Each picture's relative share of the tokens of a visual layer, as whole numbers.

        A layer's output, flattened to [tokens, dim], holds picture after picture. The shares are
        unequal with tiles or dynamic resolution.
        """
        return [1] * len(inputs["pixel_values"])

    def split(self, output: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
        """A visual layer's output as one tensor [tokens, dim] per picture; see `token_shares`.

        Raises:
            ModelError: If the number of tokens does not match the shares.
        """
        shares = self.token_shares(inputs)
        flat = output.flatten(0, -2)
        unit, rest = divmod(len(flat), sum(shares))
        if rest:
            raise ModelError(
                f"{len(flat)} tokens of a visual layer cannot be divided into {sum(shares)} equal "
                f"shares: the family '{self.name}' does not fit this model."
            )
        return list(flat.split([unit * share for share in shares]))

    def mmproj(self, model: Any, processor: Any) -> Mmproj | None:
        """How llama.cpp reads the visual part; None if it is not known to.

        Args:
            model: The Hugging Face model.
            processor: The checkpoint's processor.

        Raises:
            ModelError: If llama.cpp reads the family, but not with this checkpoint's settings.
        """
        return None

    def checkpoint_keys(self, name: str) -> tuple[str, ...]:
        """The tensor names that checkpoint files may use for parameter `name`."""
        return (name,)

    def stored_names(self) -> StoredNames | None:
        """How transformers renames the tensors of files; None where `checkpoint_keys` says it."""
        return None

    def messages(self, sample: Sample, with_answer: bool) -> list[dict[str, Any]]:
        """A sample as chat messages, in the format of the processors' chat templates."""
        content = [{"type": "image"} for _ in sample.pictures]
        content.append({"type": "text", "text": sample.question})
        chat: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if with_answer:
            answer = [{"type": "text", "text": sample.turn}]
            chat.append({"role": "assistant", "content": answer})
        return chat

    def text(self, processor: Any, sample: Sample, with_answer: bool) -> str:
        """A sample as text, by the model's own chat template.

        An answer ends with its end token: that of the template, or the tokenizer's eos token if the
        template writes none. White space that the template writes after the answer or its end token
        is removed, because the model is not trained on it. With `prefill` and without the answer,
        the text ends after the prefill.

        Args:
            processor: The checkpoint's processor.
            sample: The sample.
            with_answer: Whether the text includes the answer; otherwise it ends before it.

        Raises:
            ModelError: If answers have no end token, or the template leaves answers out.
        """
        end = self.answer_end(processor)
        if sample.prefill and not with_answer:
            prefilled = self.text(processor, replace(sample, answer=""), with_answer=True)
            begun = prefilled.removesuffix(end.text)
            return begun[: begun.rindex(sample.prefill) + len(sample.prefill)]
        text = self._rendered(processor, sample, with_answer)
        if not with_answer:
            return text
        if text.endswith(end.written):
            return text[: len(text) - len(end.written)] + end.text
        return text.rstrip("\n")

    def answer_end(self, processor: Any) -> AnswerEnd:
        """How answers end: with the template's own end token, or the tokenizer's eos token.

        The chat template of LLaVA 1.5 writes no end token, although the model is trained to write
        its eos token.

        Raises:
            ModelError: If the template writes no end token and the tokenizer has no eos token, or
                the template leaves answers out.
        """
        template = _chat_template(processor)
        known = ANSWER_ENDS.get(processor)
        if known is None or known.template != template:
            rendered = self._rendered(processor, Sample("", "?", PROBE), with_answer=True)
            if PROBE not in rendered:
                raise ModelError(
                    "the chat template writes no answer of the assistant, so the model cannot be "
                    "trained or scored. Take the template of the checkpoint's publisher."
                )
            written = rendered[rendered.rindex(PROBE) + len(PROBE) :]
            text, token = self._end_of(processor, written)
            known = ANSWER_ENDS[processor] = AnswerEnd(template, written, text, token)
        return known

    def _end_of(self, processor: Any, written: str) -> tuple[str, int]:
        """The text and the id of the end token, given what a template writes after an answer."""
        tokenizer = processor.tokenizer
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        for token in tokenizer(written, add_special_tokens=False)["input_ids"]:
            if token in special:
                return written.rstrip("\n"), token
        if tokenizer.eos_token_id is None:
            raise ModelError(
                "the chat template writes no end token after an answer, and the tokenizer has no "
                'eos token. Add one to tokenizer_config.json, such as "eos_token": "</s>".'
            )
        return written.rstrip() + tokenizer.eos_token, tokenizer.eos_token_id

    def _rendered(self, processor: Any, sample: Sample, with_answer: bool) -> str:
        """A sample as the chat template writes it."""
        return str(
            processor.apply_chat_template(
                self.messages(sample, with_answer),
                tokenize=False,
                add_generation_prompt=not with_answer,
            )
        )

    def process(
        self,
        processor: Any,
        texts: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        side: str,
    ) -> dict[str, Tensor]:
        """The processor's outputs for a batch of texts with images.

        Args:
            processor: The checkpoint's processor.
            texts: One text per row.
            images: The images of each row.
            side: The side of the padding: "left" or "right".
        """
        arranged = list(images) if self.nests_images else [image for row in images for image in row]
        return dict(self._call_processor(processor, texts, arranged if any(images) else None, side))

    def _call_processor(
        self,
        processor: Any,
        texts: Sequence[str],
        images: Sequence[Any] | None,
        side: str,
        **options: Any,
    ) -> Mapping[str, Any]:
        """The outputs of a processor, given the images as it takes them."""
        outputs: Mapping[str, Any] = processor(
            text=list(texts),
            images=images,
            padding=True,
            padding_side=side,
            add_special_tokens=self.adds_special_tokens(processor, texts),
            **{"return_tensors": "pt", **options},
        )
        return outputs

    def adds_special_tokens(self, processor: Any, texts: Sequence[str]) -> bool:
        """Whether the tokenizer must add its special tokens: not if the texts start with them."""
        bos = processor.tokenizer.bos_token
        return not (bos and all(text.startswith(bos) for text in texts))

    def tokenize_answers(
        self, processor: Any, samples: Sequence[Sample], texts: Sequence[str]
    ) -> list[tuple[list[int], list[int], int]]:
        """For each sample: token ids of the prompt, of prompt and answer, and the answer's start.

        Image placeholders are not expanded; they expand in the same way in both texts, so the
        difference between them is the answer.

        Args:
            processor: The checkpoint's processor.
            samples: The samples.
            texts: What `text` returns for the samples with their answers.

        Raises:
            DataError: If an answer has no token.
        """
        tokenizer, adds = processor.tokenizer, self.adds_special_tokens(processor, texts)
        prompts = [self.text(processor, sample, with_answer=False) for sample in samples]
        prompt_ids, whole_ids = (
            tokenizer(list(batch), add_special_tokens=adds)["input_ids"]
            for batch in (prompts, texts)
        )
        tokenized = []
        for sample, prompt, whole in zip(samples, prompt_ids, whole_ids, strict=True):
            shared = next(
                (i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b),
                min(len(prompt), len(whole)),
            )
            if len(whole) <= shared:
                raise DataError(f"sample {sample.id}: its answer '{sample.answer}' is empty.")
            tokenized.append((prompt, whole, shared))
        return tokenized

    def collate(
        self, processor: Any, samples: Sequence[Sample], with_answer: bool, images: Sequence[Any]
    ) -> Batch:
        """Samples as a batch; labels cover exactly the answers, including the end token.

        Args:
            processor: The checkpoint's processor.
            samples: The rows of the batch, with or without pictures.
            with_answer: True to train or score (padded on the right), False to generate (padded on
                the left).
            images: The decoded pictures of all samples, in order.

        Raises:
            DataError: If an answer has no token.
        """
        texts = [self.text(processor, sample, with_answer) for sample in samples]
        side = "right" if with_answer else "left"
        remaining = iter(images)
        rows = [[next(remaining) for _ in sample.pictures] for sample in samples]
        inputs = self.process(processor, texts, rows, side)
        labels = torch.full_like(inputs["input_ids"], IGNORE)
        if with_answer:
            tokenized = self.tokenize_answers(processor, samples, texts)
            for row, (_, whole, answer_start) in enumerate(tokenized):
                end = int(inputs["attention_mask"][row].sum())
                start = end - len(whole) + answer_start
                labels[row, start:end] = inputs["input_ids"][row, start:end]
        return Batch(
            inputs,
            labels,
            tuple(sample.id for sample in samples),
            tuple(len(sample.pictures) for sample in samples),
        )

    def collate_pictures(self, processor: Any, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Images as the inputs of the visual part, for `visual_forward`."""
        arranged = [[image] for image in images] if self.nests_images else list(images)
        outputs = processor.image_processor(images=arranged, return_tensors="pt")
        return {name: outputs[name] for name in self.visual_names if name in outputs}

    def preprocessed(self, processor: Any, image: Image.Image) -> Image.Image:
        """The picture as the model receives it: resized and cropped, with 8 bits per channel.

        Raises:
            ModelError: If the processor does not turn a picture into a single normalised grid of
                pixels, but into tiles or packed patches.
        """
        values = self.collate_pictures(processor, [image])["pixel_values"].float()
        refused = ModelError(
            f"the processor of family '{self.name}' makes no plain grid of pixels from a picture "
            "(but tiles, packed patches, or padding), so pixels cannot be traced to the model's "
            "inputs."
        )
        if values.dim() != 4 or values.shape[:2] != (1, 3):
            raise refused
        scale, offset = self._normalisation(processor)
        pixels = ((values - offset) / scale).round().clamp(0, 255)
        grid = Image.fromarray(pixels[0].permute(1, 2, 0).to(torch.uint8).numpy())
        again = self.collate_pictures(processor, [grid])["pixel_values"].float()
        if again.shape != values.shape or not torch.allclose(
            again, self.pixel_values(processor, pixels), atol=1e-4
        ):
            raise refused
        return grid

    def pixel_values(self, processor: Any, pixels: Tensor) -> Tensor:
        """The model's `pixel_values` for pixels in 0..255, differentiably.

        Equal to the processor's output for pictures from `preprocessed`.

        Args:
            processor: The checkpoint's processor.
            pixels: [pictures, 3, height, width].
        """
        scale, offset = self._normalisation(processor)
        return pixels * scale.to(pixels) + offset.to(pixels)

    def _normalisation(self, processor: Any) -> tuple[Tensor, Tensor]:
        """Scale and offset per channel [1, 3, 1, 1]: normalised = pixel * scale + offset."""
        images = processor.image_processor
        rescale = float(images.rescale_factor) if images.do_rescale else 1.0
        mean, std = torch.zeros(3), torch.ones(3)
        if images.do_normalize:
            mean, std = torch.tensor(images.image_mean), torch.tensor(images.image_std)
        return (rescale / std)[None, :, None, None], (-mean / std)[None, :, None, None]


def _chat_template(processor: Any) -> str:
    return str(getattr(processor, "chat_template", None) or processor.tokenizer.chat_template)


def is_encoder(model_type: object) -> bool:
    """Whether checkpoints of a `model_type` are image encoders, which answer no questions."""
    return any(model_type in family.model_types for _, family in ENCODERS.items())


def family_of(model_type: str, config: Mapping[str, Any] | None = None) -> Family:
    """The family that handles a `model_type`.

    Args:
        model_type: The `model_type` of a config.json.
        config: The content of that file, from which the parts of a type without a file in
            unsee/families are found; None takes only types with one.

    Raises:
        ModelError: If none does; the message lists the known types.
    """
    known: list[str] = []
    for _, family in (*FAMILIES.items(), *ENCODERS.items()):
        if model_type in family.model_types:
            return family.of_config(config or {})
        known += family.model_types
    if config is not None and model_type in _types_of_transformers():
        return FAMILIES.get("generic").of_config(config)
    raise ModelError(
        f"no family takes checkpoints of type {quoted(model_type)}. Known types: "
        f"{', '.join(sorted(known))}, and all that transformers maps to "
        "AutoModelForImageTextToText. A family is one file in unsee/families (CONTRIBUTING.md)."
    )


def _types_of_transformers() -> Collection[str]:
    """The types that the installed transformers maps to AutoModelForImageTextToText."""
    from transformers.models.auto import modeling_auto

    return modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.keys()
