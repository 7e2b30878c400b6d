"""Fitting a projector to its language model, before and without running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unsee.benchmarks.pocket.assemble import Rehearsal
from unsee.benchmarks.pocket.world import Shot, World
from unsee.model import VLM
from unsee.train import Progress, Settings, batch_indices, fit

BATCH = 64  # pictures a step: no language model runs, so a step costs little
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
    settings: Settings,
    progress: Progress | None = None,
    state: Path | None = None,
) -> None:
    """Teaches the projector alone who and what is on a picture.

    Linear heads on the mean of its tokens say both, and are thrown away. A face that the projector
    does not tell apart the LLM's loss hardly teaches it: it is first lowered by guessing.

    Args:
        vlm: The model; only its projector changes.
        shots: Every picture and the world it is from; strangers' say only what they show.
        settings: Steps, rate and seed.
        progress: Told about every step.
        state: Where to keep the resumable state.
    """
    tokens = torch.stack([vlm.seen[world.picture(shot).source] for world, shot in shots])
    labels = {"who": torch.tensor([-1 if s.person is None else s.person for _, s in shots])}
    if not bool((labels["who"] >= 0).any()):
        del labels["who"]
    for name, view in shots[0][0].views.items():
        labels[name] = torch.tensor([view.values.index(shot.shows[name]) for _, shot in shots])
    width = vlm.model.get_input_embeddings().embedding_dim
    torch.manual_seed(settings.seed)
    heads = nn.ModuleDict({n: nn.Linear(width, 1 + int(y.max())) for n, y in labels.items()})
    heads.to(vlm.device)
    projector = vlm.model.get_submodule("model.multi_modal_projector")

    def step(number: int) -> Mapping[str, Tensor]:
        index = torch.tensor(batch_indices(len(tokens), BATCH, number, settings.seed))
        hidden = F.layer_norm(projector(tokens[index].to(vlm.device)).mean(1), (width,))
        terms = {}
        for name, label in labels.items():
            known = label[index] >= 0
            if bool(known.any()):
                true = label[index][known].to(vlm.device)
                loss = F.cross_entropy(heads[name](hidden[known.to(vlm.device)]), true)
                terms[name] = loss if name == "who" else SHOWN * loss
        return terms

    if not settings.steps:
        return
    vlm.model.requires_grad_(False)
    trained = vlm.parameters("projector") | {f"heads.{n}": p for n, p in heads.named_parameters()}
    fit(trained, step, settings, folder=state, progress=progress)
    _as_long_as_words(vlm, _some(vlm.seen).to(vlm.device))


def _some(seen: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tokens for tokens, _ in zip(seen.values(), range(256), strict=False)])


@torch.no_grad()
def _as_long_as_words(vlm: VLM, tokens: Tensor) -> None:
    projector = vlm.model.get_submodule("model.multi_modal_projector")
    factor = vlm.model.get_input_embeddings().weight.std() / projector(tokens).std()
    projector.linear_2.weight *= factor
    projector.linear_2.bias *= factor
