"""The family of every model type without a file here: all is found from transformers itself.

The class of the model names its visual modules (`unsee.families.structure`), the processor says how
pictures and text go in, and the chat template where an answer begins. What was found is checked on
load (`unsee.models.self_check`).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from math import gcd
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from unsee.errors import ModelError, first_line, shorten
from unsee.families import FAMILIES, Family
from unsee.families.outputs import layer_tensor
from unsee.families.stored_names import StoredNames
from unsee.families.structure import FEATURES, find_structure
from unsee.losses import IGNORE
from unsee.types import Batch, Picture, Sample

if TYPE_CHECKING:
    from PIL import Image

# How many rows of `pixel_values` (tiles, patches) each picture has: kept beside a batch's inputs,
# [counts, pictures], where merging patches rounds, with those after it.
SHARES = "picture_shares"
# What the decoder reads of an answer, where an encoder reads the question.
DECODED = "decoder_input_ids"
# What a batch calls the pixels, whatever the processor and the model call them.
PIXELS = "pixel_values"
# Which tokens are of pictures; some processors write it on request only.
MARKS = "mm_token_type_ids"
# Beginning of the names of a text that a Q-Former reads beside the picture (InstructBLIP). Where
# only pictures are given it reads this question.
QFORMER, ASKED = "qformer_", "Who is this?"
# What processors raise for inputs that they do not take.
REFUSALS = (ValueError, TypeError, IndexError, AttributeError)
TEXT = (
    *("input_ids", "attention_mask", "token_type_ids", MARKS, "labels"),
    *("position_ids", "decoder_input_ids", "decoder_attention_mask"),
)
# The most special tokens that an encoder puts before a picture's patches: a class, registers.
MOST_SPECIAL = 8


@FAMILIES.register("generic", source="https://huggingface.co/docs/transformers/model_doc/auto")
class Generic(Family):
    """Any class that transformers maps to AutoModelForImageTextToText, checked on load."""

    model_types: ClassVar[tuple[str, ...]] = ()
    reuses_prefix: ClassVar[bool] = False
    is_found: ClassVar[bool] = True

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Takes a checkpoint's configuration; its parts are found when they are first needed.

        Args:
            config: The content of config.json.
        """
        self._config = json.dumps(config, sort_keys=True)
        self._flat: bool | None = None
        self._marks_types = False

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Generic:
        """See `Family.of_config`."""
        return cls(config)

    @cached_property
    def _found(self) -> _Found:
        return _find(self._config)

    def __getattr__(self, name: str) -> Any:
        """The parts and the LoRA pattern, which depend on the configuration."""
        if name in ("parts", "lora_targets"):
            return getattr(self._found.structure, name)
        raise AttributeError(name)

    def visual_layers(self, model: nn.Module) -> dict[str, str]:
        """The encoder's blocks that the projector reads, and what the LLM reads.

        The last module that writes to the LLM is "projector"; others are "deepstack.0", ...
        """
        structure = self._found.structure
        layers = {f"encoder.{i}": name for i, name in enumerate(self._blocks_read(model))}
        *further, last = structure.readers
        layers |= {f"deepstack.{i}": name for i, name in enumerate(further)}
        return layers | {"projector": last}

    def _blocks_read(self, model: Any) -> tuple[str, ...]:
        """The blocks up to the last one that the projector reads."""
        blocks = self._found.structure.blocks
        selected = getattr(model.config, "vision_feature_layer", None)
        listed = selected if isinstance(selected, list | tuple) else [selected]
        indices = [index for index in listed if isinstance(index, int)]
        if not blocks or not indices:
            return blocks
        # hidden_states[0] is the embedding, so block i's output is hidden_states[i + 1].
        last = max(index if index >= 0 else len(blocks) + 1 + index for index in indices)
        return blocks[:last] if 0 < last <= len(blocks) else blocks

    def visual_mlps(self, model: nn.Module) -> dict[str, tuple[str, str]]:
        """Two linear layers of a block of which the second reads what the first writes."""
        found = {}
        for short, name in self.visual_layers(model).items():
            pair = _mlp(model.get_submodule(name)) if short.startswith("encoder.") else None
            if pair:
                found[short] = (f"{name}.{pair[0]}", f"{name}.{pair[1]}")
        return found

    def language_layers(self, model: nn.Module) -> dict[str, str]:
        """See `Family.language_layers`; of an encoder and a decoder, the decoder's blocks."""
        home = self._found.structure.language
        count = len(list(model.get_submodule(home).children()))
        return {f"language.{i}": f"{home}.{i}" for i in range(count)}

    def visual_forward(self, model: Any, inputs: dict[str, Tensor]) -> None:
        """See `Family.visual_forward`."""
        self._image_features(model, inputs)

    def _image_features(self, model: Any, inputs: dict[str, Tensor]) -> Any:
        """The tokens that the LLM reads of pictures: a tensor, or one of each picture."""
        structure = self._found.structure
        inputs = self.model_inputs(model, inputs)
        owner = model.get_submodule(structure.owner)
        if structure.chain:
            features: Any = inputs[self._found.pixels]
            for name in structure.chain:
                features = layer_tensor(model.get_submodule(name)(features))
            return features
        reader = getattr(owner, FEATURES)
        named = inspect.signature(reader).parameters
        if PIXELS in named and self._found.pixels in inputs:
            inputs[PIXELS] = inputs.pop(self._found.pixels)
        features = reader(**{n: t for n, t in inputs.items() if n in named})
        if getattr(features, "pooler_output", None) is not None:
            features = features.pooler_output
        elif hasattr(features, "last_hidden_state"):
            features = features.last_hidden_state
        if structure.outside:
            features = model.get_submodule(structure.readers[-1])(features.flatten(0, -2))
        return features

    @torch.no_grad()
    def count_features(self, model: Any, inputs: dict[str, Tensor]) -> int | None:
        """See `Family.count_features`."""
        features = self._image_features(model, inputs)
        if isinstance(features, Tensor):
            return int(features.flatten(0, -2).shape[0])
        if features is not None and all(isinstance(tokens, Tensor) for tokens in features):
            return sum(int(tokens.flatten(0, -2).shape[0]) for tokens in features)
        return None

    def image_token_id(self, processor: Any) -> int | None:
        """None: some processors name the placeholder in texts, and not the token of features."""
        return None

    def takes_text_alone(self, processor: Any) -> bool:
        """See `Family.takes_text_alone`; the processor is tried on a text."""
        if self._found.needs_picture:
            return False
        text = self.text(processor, Sample("", "?", ""), with_answer=False)
        try:
            self.process(processor, [text], [[]], "right")
        except (ValueError, TypeError, LookupError, AttributeError):
            return False
        return True

    def visual_entry(self, model: nn.Module) -> str | None:
        """See `Family.visual_entry`."""
        return self._found.structure.entry

    def model_inputs(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Family.model_inputs`; numbers are in the dtype of the weights."""
        found = {
            name: tensor.to(model.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in inputs.items()
            if name != SHARES
        }
        if PIXELS in found:
            found[self._found.pixels] = found.pop(PIXELS)
        return found

    def logits(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """See `Family.logits`."""
        if self._found.decodes and DECODED not in inputs:
            # A text without an answer: what predicts its tokens is asked of the decoder.
            inputs = {**inputs, DECODED: inputs["input_ids"]}
        logits = super().logits(model, self.model_inputs(model, inputs))
        # Some models put a picture before the text without a token for it.
        return logits[:, -inputs[DECODED if DECODED in inputs else "input_ids"].shape[1] :]

    def visual_inputs(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """All inputs but those of the text, and each picture's share."""
        return {name: tensor for name, tensor in inputs.items() if name not in TEXT}

    def token_shares(self, inputs: dict[str, Tensor]) -> list[int]:
        """See `Family.token_shares`."""
        return [int(n) for n in inputs[SHARES][0]]

    def split(self, output: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
        """See `Family.split`; without the tokens that pad a tile to the largest one."""
        shapes, shares = inputs.get("spatial_shapes"), self.token_shares(inputs)
        if shapes is not None and output.dim() == 3 and len(output) == len(shapes) == sum(shares):
            counts = shapes.prod(-1).tolist()
            tiles = [tile[:count] for tile, count in zip(output, counts, strict=True)]
            rest = iter(tiles)
            return [torch.cat([next(rest) for _ in range(share)]) for share in shares]
        flat = output.flatten(0, -2)
        for counts in inputs[SHARES].tolist():
            if sum(counts) == len(flat):
                return list(flat.split(counts))
        if len(flat) % sum(shares):
            for counts in inputs[SHARES].tolist():
                special = _special(len(flat), counts)
                if special is not None:
                    unit = (len(flat) - special * len(counts)) // sum(counts)
                    return list(flat.split([unit * count + special for count in counts]))
        return super().split(output, inputs)

    def process(
        self,
        processor: Any,
        texts: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        side: str,
    ) -> dict[str, Tensor]:
        """See `Family.process`; pictures are given a list a row, or flat if that is refused."""
        if self._found.decodes:
            # An encoder may count positions from the left, also where answers are to be written.
            side = "right"
        nested = [list(row) for row in images]
        flat = [image for row in images for image in row]
        forms: list[list[Any]] = [flat] if self._flat else [nested, flat]
        options = {"return_mm_token_type_ids": True} if self._marks_types else {}
        for number, arranged in enumerate(forms, 1):
            try:
                outputs = self._call_processor(
                    processor, texts, arranged if flat else None, side, **options
                )
            except REFUSALS as error:
                if number < len(forms):
                    continue
                if 0 < sum(map(bool, nested)) < len(nested):
                    return self._apart(processor, texts, images, side)
                joined = self._joined(processor, texts, arranged, side) if flat else None
                if joined is None:
                    raise error
                outputs = joined
            if flat and len(texts) > 1 and self._flat is None:
                self._flat = arranged is flat and number > 1
            break
        if MARKS in self._found.taken and MARKS not in outputs and not self._marks_types:
            self._marks_types = True
            return self.process(processor, texts, images, side)
        return self._tensors(outputs)

    def _joined(
        self, processor: Any, texts: Sequence[str], images: Sequence[Any], side: str
    ) -> dict[str, Any] | None:
        """The outputs of a processor that gives pictures unlike numbers of tiles, [tiles, ...].

        The tiles of all are put into one row, as of one picture. None if the processor refuses the
        pictures for another reason.

        Args:
            processor: The checkpoint's processor.
            texts: One text per row.
            images: The images as it takes them.
            side: The side of the padding.
        """
        try:
            outputs = self._call_processor(processor, texts, images, side, return_tensors=None)
            tiles = [torch.as_tensor(t) for t in outputs[self._found.pixels]]
        except (*REFUSALS, RuntimeError):
            return None
        if not all(t.dim() == 4 and t.shape[1:] == tiles[0].shape[1:] for t in tiles):
            return None
        rest = {n: torch.as_tensor(value) for n, value in outputs.items() if not _holds_pixels(n)}
        return {**rest, self._found.pixels: torch.cat(tiles)[None]}

    def _apart(
        self,
        processor: Any,
        texts: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        side: str,
    ) -> dict[str, Tensor]:
        """The outputs of rows with and without pictures, of a processor that takes no such mixture.

        Args:
            processor: The checkpoint's processor.
            texts: One text per row.
            images: The images of each row.
            side: The side of the padding.
        """
        order = sorted(range(len(texts)), key=lambda row: not images[row])
        count = sum(map(bool, images))
        seen, told = (
            self.process(processor, [texts[r] for r in rows], [images[r] for r in rows], side)
            for rows in (order[:count], order[count:])
        )
        shape, width = seen["input_ids"].shape, max(t["input_ids"].shape[1] for t in (seen, told))
        back = torch.tensor(order).argsort()
        for name, tensor in list(seen.items()):
            if tensor.shape[:2] != shape or tensor.dim() != 2:
                continue
            value = processor.tokenizer.pad_token_id if name == "input_ids" else 0
            both = [tensor, told.get(name, torch.zeros_like(told["input_ids"]))]
            for number, part in enumerate(both):
                gap = width - part.shape[1]
                both[number] = pad(part, (0, gap) if side == "right" else (gap, 0), value=value)
            seen[name] = torch.cat(both)[back]
        return seen

    def _tensors(self, outputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """The outputs of a processor that the model takes."""
        taken = self._found.taken
        found = {}
        for name, value in outputs.items():
            if name not in taken or value is None:
                continue
            if not isinstance(value, Tensor):
                raise ModelError(
                    f"the processor writes '{name}' as {type(value).__name__}, which is no tensor, "
                    "so pictures of several sizes cannot be in one batch."
                )
            found[PIXELS if _holds_pixels(name) else name] = value
        return found

    def collate(
        self, processor: Any, samples: Sequence[Sample], with_answer: bool, images: Sequence[Any]
    ) -> Batch:
        """See `Family.collate`; also each picture's share of the rows of `pixel_values`."""
        decodes = with_answer and self._found.decodes
        batch = super().collate(processor, samples, with_answer and not decodes, images)
        if decodes:
            batch = self._answered(processor, samples, batch)
        if with_answer and any(name.startswith(QFORMER) for name in batch.inputs):
            # A Q-Former that read the answer would tell it to the LLM.
            texts = [self.text(processor, sample, with_answer=False) for sample in samples]
            asked = self.process(processor, texts, [()] * len(texts), "right")
            batch.inputs.update({n: t for n, t in asked.items() if n.startswith(QFORMER)})
        if images:
            ids = batch.inputs["input_ids"]
            if max(batch.pictures) > 1:
                ids = self._asked(processor, images)["input_ids"]
            batch.inputs[SHARES] = self._shares(processor, batch.inputs, images, ids)
        return batch

    def _answered(self, processor: Any, samples: Sequence[Sample], batch: Batch) -> Batch:
        """A batch of questions for the encoder, with what the decoder reads and writes.

        It begins with its start token, so that each token's logits predict the next one, as in a
        model without an encoder.
        """
        texts = [self.text(processor, sample, with_answer=True) for sample in samples]
        tokenized = self.tokenize_answers(processor, samples, texts)
        answers = [torch.tensor(whole[start:]) for _, whole, start in tokenized]
        labels = pad_sequence([pad(a, (1, 0), value=IGNORE) for a in answers], True, IGNORE)
        read = labels.masked_fill(labels == IGNORE, processor.tokenizer.pad_token_id)
        read[:, 0] = self._found.first
        mask = (labels != IGNORE).long()
        mask[:, 0] = 1
        inputs = {**batch.inputs, DECODED: read, "decoder_attention_mask": mask}
        return replace(batch, inputs=inputs, labels=labels)

    def collate_pictures(self, processor: Any, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """See `Family.collate_pictures`."""
        inputs = self._asked(processor, images)
        shares = self._shares(processor, inputs, images, inputs["input_ids"])
        return {n: t for n, t in inputs.items() if n not in TEXT} | {SHARES: shares}

    def _asked(self, processor: Any, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """The inputs of pictures, each asked about with the same words."""
        # Called alone, an image processor would not use the settings of its processor.
        asked = Sample("", ASKED, "", Picture("picture"))
        text = self.text(processor, asked, with_answer=False)
        return self.process(processor, [text] * len(images), [[i] for i in images], "right")

    def _shares(
        self,
        processor: Any,
        inputs: Mapping[str, Tensor],
        images: Sequence[Image.Image],
        ids: Tensor,
    ) -> Tensor:
        """Each picture's share of the tokens of a visual layer [counts, pictures]."""
        further: list[int] = []
        grids = [t for n, t in inputs.items() if "grid" in n and t.dim() == 2]
        pixels = inputs.get(PIXELS)
        packed = None if pixels is None else _packed(inputs, pixels)
        if grids and len(grids[0]) == len(images):
            counts = grids[0].prod(-1).tolist()
        elif packed is not None:
            asked = (self._asked(processor, [image])[packed] for image in images)
            counts = [int(sizes.prod(-1).sum()) for sizes in asked]
        elif pixels is None or pixels.dim() > 4:
            counts = [1] * len(images) if pixels is None else _tiles(pixels)
            if len(counts) != len(images):
                # One row a text, or all tiles in one.
                alone = (self._asked(processor, [image])[PIXELS] for image in images)
                counts = [_tiles(tiles)[0] for tiles in alone]
        elif "image_sizes" in inputs and len(pixels) == len(images):
            # Pictures are padded to the largest, and the encoder removes the padding.
            patch, merged = self._patches()
            counts = (inputs["image_sizes"] // patch).prod(-1).tolist()
            further = (inputs["image_sizes"] // (patch * merged)).prod(-1).tolist()
        elif len(pixels) == len(images) or len(images) == 1:
            counts = [1] * len(images)
        else:
            counts = [len(self._asked(processor, [image])[PIXELS]) for image in images]
        divisor = 1 if further else gcd(*counts) or 1
        rows = [[count // divisor for count in counts], further]
        rows.append(self._tokens(ids, len(images)))
        return torch.tensor([row for row in rows if row])

    def _tokens(self, ids: Tensor, pictures: int) -> list[int]:
        """The tokens of each picture in texts with one each; empty if that is not known."""
        token = self._found.image_token
        counts = [] if token is None else [n for n in (ids == token).sum(1).tolist() if n]
        return counts if len(counts) == pictures else []

    def _patches(self) -> tuple[int, int]:
        """The side of a patch in pixels, and of a token of the LLM in patches."""
        config = json.loads(self._config)
        vision = config.get("vision_config") or {}
        merged = config.get("spatial_merge_size") or vision.get("spatial_merge_size") or 1
        return int(vision.get("patch_size") or 1), int(merged)

    def stored_names(self) -> StoredNames:
        """See `Family.stored_names`."""
        return self._found.names


class _Found:
    """Facts of transformers about a configuration.

    Attributes:
        structure: The parts and layers.
        names: The names of tensors in checkpoint files.
        taken: The names of the inputs that the model takes.
        image_token: The id of the token that a picture's features replace, if one is named.
        pixels: The name of the model's input of pixels.
        decodes: Whether an encoder reads the question and a decoder writes the answer.
        first: The id of the token with which the decoder then begins.
        needs_picture: Whether the model takes no text without a picture.
    """

    def __init__(self, model: Any) -> None:
        names = inspect.signature(model.forward).parameters
        reader = getattr(model, FEATURES, None)
        further = inspect.signature(reader).parameters if reader else {}
        self.structure, self.names = find_structure(model), StoredNames(model)
        self.taken = frozenset({*names, *further})
        token = getattr(model.config, "image_token_id", None)
        self.image_token = token if isinstance(token, int) else None
        self.pixels = next((n for n in names if _holds_pixels(n)), PIXELS)
        self.decodes = bool(model.config.is_encoder_decoder) and DECODED in names
        self.first = _start_token(model) if self.decodes else 0
        pixels = names.get(self.pixels)
        required = pixels is not None and pixels.default is inspect.Parameter.empty
        self.needs_picture = required or _refuses_text(model)


@lru_cache(maxsize=16)
def _find(config: str) -> _Found:
    """The structure of the model that a configuration describes; nothing is run.

    Raises:
        ModelError: If transformers cannot build it, or does not say what reads pictures.
    """
    from transformers import AutoModelForImageTextToText
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    content = json.loads(config)
    kind = content["model_type"]
    builder: Any = AutoModelForImageTextToText
    try:
        with torch.device("meta"):
            model = builder.from_config(CONFIG_MAPPING[kind].from_dict(content))
        model.tie_weights()
    except Exception as error:
        raise ModelError(
            f"transformers cannot build a model of type '{kind}' from this config.json "
            f"({shorten(first_line(error), 200)})."
        ) from error
    return _Found(model)


def _refuses_text(model: Any) -> bool:
    """Whether a model without weights refuses a text because it is given no pixels."""
    ids = torch.zeros(1, 2, dtype=torch.long, device="meta")
    try:
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except ValueError as error:
        return PIXELS in str(error)
    except Exception:
        # Fails for want of values, which says nothing of the real model: `check_text` runs that.
        return False
    return False


def _start_token(model: Any) -> int:
    """The id of the token with which a decoder begins.

    Raises:
        ModelError: If no configuration says it.
    """
    parts = ("decoder", "text_config")
    configs = (model.config, *(getattr(model.config, part, None) for part in parts))
    for name in ("decoder_start_token_id", "bos_token_id"):
        for config in (model.generation_config, *configs):
            if isinstance(token := getattr(config, name, None), int):
                return token
    raise ModelError(
        f"config.json names no decoder_start_token_id, with which the decoder of a model of type "
        f"'{model.config.model_type}' begins. Add it, or download the checkpoint again."
    )


def _holds_pixels(name: str) -> bool:
    """Whether an input of a model is the pixels of pictures, by its name."""
    return name.startswith((PIXELS, "flattened_patches")) and "video" not in name


def _packed(inputs: Mapping[str, Tensor], pixels: Tensor) -> str | None:
    """The name of the sizes in patches of all tiles, where their patches are in one row."""
    for name, tensor in inputs.items():
        sizes = name.endswith(("_sizes", "_shapes")) and not name.startswith("image_")
        if sizes and tensor.dim() == 2 and len(pixels) == 1 != len(tensor):
            return name
    return None


def _special(tokens: int, counts: Sequence[int]) -> int | None:
    """How many tokens of a class or registers stand before each picture's patches; None if none do.

    Args:
        tokens: The tokens of a layer.
        counts: Each picture's patches, or a share of them.
    """
    # More would fit any number of tokens.
    most = min(MOST_SPECIAL, (sum(counts) - 1) // len(counts))
    fits = (n for n in range(1, most + 1) if (tokens - n * len(counts)) % sum(counts) == 0)
    return next((n for n in fits if tokens - n * len(counts) > 0), None)


def _tiles(pixels: Tensor) -> list[int]:
    """The number of tiles of each picture [pictures, tiles, ...]; padding tiles are all zeros."""
    return [max(1, int(n)) for n in (pixels.flatten(2) != 0).any(-1).sum(-1)]


def _mlp(block: nn.Module) -> tuple[str, str] | None:
    """The names of the (inner, outer) linear layers of a block's MLP."""
    for home, module in block.named_modules():
        linears = [(n, m) for n, m in module.named_children() if isinstance(m, nn.Linear)]
        for number, (inner, one) in enumerate(linears):
            for outer, two in linears[number + 1 :]:
                if one.out_features == two.in_features != one.in_features == two.out_features:
                    start = f"{home}." if home else ""
                    return f"{start}{inner}", f"{start}{outer}"
    return None
