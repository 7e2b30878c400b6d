"""A checkpoint as unsee reads it: parts, layers, sizes, laws, and what a run would take here."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from unsee.errors import ModelError, counted
from unsee.families.outputs import layer_tensor
from unsee.losses import sequence_nll
from unsee.models.checkpoint import resolve
from unsee.models.self_check import ANSWER, Check, Subject, self_check
from unsee.models.vlm import VLM

# Width and height, in pixels, of the pictures whose tokens are counted.
SIZES = ((224, 224), (336, 336), (640, 480), (1024, 768))
# Adam keeps two moments of each trained weight beside its gradient.
PER_TRAINED = 3


@dataclass(frozen=True)
class PartSize:
    """The size of a part of a model.

    Attributes:
        parameters: The number of its weights.
        bytes: What they take in memory as they are loaded.
        tensors: The number of its tensors.
    """

    parameters: int
    bytes: int
    tensors: int


@dataclass(frozen=True)
class Expected:
    """Memory and time of one kind of run, for one picture at a time.

    Attributes:
        memory: Weights, gradients and Adam's moments, in bytes; activations come on top.
        seconds: One step on one picture with a question, as measured here; None if it failed.
    """

    memory: int
    seconds: float | None


@dataclass(frozen=True)
class Diagnosis:
    """A checkpoint as unsee reads it.

    Attributes:
        model: The checkpoint.
        model_type: The type that its config.json names.
        model_class: The class of transformers.
        family: The family; "generic" if the parts were found.
        parts: The size of every part, by name.
        visual_layers: The visual layers, by name.
        visual_mlps: The number of encoder blocks whose MLP was found.
        language_blocks: The number of the LLM's blocks.
        lora_layers: The number of layers of the language part that LoRA adapts.
        lora_targets: The regular expression of their names.
        picture_tokens: The tokens that the LLM reads of a picture, by its size; None where they
            cannot be counted.
        expected: What runs take, by kind: "evaluate", "visual" and "all" (what is trained); of an
            encoder there is no "all", as its text tower is never trained.
        checks: The laws, and whether they hold.
    """

    model: str
    model_type: str
    model_class: str
    family: str
    parts: dict[str, PartSize]
    visual_layers: tuple[str, ...]
    visual_mlps: int
    language_blocks: int
    lora_layers: int
    lora_targets: str
    picture_tokens: dict[str, int | None]
    expected: dict[str, Expected]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every law holds."""
        return all(check.passed for check in self.checks)

    def describe(self) -> str:
        """All of it as text."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        found = "found from transformers" if self.family == "generic" else "its own file"
        yield f"{self.model}: {self.model_class}, family {self.family} ({found})"
        for name, part in self.parts.items():
            size = f"{part.parameters:,} weights, {part.bytes / 1e6:,.1f} MB"
            yield f"{name}: {size} in {counted(part.tensors, 'tensor')}"
        yield f"visual layers: {_shortened(self.visual_layers)}"
        if self.language_blocks:
            adapted = counted(self.lora_layers, "linear layer")
            yield f"LLM: {counted(self.language_blocks, 'block')}; LoRA adapts {adapted} of it"
        tokens = (f"{size}: {count or 'unknown'}" for size, count in self.picture_tokens.items())
        yield f"tokens of a picture: {', '.join(tokens)}"
        for kind, text in (
            ("evaluate", "to evaluate"),
            ("visual", "to train the visual part"),
            ("all", "to train all of it"),
        ):
            if kind not in self.expected:
                continue
            wanted = self.expected[kind]
            seconds = "" if wanted.seconds is None else f", {wanted.seconds:.2f} s a picture here"
            yield f"{text}: {wanted.memory / 1e6:,.1f} MB and activations{seconds}"
        for check in self.checks:
            yield f"{'passed' if check.passed else 'FAILED'}: {check.name} ({check.detail})"


def _shortened(layers: tuple[str, ...]) -> str:
    """Names of layers, with the middle ones of a long encoder left out."""
    blocks = [name for name in layers if name.startswith("encoder.")]
    others = [name for name in layers if name not in blocks]
    if len(blocks) > 3:
        blocks = [blocks[0], "...", blocks[-1]]
    return ", ".join([*blocks, *others])


def diagnose(
    source: str | Path, *, trust_remote_code: bool = False, device: str = "cpu"
) -> Diagnosis:
    """Loads a checkpoint and says what unsee makes of it; a law that is broken is no error.

    Args:
        source: A folder in the Hugging Face layout, or a hub id.
        trust_remote_code: Allow the checkpoint's own Python code to run.
        device: "cpu", "cuda", or "auto".

    Raises:
        ModelError: If the checkpoint cannot be loaded, or its parts cannot be found.
    """
    vlm = VLM.load(resolve(source), trust_remote_code=trust_remote_code, device=device, check=False)
    asked = vlm.family.answers_questions
    checks = tuple(self_check(vlm.model, vlm.processor, vlm.family, visual_only=not asked))
    parts = {name: _size(vlm, name) for name in ("encoder", "projector", "language")}
    pattern = vlm.family.lora_targets if asked else ""
    adapted = [n for n, _ in vlm.model.named_modules() if pattern and re.fullmatch(pattern, n)]
    return Diagnosis(
        model=str(source),
        model_type=str(vlm.model.config.model_type),
        model_class=type(vlm.model).__name__,
        family=vlm.family.name,
        parts=parts,
        visual_layers=tuple(vlm.family.visual_layers(vlm.model)),
        visual_mlps=_mlps(vlm),
        language_blocks=len(vlm.family.language_layers(vlm.model)) if asked else 0,
        lora_layers=len(adapted),
        lora_targets=pattern,
        picture_tokens={
            f"{width} x {height}": _tokens(vlm, width, height) for width, height in SIZES
        },
        expected=_expected(vlm, parts),
        checks=checks,
    )


def _mlps(vlm: VLM) -> int:
    """The number of encoder blocks whose MLP is known: none in networks of any architecture."""
    try:
        return len(vlm.family.visual_mlps(vlm.model))
    except ModelError:
        return 0


def _size(vlm: VLM, part: str) -> PartSize:
    weights = vlm.parameters(part).values()
    return PartSize(sum(w.numel() for w in weights), sum(w.nbytes for w in weights), len(weights))


def _tokens(vlm: VLM, width: int, height: int) -> int | None:
    """The tokens of a picture of a size; None if the model cannot read it."""
    image = Image.new("RGB", (width, height), (127, 127, 127))
    try:
        return vlm.family.count_features(vlm.model, vlm.collate_pictures([image]))
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError):
        # The laws say what is wrong with it.
        return None


def _expected(vlm: VLM, parts: dict[str, PartSize]) -> dict[str, Expected]:
    """Memory and time of runs: the weights, and three more of each that is trained."""
    weights = sum(part.bytes for part in parts.values())
    visual = parts["encoder"].bytes + parts["projector"].bytes
    subject = Subject(vlm.model, vlm.processor, vlm.family)
    kinds: dict[str, tuple[int, set[str]]] = {
        "evaluate": (0, set()),
        "visual": (visual, set(vlm.parameters("visual"))),
    }
    if vlm.family.answers_questions:
        kinds["all"] = (weights, set(vlm.parameters("all")))
    return {
        kind: Expected(weights + PER_TRAINED * trained, _seconds(vlm, subject, names))
        for kind, (trained, names) in kinds.items()
    }


def _embedded(vlm: VLM, subject: Subject) -> Tensor:
    """The embedding of a picture, or the tokens that it is made of."""
    outputs: list[Tensor] = []
    last = vlm.model.get_submodule(vlm.family.visual_layers(vlm.model)["projector"])
    handle = last.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    try:
        vlm.family.visual_forward(vlm.model, vlm.collate_pictures(subject.images[:1]))
    finally:
        handle.remove()
    return layer_tensor(outputs[-1]).float()


def _seconds(vlm: VLM, subject: Subject, trained: Collection[str]) -> float | None:
    """The time of one pass over one picture, with gradients of what is trained.

    An encoder embeds the picture; other models are also asked a question about it.

    Args:
        vlm: The model.
        subject: It, with a picture and a question.
        trained: Names of the trained parameters.
    """
    named = dict(vlm.model.named_parameters())
    before = {name: parameter.requires_grad for name, parameter in named.items()}
    try:
        for name, parameter in named.items():
            parameter.requires_grad_(name in trained)
        begun = time.perf_counter()
        with torch.set_grad_enabled(bool(trained)):
            if vlm.family.answers_questions:
                batch = subject.batch([("Who is this?", ANSWER, subject.images[0])])
                loss = sequence_nll(vlm.logits(batch), batch.labels).mean()
            else:
                loss = _embedded(vlm, subject).square().mean()
            if trained:
                loss.backward()
        return time.perf_counter() - begun
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError):
        return None
    finally:
        for name, parameter in named.items():
            parameter.grad = None
            parameter.requires_grad_(before[name])
