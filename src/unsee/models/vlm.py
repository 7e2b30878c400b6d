"""A multimodal LLM as this package handles it: model, processor and family, and its parts."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText

from unsee.errors import ModelError, first_line
from unsee.families import Family, family_of
from unsee.files import atomic_folder, combine_digests
from unsee.models.attention import pick_attention
from unsee.models.checkpoint import (
    checkpoint_names,
    hash_tensors,
    read_config,
    resolve,
    stored_tensors,
    tensor_digest,
    weight_map,
)
from unsee.models.devices import pick_device, refuse_dtype
from unsee.models.loading import bypass_unread_layers, dtype_of, load_visual, require_all_weights
from unsee.models.memory import evict_after_forward
from unsee.models.processors import open_processor, quiet, save_processor
from unsee.models.quantization import (
    Quantization,
    avoid_packing,
    quantization_for,
    refuse_unquantized,
    stored_quantization,
)
from unsee.types import Batch, Picture, Sample

if TYPE_CHECKING:
    from PIL import Image


TOKENIZER_LOCK = threading.Lock()  # a tokenizer serves one thread at a time


@dataclass
class VLM:
    """A multimodal LLM: the Hugging Face model and processor, and the family that knows them.

    Attributes:
        model: The Hugging Face model.
        processor: Its processor.
        family: What knows its quirks.
        source: The folder it came from.
        visual_only: True if the language part was never loaded (it sits on the meta device).
        quantization: How its weights are held in fewer bits, if they are; they then stay fixed.
    """

    model: Any
    processor: Any
    family: Family
    source: Path
    visual_only: bool = False
    quantization: Quantization | None = None
    _pixels: dict[str, Image.Image] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        """One line: model class, family, size, device and source."""
        count = sum(parameter.numel() for parameter in self.model.parameters())
        parts = [type(self.model).__name__, f"family={self.family.name}", f"parameters={count:,}"]
        if self.quantization is not None:
            parts.append(f"quantized by {self.quantization.library}")
        if self.visual_only:
            parts.append("visual part only")
        return (
            f"VLM({', '.join([*parts, f'device={self.device}', f'source={str(self.source)!r}'])})"
        )

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        visual_only: bool = False,
        trust_remote_code: bool = False,
        dtype: str | torch.dtype = "auto",
        device: str = "cpu",
        load_in: str | None = None,
    ) -> VLM:
        """Loads a checkpoint from a folder, or from the hub where `source` is an id.

        Args:
            source: A folder in the Hugging Face layout, or a hub id such as "owner/name".
            visual_only: Read the visual tensors alone; files of the language part stay closed.
            trust_remote_code: Allow the checkpoint's own Python code to run.
            dtype: What to load the weights as; "auto" is what config.json says.
            device: Where to put the model: "cpu", "cuda", or "auto", a GPU where there is one.
            load_in: "8bit" or "4bit" quantizes the linear layers, to evaluate the model.

        Raises:
            ConfigError: If the device or the quantizing library is not there.
            ModelError: If it is missing, of an unknown family, pickled, incomplete, or lacks its
                processor.
        """
        device = pick_device(device)
        wanted = quantization_for(load_in) if load_in else None
        folder = resolve(source)
        config = read_config(folder)
        family = family_of(config.get("model_type", "none given"))
        stored = stored_quantization(config)
        if visual_only and (wanted or stored):
            raise ModelError(f"model {folder}: quantized weights are loaded as a whole only.")
        if wanted and stored:
            raise ModelError(
                f"model {folder} is quantized already ({stored.library}): leave out load_in."
            )
        weight_map(folder, check=not visual_only)
        processor = open_processor(folder, config["model_type"], family, trust_remote_code)
        options: dict[str, Any] = {}
        if wanted or stored:
            # Quantized weights cannot be moved once they are loaded.
            options["device_map"] = {"": device}
        with quiet():
            try:
                described = AutoConfig.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=trust_remote_code
                )
                held = dtype_of(described, dtype) or torch.float32
                if not stored:
                    refuse_dtype(held, device)
                if visual_only:
                    model = load_visual(folder, family, described, held, device, trust_remote_code)
                else:
                    if wanted:
                        options["quantization_config"] = wanted.config(held)
                    loaded: Any = AutoModelForImageTextToText.from_pretrained(
                        folder,
                        dtype=dtype,
                        use_safetensors=True,
                        local_files_only=True,
                        trust_remote_code=trust_remote_code,
                        output_loading_info=True,
                        # Reported rather than raised without a name; `refuse_gaps` refuses them.
                        ignore_mismatched_sizes=True,
                        **options,
                    )
                    model, info = loaded
                    require_all_weights(folder, info)
            except (
                OSError, ValueError, RuntimeError, SafetensorError, KeyError, ImportError,
            ) as error:  # fmt: skip
                raise ModelError(
                    f"model {folder}: cannot be loaded ({first_line(error)})."
                ) from error
        if wanted:
            refuse_unquantized(model, wanted)
        if wanted or stored:
            avoid_packing(model)
        if not options and not visual_only and device != "cpu":
            model = model.to(device)
        model.eval()
        pick_attention(model)
        bypass_unread_layers(model, family)
        return cls(model, processor, family, folder, visual_only, wanted or stored)

    @property
    def device(self) -> torch.device:
        """Where the visual part is."""
        return next(iter(self.parameters("visual").values())).device

    def parameters(self, part: str = "all") -> dict[str, nn.Parameter]:
        """Parameters of a part by name: visual, encoder, projector, language or all."""
        prefixes = self.family.parts.prefixes(part)
        return {n: p for n, p in self.model.named_parameters() if n.startswith(prefixes)}

    def collate(
        self,
        samples: Sequence[Sample],
        with_answer: bool = True,
        transform: Callable[[Image.Image], Image.Image] | None = None,
    ) -> Batch:
        """Samples to a batch on the model's device, each picture `transform`ed on the way."""
        images = [self.image(picture) for s in samples for picture in s.pictures]
        if transform is not None:
            images = [transform(image) for image in images]
        with TOKENIZER_LOCK:
            batch = self.family.collate(self.processor, samples, with_answer, images)
        return self.move(batch)

    def collate_pictures(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Images to the visual inputs alone, on the model's device."""
        inputs = self.family.collate_pictures(self.processor, images)
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    def visual_inputs(self, batch: Batch) -> dict[str, Tensor]:
        """The visual inputs of a batch alone."""
        return self.family.visual_inputs(self.model, batch.inputs)

    def image(self, picture: Picture) -> Image.Image:
        """The opened picture; small ones are kept, so that a loop decodes them once."""
        known = self._pixels.get(picture.source)
        if known is None:
            known = picture.open()
            if known.width * known.height <= 128 * 128 and len(self._pixels) < 4096:
                self._pixels[picture.source] = known
        return known

    def move(self, batch: Batch) -> Batch:
        """The batch on the model's device."""
        if self.device.type == "cpu":
            return batch
        inputs = {name: tensor.to(self.device) for name, tensor in batch.inputs.items()}
        return replace(batch, inputs=inputs, labels=batch.labels.to(self.device))

    def logits(self, batch: Batch) -> Tensor:
        """Next-token logits [batch, seq, vocab] of a batch."""
        return self.family.logits(self.model, batch.inputs)

    def frozen_copy(self, own: Iterable[str] | None = None) -> VLM:
        """A second model with equal weights that takes no gradient: a teacher.

        Args:
            own: The names of the parameters that are held twice; None is all of them. The others
                are the very same tensors, so the copy is a teacher only as long as nobody trains
                them.
        """
        mine = self.parameters()
        twice = set(mine if own is None else own)
        kept = {n: p for n, p in mine.items() if n not in twice}
        memo = {id(parameter): parameter for parameter in kept.values()}
        twin = replace(self, model=copy.deepcopy(self.model, memo))
        for name, parameter in twin.parameters().items():
            if name not in kept:
                parameter.requires_grad_(False)
                # Weights are mapped from their file: the copy that never changes stays there.
                parameter.data, mine[name].data = mine[name].data, parameter.data
        twin.model.eval()
        return twin

    def evict_after_forward(self) -> None:
        """Takes the visual weights, which never change again, out of memory after every use."""
        last = self.model.get_submodule(self.family.visual_layers(self.model)["projector"])
        evict_after_forward(self.parameters("visual").values(), last)

    def copy(self) -> VLM:
        """A second model with equal weights."""
        return replace(self, model=copy.deepcopy(self.model))

    def frozen_visual_copy(self) -> VLM:
        """A teacher that shares the language part: no second LLM is held."""
        return self.frozen_copy(self.parameters("visual"))

    def hash(self, part: str = "all") -> str:
        """SHA-256 over the names, types, shapes and bytes of a part's tensors, in name order.

        Of a quantized model, those that it was made from: the same as without quantizing.
        """
        if self.quantization is None:
            return hash_tensors(self.parameters(part))
        files = weight_map(self.source)
        keys, dtype = {name: name for name in files}, None
        if self.quantization.load_in:
            keys = checkpoint_names(self.family, files, list(self.parameters(part)))
            dtype = self.model.dtype
        return combine_digests(
            {n: tensor_digest(t.to(dtype)) for n, t in stored_tensors(files, keys)}
        )

    def refuse_training(self) -> None:
        """Refuses to train quantized weights.

        Raises:
            ModelError: If they are quantized.
        """
        if self.quantization is not None:
            raise ModelError(
                f"model {self.source} is quantized ({self.quantization.library}), and quantized "
                "weights can be evaluated, not trained, unlearned or attacked. Load it without "
                "load_in, or give the checkpoint that it was quantized from."
            )

    def save(self, folder: Path) -> None:
        """Writes model and processor in the Hugging Face layout, whole or not at all.

        Raises:
            ModelError: If the language part was never loaded, or the disk is full.
        """
        if self.visual_only:
            raise ModelError(
                "only the visual part is loaded; save a patch (--save patch), then `unsee apply`."
            )
        with atomic_folder(folder) as partial, quiet():
            self.model.save_pretrained(partial)
            save_processor(self.processor, self.source, partial)
