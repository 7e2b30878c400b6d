"""`VLM`: a multimodal LLM with its processor and its family."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from unsee.errors import ModelError
from unsee.families import Family
from unsee.files import atomic_folder, combine_digests, path_text
from unsee.models.attention import pick_attention
from unsee.models.checkpoint import (
    hash_tensors,
    refuse_not_finite,
    resolve,
    stored_tensors,
    tensor_digest,
    weight_map,
)
from unsee.models.devices import pick_device, refuse_dtype
from unsee.models.file_tensors import FileTensors
from unsee.models.loading import (
    bypass_unread_layers,
    dtype_of,
    load_visual,
    load_whole,
    loading_errors,
)
from unsee.models.memory import evict_after_forward
from unsee.models.processors import (
    open_processor,
    quiet,
    require_image_token,
    save_processor,
)
from unsee.models.quantization import (
    Quantization,
    avoid_packing,
    quantization_for,
    refuse_unquantized,
    stored_quantization,
)
from unsee.models.saving import save_model
from unsee.models.self_check import require_laws
from unsee.models.validation import check_checkpoint, family_in
from unsee.types import Batch, Picture, Sample

if TYPE_CHECKING:
    from PIL import Image


TOKENIZER_LOCK = threading.Lock()  # fast tokenizers are not thread-safe


@dataclass
class VLM:
    """A multimodal LLM: the Hugging Face model, its processor and its family.

    Attributes:
        model: The Hugging Face model.
        processor: The Hugging Face processor.
        family: The family of the checkpoint, which handles what differs between models.
        source: The folder that it was loaded from.
        visual_only: True if the language part was not loaded (it is on the meta device).
        quantization: How its weights are quantized; None if they are not. Quantized weights
            cannot be trained.

    Example:
        >>> VLM.load(pocket.checkpoint("target"))
        VLM(LlavaForConditionalGeneration, family=llava, parameters=..., device=cpu, source='...')
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
        parts += [f"device={self.device}", f"source={str(self.source)!r}"]
        return f"VLM({', '.join(parts)})"

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        visual_only: bool = False,
        trust_remote_code: bool = False,
        dtype: str | torch.dtype = "auto",
        device: str = "cpu",
        load_in: str | None = None,
        check: bool = True,
    ) -> VLM:
        """Loads a checkpoint from a folder or from the Hugging Face hub.

        Args:
            source: A folder in the Hugging Face layout, or a hub id such as "owner/name" or
                "owner/name@v1.0".
            revision: The branch, tag or commit of a hub id that names none.
            visual_only: Load the visual part only; language-model weights are not read.
            trust_remote_code: Allow the checkpoint's own Python code to run.
            dtype: The dtype of the weights; "auto" is what config.json says.
            device: "cpu", "cuda", or "auto" for a GPU where there is one.
            load_in: "8bit" or "4bit" quantizes the linear layers; the model can then be evaluated
                but not trained.
            check: Check a type without a file in unsee/families by the laws of families, once.

        Raises:
            ConfigError: If the device or the quantization library is not available.
            ModelError: If the checkpoint is missing, of an unknown family, pickled, incomplete, or
                lacks its processor.
        """
        device = pick_device(device)
        requested = quantization_for(load_in) if load_in else None
        folder = resolve(source, revision)
        config = check_checkpoint(
            folder, whole=not visual_only, trust_remote_code=trust_remote_code
        )
        family = family_in(config, folder)
        stored = stored_quantization(config)
        quantization = requested or stored
        if visual_only and quantization:
            raise ModelError(f"model {folder}: quantized weights are loaded as a whole only.")
        if requested and stored:
            raise ModelError(
                f"model {folder} is quantized already ({stored.library}): leave out load_in."
            )
        processor = open_processor(folder, config["model_type"], family, trust_remote_code)
        with quiet(), loading_errors(folder):
            model_config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
            require_image_token(folder, family, processor, model_config)
            compute_dtype = dtype_of(model_config, dtype) or torch.float32
            if not stored:
                refuse_dtype(compute_dtype, device)
            if visual_only:
                model = load_visual(
                    folder, family, model_config, compute_dtype, device, trust_remote_code
                )
            else:
                options: dict[str, Any] = {}
                if quantization:
                    # Quantized weights cannot be moved once they are loaded.
                    options["device_map"] = {"": device}
                if requested:
                    options["quantization_config"] = requested.config(compute_dtype)
                model = load_whole(folder, family, dtype, trust_remote_code, options)
        if requested:
            refuse_unquantized(model, requested)
        if quantization:
            avoid_packing(model)
        elif not visual_only and device != "cpu":
            model = model.to(device)
        model.eval()
        pick_attention(model)
        bypass_unread_layers(model, family)
        if check and not quantization:
            require_laws(model, processor, family, str(folder), visual_only)
        return cls(model, processor, family, folder, visual_only, quantization)

    @property
    def device(self) -> torch.device:
        """The device of the visual part."""
        return next(iter(self.parameters("visual").values())).device

    @property
    def answers_questions(self) -> bool:
        """Whether it can be asked: with a language part, and not an image encoder."""
        return self.family.answers_questions and not self.visual_only

    @property
    def end_token_ids(self) -> list[int]:
        """The tokens at which an answer ends: the configured ones, and that of the training."""
        configured = self.model.generation_config.eos_token_id
        listed = configured if isinstance(configured, list) else [configured]
        end = self.family.answer_end(self.processor).token
        return sorted({end, *(token for token in listed if token is not None)})

    def parameters(self, part: str = "all") -> dict[str, nn.Parameter]:
        """The parameters of a part, by name; see `unsee.types.Part`."""
        prefixes = self.family.parts.prefixes(part)
        return {n: p for n, p in self.model.named_parameters() if n.startswith(prefixes)}

    def collate(
        self,
        samples: Sequence[Sample],
        with_answer: bool = True,
        transform: Callable[[Image.Image], Image.Image] | None = None,
    ) -> Batch:
        """Samples as a batch on the model's device.

        Args:
            samples: The rows of the batch.
            with_answer: True to train or score, False to generate.
            transform: Applied to every opened picture, such as an augmentation.
        """
        images = [self.image(picture) for s in samples for picture in s.pictures]
        if transform is not None:
            images = [transform(image) for image in images]
        with TOKENIZER_LOCK:
            batch = self.family.collate(self.processor, samples, with_answer, images)
        return self.move(batch)

    def collate_pictures(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Images as the inputs of the visual part, on the model's device."""
        inputs = self.family.collate_pictures(self.processor, images)
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    def visual_inputs(self, batch: Batch) -> dict[str, Tensor]:
        """The inputs of a batch that its visual part reads."""
        return self.family.visual_inputs(self.model, batch.inputs)

    def image(self, picture: Picture) -> Image.Image:
        """The decoded picture; small ones are cached, so that a loop decodes them once."""
        image = self._pixels.get(picture.source)
        if image is None:
            image = picture.open()
            if image.width * image.height <= 128 * 128 and len(self._pixels) < 4096:
                self._pixels[picture.source] = image
        return image

    def drop(self, picture: Picture) -> None:
        """Removes the decoded pixels of a picture from memory, if they are cached."""
        self._pixels.pop(picture.source, None)

    def move(self, batch: Batch) -> Batch:
        """The batch on the model's device."""
        if self.device.type == "cpu":
            return batch
        inputs = {name: tensor.to(self.device) for name, tensor in batch.inputs.items()}
        return replace(batch, inputs=inputs, labels=batch.labels.to(self.device))

    def logits(self, batch: Batch) -> Tensor:
        """Next-token logits [batch, seq, vocab] of a batch."""
        return self.family.logits(self.model, batch.inputs)

    def embed_text(self, texts: Sequence[str]) -> Tensor | None:
        """Texts in the space of the pictures' embeddings [texts, dim]; None without a text tower.

        None also if the text tower was not loaded.
        """
        if self.visual_only:
            return None
        return self.family.embed_text(self.model, self.processor, texts)

    def frozen_copy(self, own: Iterable[str] | None = None) -> VLM:
        """A copy that takes no gradient, to be used as a teacher.

        Args:
            own: The names of the parameters that are copied; None copies all of them. The others
                are shared with this model, so they must not be trained.
        """
        parameters = self.parameters()
        copied = set(parameters if own is None else own)
        shared = {n: p for n, p in parameters.items() if n not in copied}
        memo = {id(parameter): parameter for parameter in shared.values()}
        teacher = replace(self, model=copy.deepcopy(self.model, memo))
        for name, parameter in teacher.parameters().items():
            if name not in shared:
                parameter.requires_grad_(False)
                # The teacher keeps the memory-mapped weights, because it never writes to them.
                parameter.data, parameters[name].data = parameters[name].data, parameter.data
        teacher.model.eval()
        return teacher

    def evict_after_forward(self) -> None:
        """Drops the visual weights from memory after every forward pass of the visual part.

        They are read from their file again when they are needed; they must not change any more.
        """
        last = self.model.get_submodule(self.family.visual_layers(self.model)["projector"])
        evict_after_forward(self.parameters("visual").values(), last)

    def copy(self) -> VLM:
        """A copy of the model with weights of its own."""
        return replace(self, model=copy.deepcopy(self.model))

    def frozen_visual_copy(self) -> VLM:
        """A frozen copy that shares the language part, so that no second LLM is in memory."""
        return self.frozen_copy(self.parameters("visual"))

    def hash(self, part: str = "all") -> str:
        """SHA-256 over the names, dtypes, shapes and bytes of a part's tensors, in name order.

        For a quantized model, the hash of the weights that were quantized.
        """
        if self.quantization is None:
            return hash_tensors(self.parameters(part))
        files = weight_map(self.source)
        tensors = stored_tensors(files, {name: name for name in files})
        dtype = None
        if self.quantization.load_in:
            tensors = FileTensors(self.family, files, list(self.parameters(part))).loaded()
            dtype = self.model.dtype
        return combine_digests({name: tensor_digest(t.to(dtype)) for name, t in tensors})

    def refuse_training(self) -> None:
        """Refuses to train quantized weights.

        Raises:
            ModelError: If the weights are quantized.
        """
        if self.quantization is not None:
            raise ModelError(
                f"model {self.source} is quantized ({self.quantization.library}), and quantized "
                "weights can be evaluated, not trained or unlearned. Load it without load_in, or "
                "give the checkpoint that it was quantized from."
            )

    def save(self, folder: str | Path) -> None:
        """Writes model and processor in the Hugging Face layout, atomically, and opens them again.

        The files of the checkpoint that it was loaded from are kept as they are, but for weights.

        Raises:
            ModelError: If the language part was not loaded, the disk is full, or transformers
                cannot open what was written.
            TrainingError: If a weight is not finite.
        """
        if self.visual_only:
            raise ModelError(
                "only the visual part is loaded; save a patch (--save patch), then `unsee apply`."
            )
        if self.quantization is None:
            refuse_not_finite(self.parameters(), "the model was not saved")
        folder = Path(path_text("folder=", folder, "give a folder to write.", ModelError))
        with atomic_folder(folder) as partial, quiet():
            if self.quantization is None:
                save_model(self.model, self.processor, self.family, self.source, partial)
            else:
                self.model.save_pretrained(partial)
                save_processor(self.processor, self.source, partial)
