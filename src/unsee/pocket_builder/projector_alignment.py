"""Fitting a projector to its language model, before and without running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unsee.benchmarks.pocket.world import Shot, World
from unsee.models.vlm import VLM
from unsee.pocket_builder.assembly import Rehearsal
from unsee.training.loop import Progress, fit
from unsee.training.sampling import batch_indices
from unsee.training.settings import TrainingSettings

BATCH = 64  # pictures a step: no language model runs, so a step costs little


SHARP = 10.0  # what a cosine is multiplied by


SHOWN = 0.3  # weight of what a picture shows; who is on it weighs 1


@torch.no_grad()
def calibrate(vlm: VLM, seen: Mapping[str, Tensor]) -> None:
    """Scales the untrained projector so that its tokens are about as long as words' embeddings.

    A pretrained tower's channels differ in size by orders of magnitude: each is standardised in the
    first layer's weights. Then the second is scaled. Learning starts in the LLM's own range.
    """
    projector = vlm.model.get_submodule("model.multi_modal_projector")
    some = _some(seen).to(vlm.device)
    mean, spread = some.mean(0), some.std(0).clamp(min=1e-6)
    first, second = projector.linear_1, projector.linear_2
    torch.nn.init.normal_(first.weight, std=first.in_features**-0.5)
    first.weight /= spread
    first.bias.copy_(-first.weight @ mean)
    torch.nn.init.normal_(second.weight, std=second.in_features**-0.5)
    second.bias.zero_()
    _as_long_as_words(vlm, some)


def align(
    vlm: Rehearsal,
    shots: Sequence[tuple[World, Shot]],
    settings: TrainingSettings,
    progress: Progress | None = None,
    state: Path | None = None,
) -> None:
    """Teaches the projector alone to say who and what is on a picture in the LLM's own words.

    Every token shall point where the person's name does among the word embeddings, and their mean
    where the words for what is shown do. The LLM then finds what it can repeat. Where pictures only
    differ from person to person, its loss hardly teaches it to look: guessing lowers it first.

    Args:
        vlm: The model; only its projector changes.
        shots: Every picture and the world it is from; strangers' say only what they show.
        settings: Steps, rate and seed.
        progress: Told about every step.
        state: Where to keep the resumable state.
    """
    if not settings.steps:
        return
    tokens = torch.stack([vlm.seen[world.picture(shot).source] for world, shot in shots])
    who = torch.tensor([-1 if s.person is None else s.person for _, s in shots])
    names = next((w.names for w, s in shots if s.person is not None), ())
    values = {name: view.values for name, view in shots[0][0].views.items()}
    shown = {
        name: torch.tensor([some.index(shot.shows[name]) for _, shot in shots])
        for name, some in values.items()
    }
    words = {name: _directions(vlm, some) for name, some in values.items()}
    people = _directions(vlm, names) if names else None
    mean = vlm.model.get_input_embeddings().weight.detach().mean(0)
    projector = vlm.model.get_submodule("model.multi_modal_projector")

    def step(number: int) -> Mapping[str, Tensor]:
        index = torch.tensor(batch_indices(len(tokens), BATCH, number, settings.seed))
        made = projector(tokens[index].to(vlm.device))
        terms = {
            name: SHOWN * _pointing(made.mean(1) - mean, words[name], label[index])
            for name, label in shown.items()
        }
        known = who[index] >= 0
        if people is not None and bool(known.any()):
            each = made[known.to(vlm.device)].flatten(0, 1) - mean
            true = who[index][known].repeat_interleave(made.shape[1])
            terms["who"] = _pointing(each, people, true)
        return terms

    vlm.model.requires_grad_(False)
    fit(vlm.parameters("projector"), step, settings, folder=state, progress=progress)
    _as_long_as_words(vlm, _some(vlm.seen).to(vlm.device))


def _directions(vlm: VLM, values: Sequence[str]) -> Tensor:
    """Where values lie among the word embeddings, as unit vectors [values, dim].

    A value's first token weighs most, since that is said first: each weighs half of the one before.
    """
    weight = vlm.model.get_input_embeddings().weight.detach()
    found = []
    for value in values:
        ids = vlm.processor.tokenizer(value, add_special_tokens=False)["input_ids"]
        shares = 0.5 ** torch.arange(len(ids), device=weight.device)
        found.append(shares @ weight[ids] / shares.sum())
    return F.normalize(torch.stack(found) - weight.mean(0), dim=1)


def _pointing(hidden: Tensor, directions: Tensor, true: Tensor) -> Tensor:
    """Cross-entropy of the cosines between `hidden` [rows, dim] and `directions` [classes, dim]."""
    cosines = F.normalize(hidden, dim=1) @ directions.T
    return F.cross_entropy(SHARP * cosines, true.to(hidden.device))


def _some(seen: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tokens for tokens, _ in zip(seen.values(), range(256), strict=False)])


@torch.no_grad()
def _as_long_as_words(vlm: VLM, tokens: Tensor) -> None:
    projector = vlm.model.get_submodule("model.multi_modal_projector")
    factor = vlm.model.get_input_embeddings().weight.std() / projector(tokens).std()
    projector.linear_2.weight *= factor
    projector.linear_2.bias *= factor
