"""Aligns a projector with its language model's word embeddings, without running that model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unsee.benchmarks.pocket.world import Shot, World
from unsee.models.vlm import VLM
from unsee.pocket_builder.assembly import CachedTowerVLM
from unsee.training.loop import Progress, fit
from unsee.training.sampling import batch_indices
from unsee.training.settings import TrainingSettings

BATCH = 64  # pictures per step; a step is cheap because the language model is not run


LOGIT_SCALE = 10.0  # factor on cosines before the softmax


VIEW_WEIGHT = 0.3  # weight of what a picture shows; the person has weight 1


@torch.no_grad()
def calibrate_projector(vlm: VLM, tower_tokens: Mapping[str, Tensor]) -> None:
    """Initialises the projector so that its outputs have the scale of word embeddings.

    The channels of a pretrained tower differ in scale by orders of magnitude: the first layer's
    weights standardise each of them, and the second layer is scaled. Training then starts in the
    value range of the language model.

    Args:
        vlm: The model; only its projector changes.
        tower_tokens: The tower's tokens [tokens, dim] by the picture's source.
    """
    projector = vlm.model.get_submodule("model.multi_modal_projector")
    tokens = _first_pictures(tower_tokens).to(vlm.device)
    mean, spread = tokens.mean(0), tokens.std(0).clamp(min=1e-6)
    first, second = projector.linear_1, projector.linear_2
    torch.nn.init.normal_(first.weight, std=first.in_features**-0.5)
    first.weight /= spread
    first.bias.copy_(-first.weight @ mean)
    torch.nn.init.normal_(second.weight, std=second.in_features**-0.5)
    second.bias.zero_()
    _match_embedding_scale(vlm, tokens)


def align_projector(
    vlm: CachedTowerVLM,
    shots: Sequence[tuple[World, Shot]],
    settings: TrainingSettings,
    progress: Progress | None = None,
    state: Path | None = None,
) -> None:
    """Trains the projector alone to predict the person and what a picture shows.

    Every token is moved towards the word embedding of the person's name, and the mean of the tokens
    towards those of the words for what is shown, so that the language model receives tokens that it
    can repeat. The language model's own loss hardly trains this at first: guessing lowers it sooner
    than attending to faces.

    Args:
        vlm: The model; only its projector changes.
        shots: Every picture with its world; pictures of strangers train only what is shown.
        settings: Steps, learning rate and seed.
        progress: Receives every step; None reports nothing.
        state: Folder of the saved state for resuming; None saves none.
    """
    if not settings.steps:
        return
    tokens = torch.stack([vlm.tower_tokens[world.picture(shot).source] for world, shot in shots])
    who = torch.tensor([-1 if s.person is None else s.person for _, s in shots])
    names = next((w.names for w, s in shots if s.person is not None), ())
    values = {name: view.values for name, view in shots[0][0].views.items()}
    shown = {
        name: torch.tensor([options.index(shot.shows[name]) for _, shot in shots])
        for name, options in values.items()
    }
    words = {name: _embedding_directions(vlm, options) for name, options in values.items()}
    people = _embedding_directions(vlm, names) if names else None
    mean = vlm.model.get_input_embeddings().weight.detach().mean(0)
    projector = vlm.model.get_submodule("model.multi_modal_projector")

    def step(number: int) -> Mapping[str, Tensor]:
        index = torch.tensor(batch_indices(len(tokens), BATCH, number, settings.seed))
        outputs = projector(tokens[index].to(vlm.device))
        terms = {
            name: VIEW_WEIGHT * _direction_loss(outputs.mean(1) - mean, words[name], label[index])
            for name, label in shown.items()
        }
        known = who[index] >= 0
        if people is not None and bool(known.any()):
            named_tokens = outputs[known.to(vlm.device)].flatten(0, 1) - mean
            true = who[index][known].repeat_interleave(outputs.shape[1])
            terms["who"] = _direction_loss(named_tokens, people, true)
        return terms

    vlm.model.requires_grad_(False)
    fit(vlm.parameters("projector"), step, settings, folder=state, progress=progress)
    _match_embedding_scale(vlm, _first_pictures(vlm.tower_tokens).to(vlm.device))


def _embedding_directions(vlm: VLM, values: Sequence[str]) -> Tensor:
    """Unit vectors [values, dim] of the values among the centred word embeddings.

    The first token of a value is generated first and weighs most: each token has half the weight of
    the one before.
    """
    weight = vlm.model.get_input_embeddings().weight.detach()
    embeddings = []
    for value in values:
        ids = vlm.processor.tokenizer(value, add_special_tokens=False)["input_ids"]
        token_weights = 0.5 ** torch.arange(len(ids), device=weight.device)
        embeddings.append(token_weights @ weight[ids] / token_weights.sum())
    return F.normalize(torch.stack(embeddings) - weight.mean(0), dim=1)


def _direction_loss(hidden: Tensor, directions: Tensor, true: Tensor) -> Tensor:
    """Cross-entropy of scaled cosines of `hidden` [rows, dim] and `directions` [classes, dim]."""
    cosines = F.normalize(hidden, dim=1) @ directions.T
    return F.cross_entropy(LOGIT_SCALE * cosines, true.to(hidden.device))


def _first_pictures(tower_tokens: Mapping[str, Tensor]) -> Tensor:
    """The tokens of the first 256 pictures [pictures * tokens, dim], to estimate statistics."""
    return torch.cat([tokens for tokens, _ in zip(tower_tokens.values(), range(256), strict=False)])


@torch.no_grad()
def _match_embedding_scale(vlm: VLM, tokens: Tensor) -> None:
    """Scales the projector's last layer so that its outputs vary as much as word embeddings."""
    projector = vlm.model.get_submodule("model.multi_modal_projector")
    factor = vlm.model.get_input_embeddings().weight.std() / projector(tokens).std()
    projector.linear_2.weight *= factor
    projector.linear_2.bias *= factor
