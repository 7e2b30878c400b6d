"""The laws of a model family as a fast check of a checkpoint: whether unsee reads it rightly.

Two small random pictures and short texts go through the model. The parts of a type without a file
in unsee/families are found and not written down, so such a type is checked on load.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from unsee.errors import ModelError, UnseeError, first_line, shorten
from unsee.families import Family
from unsee.families.outputs import join_runs, layer_tensor
from unsee.losses import IGNORE, sequence_nll
from unsee.types import Batch, Picture, Sample

# Width and height of the pictures, in pixels: of two shapes, so that sizes that vary are seen.
SHAPES = ((224, 224), (280, 168))
# The largest difference of two results that should be equal, relative to the larger.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
HALF_TOLERANCE = 0.05
# The smallest change that another picture makes.
SMALLEST = 1e-5
# What the answer of the check's question is.
ANSWER = "Ada Berg"


@dataclass(frozen=True)
class Check:
    """One law, and whether a checkpoint keeps it.

    Attributes:
        name: The law.
        passed: Whether it holds.
        detail: What was seen, or why it does not hold.
    """

    name: str
    passed: bool
    detail: str


class Subject:
    """A loaded checkpoint with what the checks share: pictures, and questions about them.

    Attributes:
        model: The Hugging Face model.
        processor: Its processor.
        family: Its family.
        images: Two pictures of noise with another shape each.
        other: Another picture of the first one's shape.
        takes_text: Whether the type answers questions without a picture.
    """

    def __init__(self, model: Any, processor: Any, family: Family) -> None:
        self.model, self.processor, self.family = model, processor, family
        self.takes_text = family.takes_text_alone(processor)
        rng = np.random.default_rng(0)
        self.images = [
            Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
            for width, height in SHAPES
        ]
        self.other = Image.fromarray(rng.integers(0, 255, (224, 224, 3), dtype=np.uint8))

    def batch(
        self, asked: Sequence[tuple[str, str, Image.Image | None]], answer: bool = True
    ) -> Batch:
        """Questions, answers and pictures as a batch on the model's device."""
        samples = [
            Sample(str(i), question, said, None if image is None else Picture(f"check {i}"))
            for i, (question, said, image) in enumerate(asked)
        ]
        images = [image for _, _, image in asked if image is not None]
        batch = self.family.collate(self.processor, samples, answer, images)
        device = self.device
        return Batch(
            {name: tensor.to(device) for name, tensor in batch.inputs.items()},
            batch.labels.to(device),
            batch.ids,
            batch.pictures,
        )

    def pictures(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Pictures as the inputs of the visual part, on the model's device."""
        inputs = self.family.collate_pictures(self.processor, images)
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    @property
    def device(self) -> torch.device:
        """The device of the visual part."""
        visual = self.family.parts.prefixes("visual")
        named = self.model.named_parameters()
        return next(iter(p.device for n, p in named if n.startswith(visual)), torch.device("cpu"))

    def same(self, one: Tensor, two: Tensor) -> bool:
        """Whether two results are equal up to rounding."""
        allowed = TOLERANCE.get(one.dtype, HALF_TOLERANCE)
        scale = max(float(one.abs().max()), float(two.abs().max()), 1e-6)
        return one.shape == two.shape and float((one - two).abs().max()) <= allowed * scale

    @contextmanager
    def outputs(self) -> Iterator[dict[str, list[Tensor]]]:
        """The outputs of every visual layer during forward passes inside the block."""
        found: dict[str, list[Tensor]] = {}
        handles = []
        for name, module in self.family.visual_layers(self.model).items():
            found[name] = []

            def keep(_module: Any, _inputs: Any, output: Any, name: str = name) -> None:
                found[name].append(layer_tensor(output))

            handles.append(self.model.get_submodule(module).register_forward_hook(keep))
        entry = self.family.visual_entry(self.model)
        if entry is not None:

            def begin(*_: Any) -> None:
                for runs in found.values():
                    runs.clear()

            handles.append(self.model.get_submodule(entry).register_forward_pre_hook(begin))
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()

    def features(self, images: Sequence[Image.Image]) -> dict[str, list[Tensor]]:
        """Each visual layer's features of every picture; only the visual part runs."""
        inputs = self.pictures(images)
        with self.outputs() as found:
            self.family.visual_forward(self.model, inputs)
        return _by_picture(self.family, found, inputs)


def _by_picture(
    family: Family, found: dict[str, list[Tensor]], inputs: dict[str, Tensor]
) -> dict[str, list[Tensor]]:
    """The outputs of visual layers as one tensor a picture.

    Raises:
        ModelError: If a layer did not run, or a block of the encoder more than once.
    """
    for name, outputs in found.items():
        if not outputs or (len(outputs) > 1 and name.startswith("encoder.")):
            raise ModelError(f"layer {name} runs {len(outputs)} times in a forward pass, not once")
    return {name: family.split(join_runs(outputs), inputs) for name, outputs in found.items()}


def check_parts(subject: Subject) -> str:
    """The parts are disjoint and cover every parameter."""
    names = [name for name, _ in subject.model.named_parameters()]
    parts = subject.family.parts
    counts = dict.fromkeys(("encoder", "projector", "language"), 0)
    for name in names:
        homes = [part for part in counts if name.startswith(parts.prefixes(part))]
        _require(len(homes) == 1, f"parameter {name} is in {len(homes)} parts: {homes}")
        counts[homes[0]] += 1
    if subject.family.answers_questions:
        _require(counts["language"] > 0, "no parameter is in the language part")
    _require(counts["encoder"] + counts["projector"] > 0, "no parameter is in the visual part")
    return ", ".join(f"{part} {count}" for part, count in counts.items())


def check_labels(subject: Subject) -> str:
    """Labels cover the answer and its end token, and nothing else."""
    asked = [("Who is this?", ANSWER, subject.images[0]), ("And who is that, then?", "Bo", None)]
    batch = subject.batch(asked[: 2 if subject.takes_text else 1])
    tokenizer = subject.processor.tokenizer
    end = subject.family.answer_end(subject.processor).token
    for row, answer in zip(batch.labels, (ANSWER, "Bo"), strict=False):
        kept = row[row != IGNORE]
        said = tokenizer.decode(kept[:-1]).strip()
        # A small vocabulary may lack the name.
        known = tokenizer.decode(tokenizer(answer, add_special_tokens=False)["input_ids"]).strip()
        _require(said == known, f"labels say {said!r} where the answer is {known!r}")
        _require(int(kept[-1]) == end, f"the last label is token {int(kept[-1])}, not {end}")
    padding = batch.inputs.get("decoder_attention_mask", batch.inputs["attention_mask"]) == 0
    _require(not bool((batch.labels[padding] != IGNORE).any()), "padding has labels")
    return f"{ANSWER!r} and token {end}"


def check_picture(subject: Subject) -> str:
    """Another picture of the same shape changes the logits of the answer."""
    logits = [_answer_logits(subject, image) for image in (subject.images[0], subject.other)]
    change = float((logits[0] - logits[1]).abs().max())
    _require(bool(torch.isfinite(logits[0]).all()), "the logits are not finite")
    _require(change > SMALLEST, "the logits of the answer are the same for two pictures")
    return f"largest change {change:.3g}"


def _answer_logits(subject: Subject, image: Image.Image) -> Tensor:
    """The logits that predict the answer [tokens, vocab]."""
    batch = subject.batch([("Who is this?", ANSWER, image)])
    logits = subject.family.logits(subject.model, batch.inputs)
    return logits[0][(batch.labels[0] != IGNORE).roll(-1)].float()


def check_layers(subject: Subject) -> str:
    """Every visual layer runs once for pictures, sees them, and gives each picture its tokens."""
    together = subject.features([*subject.images, subject.other])
    alone = [subject.features([image]) for image in (*subject.images, subject.other)]
    for name, tokens in together.items():
        _require(len(tokens) == len(alone), f"layer {name} gives {len(tokens)} pictures, not 3")
        for one, features in zip(tokens, alone, strict=True):
            _require(
                subject.same(one, features[name][0]),
                f"layer {name} gives a picture other features in a batch {list(one.shape)} than "
                f"alone {list(features[name][0].shape)}",
            )
        change = float((tokens[0] - tokens[2]).abs().max())
        _require(change > SMALLEST, f"layer {name} is the same for two pictures")
    return f"{len(together)} layers: {', '.join(together)}"


def check_whole(subject: Subject) -> str:
    """The visual part alone gives the features that the whole model computes."""
    batch = subject.batch([("Who is this?", ANSWER, image) for image in subject.images])
    with subject.outputs() as found:
        subject.family.logits(subject.model, batch.inputs)
    inputs = subject.family.visual_inputs(subject.model, batch.inputs)
    whole = _by_picture(subject.family, found, inputs)
    alone = subject.features(subject.images)
    for name, tokens in whole.items():
        for one, two in zip(tokens, alone[name], strict=True):
            _require(subject.same(one, two), f"layer {name} differs between the two")
    return "equal"


def check_gate(subject: Subject) -> str:
    """The LLM sees a picture through the projector and the layers beside it, and no other way."""
    batch, other = (
        subject.batch([("Who is this?", ANSWER, image)])
        for image in (subject.images[0], subject.other)
    )
    with subject.outputs() as found:
        wanted = subject.family.logits(subject.model, other.inputs)
    handles, before = [], [1]
    entry = subject.family.visual_entry(subject.model)
    if entry is None:
        before.clear()
    else:
        module = subject.model.get_submodule(entry)
        handles.append(module.register_forward_pre_hook(lambda *_: before.clear()))
    for name, module in subject.family.visual_layers(subject.model).items():
        if not name.startswith("encoder."):
            runs = iter(found[name])

            def swap(_m: Any, _inputs: Any, output: Any, runs: Iterator[Tensor] = runs) -> Any:
                # Runs on text come before the picture is read, and are left as they are.
                if before:
                    return output
                seen = next(runs)
                return seen if isinstance(output, Tensor) else _replaced(output, seen)

            handles.append(subject.model.get_submodule(module).register_forward_hook(swap))
    try:
        got = subject.family.logits(subject.model, batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    _require(
        subject.same(got, wanted),
        "with the projector's output of another picture, the logits are not those of that picture",
    )
    return "logits follow the projector's output"


def _replaced(output: Any, first: Tensor) -> Any:
    """A module's output with another first tensor."""
    if type(output) is tuple:
        return (first, *output[1:])
    if isinstance(output, list):
        sizes = [tensor.flatten(0, -2).shape[0] for tensor in output]
        parts = first.flatten(0, -2).split(sizes)
        return [part.reshape(old.shape) for part, old in zip(parts, output, strict=True)]
    output[next(iter(output.keys()))] = first
    return output


def check_text(subject: Subject) -> str:
    """A question without a picture does not use the visual part."""
    if not subject.takes_text:
        return "not asked: this type answers no question without a picture"
    ran: list[str] = []
    visual = subject.family.parts.prefixes("visual")
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in subject.model.named_modules()
        if f"{name}.".startswith(visual)
    ]
    try:
        batch = subject.batch([("Where is Ada?", "At sea", None)])
        logits = subject.family.logits(subject.model, batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    _require(bool(torch.isfinite(logits).all()), "the logits are not finite")
    if ran:
        return _text_ignores(subject, batch, logits, ran)
    return f"{len(handles)} visual modules stay idle"


def _text_ignores(subject: Subject, batch: Batch, logits: Tensor, ran: Sequence[str]) -> str:
    """Refuses a text whose logits depend on visual modules that run for it."""

    def disturb(_module: Any, _inputs: Any, output: Any) -> Any:
        return torch.randn_like(output) if isinstance(output, Tensor) else output

    handles = [
        subject.model.get_submodule(name).register_forward_hook(disturb) for name in set(ran)
    ]
    try:
        disturbed = subject.family.logits(subject.model, batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    _require(
        torch.equal(logits, disturbed),
        f"{ran[0]} runs for a question without a picture, and its logits depend on that",
    )
    return f"{ran[0]} runs, and the logits do not depend on it"


def check_padding(subject: Subject) -> str:
    """A longer row in the same batch does not change the likelihood of an answer."""
    asked = ("Who is this?", ANSWER, subject.images[0])
    long = ("Who is it? " * 4, "Di " * 6, subject.images[1])
    alone, padded = (_likelihood(subject, rows) for rows in ([asked], [asked, long]))
    _require(
        subject.same(alone[:1], padded[:1]),
        f"alone {float(alone[0]):.5f}, padded {float(padded[0]):.5f} nats per token",
    )
    return f"{float(alone[0]):.3f} nats per token in both"


def _likelihood(subject: Subject, rows: Sequence[tuple[str, str, Image.Image | None]]) -> Tensor:
    batch = subject.batch(rows)
    return sequence_nll(subject.family.logits(subject.model, batch.inputs), batch.labels).float()


def check_gradient(subject: Subject) -> str:
    """The answer's likelihood has a gradient in the visual part, so that it can be trained."""
    parts, model = subject.family.parts, subject.model
    named = {n: p for n, p in model.named_parameters() if n.startswith(parts.prefixes("visual"))}
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in named)
        with torch.enable_grad():
            batch = subject.batch([("Who is this?", ANSWER, subject.images[0])])
            loss = sequence_nll(subject.family.logits(model, batch.inputs), batch.labels).mean()
            _require(loss.requires_grad, "no gradient reaches it from the likelihood of an answer")
            found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])
    reached = [n for n, g in zip(named, found, strict=True) if g is not None and bool(g.any())]
    for part in ("encoder", "projector"):
        prefixes = parts.prefixes(part)
        owned = [name for name in named if prefixes and name.startswith(prefixes)]
        _require(
            not owned or any(name.startswith(prefixes) for name in reached),
            f"no gradient reaches the {part}: pictures may become tokens of the vocabulary",
        )
    return f"{len(reached)} of {len(named)} tensors"


