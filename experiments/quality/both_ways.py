"""Losses and masks of methods as published and otherwise, on the same inputs.

    python -m experiments.quality.both_ways

Prints the tables of docs/methods.md, section "As published": the divergence of kl_min and the loss
of undial over answers or all positions of one padded batch, the weights that MMUnlearner's mask
selects with either constant, and the neurons that MANU prunes by counts or shares. The models are
pocket's: the target is the start model, the visual-retain reference stands for a student.
"""

from __future__ import annotations

import argparse

import torch

from experiments.pages import table
from unsee.benchmarks.pocket import Pocket
from unsee.features.saliency import answer_probes, ratio_masks, squared_gradients
from unsee.losses import adjusted_cross_entropy, masked_kl, position_kl
from unsee.methods.mmunlearner import EPS
from unsee.models.vlm import VLM
from unsee.recipes.components import build_method
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data, Sample

COUNT = 16
SIZES = (1e-3, 1e-5, 1e-6, 1e-7)


def losses(pocket: Pocket, teacher: VLM, data: Data) -> list[list[str]]:
    """Rows of the losses over answers and over all positions."""
    student = VLM.load(pocket.checkpoint("visual_retain"))
    mixed = [*shown(data.retain)[: COUNT // 2], *by_name(data)[: COUNT // 2]]
    with torch.no_grad():
        retain, forget = teacher.collate(mixed), teacher.collate(shown(data.forget)[:COUNT])
        known, logits = teacher.logits(retain), student.logits(retain)
        divergence = masked_kl(known, logits, retain.labels), position_kl(known, logits)
        known, logits = teacher.logits(forget), student.logits(forget)
        ids = forget.inputs["input_ids"]
        distilled = [
            adjusted_cross_entropy(known, logits, labels, 10.0) for labels in (forget.labels, ids)
        ]
    names = ("kl_min, divergence", "undial, distillation, gamma 10")
    return [
        [name, *(f"{float(value):.4f}" for value in values)]
        for name, values in zip(names, (divergence, distilled), strict=True)
    ]


def masks(teacher: VLM, data: Data) -> list[list[str]]:
    """Rows of the weights that are selected, by the size of the gradients."""
    weights = teacher.parameters("visual")
    forget, retain = (
        squared_gradients(weights, answer_probes(teacher, shown(side)[:COUNT]))
        for side in (data.forget, data.retain)
    )
    every = torch.cat([side.flatten() for side in (*forget.values(), *retain.values())])
    rows = []
    for size in SIZES:
        scale = size**2 / float(every.mean())
        sides = [{n: s * scale for n, s in side.items()} for side in (forget, retain)]
        published = ratio_masks(*sides, threshold=1.0, eps=EPS, eps_forget=EPS)
        # As before: no weight is selected at the smallest size, which `ratio_masks` refuses.
        larger = [sides[0][n] >= sides[1][n] + 1e-12 for n in sides[0]]
        before = torch.cat([mask.flatten() for mask in larger]).float()
        chosen = torch.cat([mask.flatten() for mask in published.values()])
        differing = float((chosen != before).float().mean())
        shares = [float(chosen.mean()), float(before.mean()), differing]
        rows.append([f"{size:g}", *(f"{share:.1%}" for share in shares)])
    return rows


def neurons(pocket: Pocket, data: Data) -> str:
    """A sentence on the neurons that are pruned by counts and by shares."""
    pruned = []
    for frequency in ("count", "share"):
        vlm = VLM.load(pocket.checkpoint("target"))
        build_method("manu", {"frequency": frequency}).unlearn(
            vlm, data, Trainer(TrainingSettings())
        )
        weights = vlm.parameters().items()
        pruned.append(
            {(n, int(i)) for n, w in weights if w.ndim == 2 for i in (w == 0).all(0).nonzero()}
        )
    both, counts = len(pruned[0] & pruned[1]), len(pruned[0])
    return f"manu: of {counts} neurons pruned by counts, {both} are also pruned by shares"


def shown(samples: object) -> list[Sample]:
    """The samples with a picture."""
    return [s for s in samples if s.picture is not None]  # type: ignore[attr-defined]


def by_name(data: Data) -> list[Sample]:
    """The retain samples without a picture."""
    return [s for s in data.retain if s.picture is None]


def main() -> None:
    """Prints the tables."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    pocket = Pocket.open()
    data, teacher = pocket.data(), VLM.load(pocket.checkpoint("target"))
    print(table(("loss (nats)", "tokens=answer", "tokens=all"), losses(pocket, teacher, data)))
    heads = ("size of gradients", "selected, 1e-15", "selected, 1e-12", "weights that differ")
    print(table(heads, masks(teacher, data)))
    print(neurons(pocket, data))


if __name__ == "__main__":
    main()
