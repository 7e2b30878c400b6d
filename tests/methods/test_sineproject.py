"""SineProject: the reparametrized projector, and what is trained beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from support.fixed_model import NLL, STUDENT, TEACHER, loss_of
from support.tiny import make
from unsee.errors import ConfigError
from unsee.methods.sineproject import SineChange, SineProject, sine_changes
from unsee.models.vlm import VLM
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data

SETTINGS = TrainingSettings(steps=2, batch_size=4, lr=1e-2)


def changed(vlm: VLM, before: Mapping[str, Tensor]) -> set[str]:
    return {n for n, p in vlm.parameters().items() if not torch.equal(p, before[n])}


def test_sine_change_matches_hand_computation() -> None:
    change = SineChange(torch.tensor([0.5, -2.0, 3.0]))
    moved = change(torch.tensor([0.0, math.pi / 2, -math.pi / 6]))
    assert moved.tolist() == pytest.approx([0.5, -1.0, 2.5])
    assert change.right_inverse(moved).tolist() == pytest.approx([0.0, math.pi / 2, -math.pi / 6])


def test_sine_changes_leave_the_model_as_it_was(tiny: VLM, data: Data) -> None:
    """Names, weights and logits are the same before a step, and names afterwards too."""
    names, batch = list(tiny.parameters()), tiny.collate(data.forget[:2])
    before = {n: p.detach().clone() for n, p in tiny.parameters().items()}
    with torch.no_grad():
        plain = tiny.logits(batch)
        with sine_changes(tiny) as changes:
            assert all(not parameter.any() for parameter in changes.values())
            assert torch.equal(tiny.logits(batch), plain)
            for parameter in changes.values():
                parameter.fill_(10.0)
    assert list(tiny.parameters()) == names
    moved = changed(tiny, before)
    assert moved == {n for n in tiny.parameters("projector") if n.endswith(".weight")}
    for name in moved:
        assert type(tiny.model.get_submodule(name.rpartition(".")[0])) is nn.Linear
        expected = before[name] + math.sin(10.0)
        assert torch.allclose(tiny.parameters()[name], expected, atol=1e-6)


@pytest.mark.parametrize("loss", ["npo", "grad_diff"])
def test_sineproject_loss_is_that_of_the_chosen_method(loss: str) -> None:
    fields = {"w_forget": 2.0, "w_retain": 0.5}
    terms = loss_of("sineproject", STUDENT, TEACHER, forget_loss=loss, **fields)
    assert terms == pytest.approx(loss_of(loss, STUDENT, TEACHER, **fields))
    assert terms["retain"] == pytest.approx(0.5 * NLL)


def test_sineproject_needs_a_teacher_with_npo_only() -> None:
    assert "teacher" in SineProject().required
    assert "teacher" not in SineProject(forget_loss="grad_diff").required


@pytest.mark.parametrize("lora", [0, 2])
def test_sineproject_trains_projector_and_llm(
    lora: int, tiny: VLM, tiny_folder: Path, data: Data
) -> None:
    result = SineProject().unlearn(tiny, data, Trainer(replace(SETTINGS, lora=lora)))
    moved = changed(tiny, VLM.load(tiny_folder).parameters())
    assert result.adapters is None
    assert not moved & set(tiny.parameters("encoder"))
    assert {n.rpartition(".")[2] for n in moved & set(tiny.parameters("projector"))} == {"weight"}
    assert moved & set(tiny.parameters("language"))


def test_sineproject_refuses_adapters_without_an_llm(data: Data) -> None:
    settings = replace(SETTINGS, lora=2)
    with pytest.raises(ConfigError, match="Type lora=0, or trains=all"):
        SineProject(trains="projector").validate(data, settings)


@pytest.mark.parametrize("family", ["gemma3", "idefics2"])
def test_sine_changes_reach_projectors_of_other_forms(family: str, tmp_path: Path) -> None:
    """A matrix that is no linear layer's, and a resampler with attention of its own."""
    vlm = VLM.load(make(family, tmp_path / family))
    names, before = list(vlm.parameters()), vlm.hash()
    with torch.no_grad(), sine_changes(vlm) as changes:
        assert changes
    assert vlm.hash() == before
    with torch.no_grad(), sine_changes(vlm) as changes:
        for parameter in changes.values():
            parameter.fill_(0.1)
    assert vlm.hash() != before
    assert list(vlm.parameters()) == names