def check_lora(subject: Subject) -> str:
    """The LoRA pattern names linear layers of the language part."""
    language = subject.family.parts.prefixes("language")
    hit = [
        (name, module)
        for name, module in subject.model.named_modules()
        if re.fullmatch(subject.family.lora_targets, name)
    ]
    _require(bool(hit), f"the pattern {subject.family.lora_targets} matches no module")
    for name, module in hit:
        _require(isinstance(module, nn.Linear), f"{name} is no linear layer")
        _require(name.startswith(language), f"{name} is not in the language part")
    return f"{len(hit)} linear layers"


# The checks that need no language part, and all of them.
VISUAL_CHECKS: tuple[Callable[[Subject], str], ...] = (check_parts, check_layers)
CHECKS: tuple[Callable[[Subject], str], ...] = (
    *(check_parts, check_labels, check_picture, check_layers, check_whole, check_gate),
    *(check_text, check_padding, check_gradient, check_lora),
)


class _NotMetError(Exception):
    """A law that does not hold, with what was seen instead."""


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _NotMetError(otherwise)


@torch.no_grad()
def self_check(
    model: Any, processor: Any, family: Family, *, visual_only: bool = False
) -> list[Check]:
    """Runs the laws on a checkpoint; a law that cannot be tried has failed.

    Args:
        model: The Hugging Face model.
        processor: Its processor.
        family: Its family.
        visual_only: Run only what needs no language part.
    """
    subject = Subject(model, processor, family)
    return [_run(check, subject) for check in (VISUAL_CHECKS if visual_only else CHECKS)]


