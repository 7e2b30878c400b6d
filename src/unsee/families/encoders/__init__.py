"""Image encoders alone: what differs between them is in the modules of this folder.

An encoder is a model with a visual part only, whose output is an embedding of a picture. CLIP and
SigLIP have a text tower beside it, which is the "language part" here and is never trained. The
base class does what is right for a transformer of image patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import torch

from unsee.errors import ModelError
from unsee.families import ENCODERS as ENCODERS
from unsee.families import Family

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unsee.types import Batch, Sample


class Encoder(Family):
    """Base class of image encoders; subclasses override what differs.

    Attributes:
        embedding_module: The module whose output is the embedding, or the tokens that it is made
            of: the layer "projector".
        has_text_tower: Whether texts are embedded in the same space.
        text_padding: How texts are padded, as the tokenizer's `padding`.
        prefixes: What checkpoint files may write before a parameter's name, such as the prefix of
            the base model below a classifier.
        published_names: The parts of parameter names that transformers has renamed since, with what
            published checkpoint files call them.
    """

    answers_questions: ClassVar[bool] = False
    uses_chat_template: ClassVar[bool] = False
    aligned: ClassVar[bool] = True
    auto_class: ClassVar[str] = "AutoModel"
    lora_targets: ClassVar[str] = r"(?!)"
    embedding_module: ClassVar[str]
    has_text_tower: ClassVar[bool] = False
    text_padding: ClassVar[str | bool] = True
    prefixes: ClassVar[tuple[str, ...]] = ("",)
    published_names: ClassVar[Mapping[str, str]] = {}

    def image_processor(self, folder: Any, **options: Any) -> Any:
        """The image processor of a checkpoint; by default as transformers loads it.

        Args:
            folder: The checkpoint.
            **options: Options of `from_pretrained`.
        """
        from transformers import AutoImageProcessor

        return AutoImageProcessor.from_pretrained(folder, **options)

    def visual_layers(self, model: Any) -> dict[str, str]:
        """Every block, then the module that makes the embedding."""
        blocks = {f"encoder.{i}": name for i, name in enumerate(self._blocks(model))}
        return blocks | {"projector": self.embedding_module}

    def visual_mlps(self, model: Any) -> dict[str, tuple[str, str]]:
        """The first and the last linear module of every block's MLP."""
        mlps = {}
        for i, block in enumerate(self._blocks(model)):
            names = [
                f"{block}.mlp.{name}"
                for name, module in model.get_submodule(f"{block}.mlp").named_modules()
                if isinstance(module, torch.nn.Linear)
            ]
            mlps[f"encoder.{i}"] = (names[0], names[-1])
        return mlps

    def visual_forward(self, model: Any, inputs: dict[str, Tensor]) -> None:
        """Runs the encoder on inputs from `collate_pictures`."""
        model(**inputs)

    def represented(self, layer: str, output: Tensor) -> Tensor:
        """A layer's tokens; a pooled embedding [pictures, dim] is one token."""
        return output if output.dim() > 2 else output[:, None]

    def checkpoint_keys(self, name: str) -> tuple[str, ...]:
        """The name itself and the published one, after every prefix."""
        published = name
        for current, old in self.published_names.items():
            published = published.replace(current, old)
        return tuple(
            dict.fromkeys(prefix + key for prefix in self.prefixes for key in (name, published))
        )

    @torch.no_grad()
    def embed_text(self, model: Any, processor: Any, texts: Sequence[str]) -> Tensor | None:
        """The text tower's embeddings [texts, dim]; None without one."""
        if not self.has_text_tower:
            return None
        tokens = processor.tokenizer(
            list(texts),
            padding=self.text_padding,
            truncation=True,
            max_length=model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        names = ("input_ids", "attention_mask")
        inputs = {name: tokens[name].to(model.device) for name in names if name in tokens}
        output = model.get_text_features(**inputs)
        embedded: Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
        return embedded

    def collate(
        self, processor: Any, samples: Sequence[Sample], with_answer: bool, images: Sequence[Any]
    ) -> Batch:
        """Refuses questions.

        Raises:
            ModelError: Always.
        """
        self.refuse_questions()

    def refuse_questions(self) -> NoReturn:
        """Raises for whatever asks the model something.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            f"{self.name} is an image encoder, which answers no questions. Give photographs alone: "
            "`unsee unlearn --model DIR --forget photos/ --retain others/`, or `unsee audit "
            "--attack probe --model DIR --forget photos/ --retain others/` to measure it as it is."
        )

    def _blocks(self, model: nn.Module) -> list[str]:
        """The module names of the encoder's blocks: its longest `ModuleList`.

        Raises:
            ModelError: If there is none.
        """
        lists = [
            (len(module), name)
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.ModuleList) and f"{name}.".startswith(self.parts.encoder)
        ]
        if not lists:
            raise ModelError(f"the {self.name} encoder has no list of blocks.")
        count, name = max(lists)
        return [f"{name}.{i}" for i in range(count)]


def has_text_tower(model_type: object) -> bool:
    """Whether checkpoints of a `model_type` embed texts in the space of their pictures."""
    return any(
        issubclass(kind, Encoder) and kind.has_text_tower
        for _, kind in ENCODERS.items()
        if model_type in kind.model_types
    )
