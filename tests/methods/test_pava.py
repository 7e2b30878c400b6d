"""PAVA: its loss, its choice of MLPs, and the answers that it keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from support.fixed_model import LABELS, NLL, STUDENT, TEACHER
from unsee.errors import ConfigError, DataError
from unsee.evaluation.generation import generate
from unsee.features.neurons import find_mlps
from unsee.losses import sequence_nll
from unsee.methods import pava
from unsee.methods.pava import PAVA, indirect_effects
from unsee.models.vlm import VLM
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Batch, Data, Sample

SETTINGS = TrainingSettings(steps=2, batch_size=4, lr=1e-3)
QUESTIONS = ("What does this person work as ?", "Who lives in Oslo ?")


def test_pava_loss_matches_hand_computation() -> None:
    """Log-ratio log(.375 / .125): NPO at beta 2 is log(1 + 3^2)."""
    batch: Any = Batch({}, LABELS)
    told: Any = (STUDENT, batch, batch, TEACHER)
    terms = PAVA(beta=2.0, w_forget=0.5).loss(*told)
    values = {name: float(value) for name, value in terms.items()}
    assert values["forget"] == pytest.approx(0.5 * float(torch.tensor(10.0).log()))
    assert values["retain"] == pytest.approx(3 * NLL)


def test_indirect_effects_match_a_restoration_by_hand(tiny: VLM, data: Data) -> None:
    rows, layers = data.forget[:3], find_mlps(tiny, "language")
    effects = indirect_effects(tiny, rows, layers, seed=4)
    rng = pava.np.random.default_rng([4, 0])
    noised = tiny.collate(rows, transform=lambda image: pava.add_noise(image, rng, 1.0))

    def chance(batch: Batch) -> Tensor:
        return (-sequence_nll(tiny.logits(batch), batch.labels)).exp()

    outer, kept = tiny.model.get_submodule(layers[1].outer), list[Tensor]()
    with torch.no_grad():
        base = chance(noised)
        handle = outer.register_forward_hook(lambda _m, _i, output: kept.append(output))
        chance(tiny.collate(rows))
        handle.remove()
        handle = outer.register_forward_hook(lambda _m, _i, _output: kept[0])
        restored = chance(noised)
        handle.remove()
    assert effects[1] == pytest.approx(float((restored - base).mean()), rel=1e-4)
    assert effects[1] != 0


def test_indirect_effects_are_zero_without_noise(
    tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pava, "add_noise", lambda image, rng, strength: image)
    effects = indirect_effects(tiny, data.forget[:3], find_mlps(tiny, "language"), seed=0)
    assert effects == pytest.approx([0.0, 0.0], abs=1e-6)


def test_pava_trains_only_the_chosen_mlps(tiny: VLM, tiny_folder: Path, data: Data) -> None:
    first, second = find_mlps(tiny, "language")
    method = PAVA(attribute_questions=QUESTIONS, samples=4)
    result = method.unlearn(tiny, data, Trainer(SETTINGS))
    before = VLM.load(tiny_folder).parameters()
    changed = {n for n, p in tiny.parameters().items() if not torch.equal(p, before[n])}
    # The first block is at depth 0, which is before `first`.
    assert changed == {f"{n}.weight" for n in (second.outer, *second.inner)}
    assert result.choices["mlps"] == {"chosen": 1, "of": 1}
    assert list(result.choices["indirect_effect"]) == [second.outer]
    whole = replace(method, share=1.0, first=0.0).unlearn(tiny, data, Trainer(SETTINGS))
    assert set(whole.choices["indirect_effect"]) == {first.outer, second.outer}
    assert whole.choices["mlps"]["chosen"] == 2


def test_pava_keeps_the_start_models_own_answers(
    tiny: VLM, tiny_folder: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its "retain" batches are about forget pictures, and hold no retain sample."""
    start, seen = VLM.load(tiny_folder), list[tuple[str, str]]()
    real: Callable[..., Any] = VLM.collate

    def watch(self: VLM, samples: list[Sample], *rest: Any, **named: Any) -> Batch:
        seen.extend((s.id, s.answer) for s in samples if "/attribute/" in s.id and s.answer)
        return real(self, samples, *rest, **named)

    monkeypatch.setattr(VLM, "collate", watch)
    PAVA(attribute_questions=QUESTIONS, samples=4).unlearn(
        tiny, replace(data, retain=()), Trainer(SETTINGS)
    )
    monkeypatch.undo()
    trained = {name: answer for name, answer in seen if not name.startswith("name/")}
    assert trained
    by_id = {s.id: s for s in data.forget}
    asked = [
        replace(by_id[name.split("/attribute/")[0]], question=QUESTIONS[int(name[-1])], choices=())
        for name in trained
    ]
    assert [a.strip() for a in generate(start, asked)] == list(trained.values())


def test_pava_refuses_data_and_questions_that_it_cannot_use(tiny: VLM, data: Data) -> None:
    texts = [s for s in data.retain if s.picture is None]
    with pytest.raises(DataError, match="needs forget pictures with answers"):
        PAVA().validate(Data(texts, ()), SETTINGS)
    with pytest.raises(ConfigError, match=r"--set attribute_questions=\[...\]"):
        PAVA(attribute_questions=()).validate(data, SETTINGS)
    with pytest.raises(ConfigError, match="Type first=0"):
        PAVA(first=0.9).unlearn(tiny, data, Trainer(SETTINGS))