def _run(check: Callable[[Subject], str], subject: Subject) -> Check:
    name = (check.__doc__ or "").rstrip(".")
    try:
        return Check(name, True, check(subject))
    except (_NotMetError, UnseeError) as error:
        return Check(name, False, str(error).rstrip("."))
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {shorten(first_line(error), 200)}")


_checked: set[tuple[str, bool]] = set()


def require_laws(model: Any, processor: Any, family: Family, folder: str, visual: bool) -> None:
    """Refuses a checkpoint of a found type that breaks a law; once a folder and process.

    Args:
        model: The Hugging Face model.
        processor: Its processor.
        family: Its family; one with a file of its own is not checked.
        folder: The checkpoint.
        visual: Whether only the visual part is loaded.

    Raises:
        ModelError: If a law does not hold.
    """
    key = (folder, visual)
    if not family.is_found or key in _checked or (folder, False) in _checked:
        return
    failed = [c for c in self_check(model, processor, family, visual_only=visual) if not c.passed]
    if failed:
        kind = model.config.model_type
        more = f" ({len(failed)} checks failed)" if len(failed) > 1 else ""
        raise ModelError(
            f"model {folder}: type '{kind}' has no file in unsee/families, and what was found of "
            f"it breaks a law{more}: {failed[0].name}: {failed[0].detail}. See all of them with "
            f"`unsee doctor {folder}`; a file for the type can help (CONTRIBUTING.md)."
        )
    _checked.add(key)
