"""Knowledge vector weakening: its coefficients, its gate, and what it edits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from unsee.errors import ConfigError, TrainingError
from unsee.features.neurons import find_mlps, neuron_hooks
from unsee.losses import IGNORE
from unsee.methods.kvw import KVW, knowledge_coefficients, weakening
from unsee.models.vlm import VLM
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data

SETTINGS = TrainingSettings(batch_size=4)


def test_weakening_matches_hand_computation() -> None:
    """Used four times as much at gamma 0.5: a half; as much or less: unchanged."""
    factors = weakening(torch.tensor([4.0, 1.0, 0.5, 0.0]), torch.tensor([1.0, 1.0, 1.0, 0.0]), 0.5)
    assert factors.tolist() == pytest.approx([0.5, 1.0, 1.0, 1.0])
    assert float(weakening(torch.tensor([3.0]), torch.tensor([1.0]), 2.0)) == pytest.approx(1 / 9)


def test_knowledge_coefficients_are_means_over_tokens_that_predict_the_answer(
    tiny: VLM, data: Data
) -> None:
    """Sample by sample, without a batch: the token before each labelled token counts."""
    (layer,) = find_mlps(tiny, "language")[1:]
    samples = [*data.forget[:3], *[s for s in data.retain if s.picture is None][:2]]
    rows: list[Tensor] = []
    for sample in samples:
        batch, seen = tiny.collate([sample]), []
        with torch.no_grad(), neuron_hooks(tiny, {layer.outer: seen.append}):
            tiny.logits(batch)
        (answer,) = (batch.labels[0] != IGNORE).nonzero(as_tuple=True)
        rows.append(seen[0][0, answer - 1].abs())
    by_hand = torch.cat(rows).mean(0)
    batched = knowledge_coefficients(tiny, samples, [layer], size=2)[layer.outer]
    assert torch.allclose(batched.float(), by_hand, rtol=1e-4)


def test_kvw_scales_columns_of_its_blocks_only(tiny: VLM, tiny_folder: Path, data: Data) -> None:
    layers = find_mlps(tiny, "language")
    result = KVW(gamma=1.0).unlearn(tiny, data, Trainer(SETTINGS))
    before = VLM.load(tiny_folder).parameters()
    changed = {n for n, p in tiny.parameters().items() if not torch.equal(p, before[n])}
    # Of two blocks the first has depth 0, which is before `first`.
    assert changed == {f"{layers[1].outer}.weight"}
    weight, start = tiny.parameters()[changed.pop()], before[f"{layers[1].outer}.weight"]
    factors = (weight / start).detach().median(dim=0).values
    assert torch.allclose(weight, start * factors, atol=1e-6)
    assert float(factors.max()) <= 1.0
    neurons = result.choices["neurons"]
    assert int((factors < 1).sum()) == neurons["chosen"] < neurons["of"] == len(factors)
    assert result.choices["mean_factor"][layers[1].outer] == pytest.approx(
        float(factors.mean()), abs=1e-4
    )


def test_kvw_weakens_more_with_more_passes(tiny_folder: Path, data: Data) -> None:
    def mean_factor(passes: int) -> float:
        result = KVW(passes=passes).unlearn(VLM.load(tiny_folder), data, Trainer(SETTINGS))
        return float(next(iter(result.choices["mean_factor"].values())))

    assert mean_factor(3) < mean_factor(1) < 1


def test_kvw_refuses_what_would_change_nothing(tiny: VLM, data: Data) -> None:
    trainer = Trainer(SETTINGS)
    with pytest.raises(ConfigError, match="Type first=0 last=1"):
        KVW(first=0.9, last=0.95).unlearn(tiny, data, trainer)
    with pytest.raises(TrainingError, match="nothing would be forgotten"):
        KVW().unlearn(
            tiny, Data(data.forget, data.forget), Trainer(TrainingSettings(batch_size=18))
        )
