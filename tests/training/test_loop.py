"""The training loop: resuming, accumulation and refusals."""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unsee.errors import RunError, TrainingError
from unsee.training.loop import STATE, AfterStep, fit
from unsee.training.settings import TrainingSettings


def problem(
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[str, nn.Parameter], Callable[[int], Mapping[str, Tensor]]]:
    """A least-squares problem whose batches are drawn from torch's generator."""
    weight = nn.Parameter(torch.arange(6.0).reshape(2, 3).to(dtype))

    def step(number: int) -> Mapping[str, Tensor]:
        x = torch.randn(4, 3).to(dtype)
        return {"fit": (x @ weight.T).square().mean(), "decay": 0.1 * weight.square().mean()}

    return {"weight": weight}, step


class Interrupt(Exception):
    """Interrupts a run."""


@pytest.mark.parametrize(
    ("stop", "dtype"), [*((n, torch.float32) for n in (1, 5, 9, 10, 13)), (9, torch.bfloat16)]
)
def test_fit_resumed_equals_uninterrupted_to_the_bit(
    tmp_path: Path, stop: int, dtype: torch.dtype
) -> None:
    settings = TrainingSettings(steps=15, lr=0.05, save_every=5)
    whole, step = problem(dtype)
    fit(whole, step, settings, folder=tmp_path / "a", log=tmp_path / "a.jsonl")

    def break_off(done: int) -> None:
        if done == stop:
            raise Interrupt

    broken, step = problem(dtype)
    with pytest.raises(Interrupt):
        fit(
            broken,
            step,
            settings,
            folder=tmp_path / "b",
            log=tmp_path / "b.jsonl",
            progress=AfterStep(break_off),
        )
    resumed, step = problem(dtype)
    history = fit(resumed, step, settings, folder=tmp_path / "b", log=tmp_path / "b.jsonl")
    assert torch.equal(whole["weight"], resumed["weight"])
    assert history.steps == 15
    lines = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    same = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines] == list(range(1, 16))
    assert [x["terms"] for x in lines] == [x["terms"] for x in same]


def test_fit_divides_gradients_by_the_number_of_micro_batches() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    grads: list[Tensor] = []

    def step(number: int) -> Mapping[str, Tensor]:
        return {"loss": weight[number % 2] * 3}

    def look(parameters: Mapping[str, nn.Parameter]) -> None:
        grad = parameters["weight"].grad
        assert grad is not None
        grads.append(grad.clone())

    fit({"weight": weight}, step, TrainingSettings(steps=1, accumulate=2), gradient=look)
    assert grads[0].tolist() == [1.5, 1.5]


def test_fit_drops_gradients_between_steps() -> None:
    weight = nn.Parameter(torch.ones(3))
    held: list[weakref.ref[Tensor]] = []

    def step(number: int) -> Mapping[str, Tensor]:
        assert [grad() for grad in held] == [None] * number
        return {"loss": weight.square().sum()}

    def look(parameters: Mapping[str, nn.Parameter]) -> None:
        grad = parameters["weight"].grad
        assert grad is not None
        held.append(weakref.ref(grad))
        # The weak reference is to the gradient tensor itself, not to a temporary wrapper.
        assert held[-1]() is parameters["weight"].grad

    fit({"weight": weight}, step, TrainingSettings(steps=3), gradient=look)
    assert len(held) == 3


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_fit_names_a_term_that_is_not_finite_and_keeps_the_state(
    tmp_path: Path, value: float
) -> None:
    parameters, step = problem()

    def spoilt(number: int) -> Mapping[str, Tensor]:
        terms = dict(step(number))
        if number == 7:
            terms["decay"] = terms["decay"] * value
        return terms

    with pytest.raises(TrainingError, match=r"step 8: loss term 'decay' is (nan|inf)"):
        fit(parameters, spoilt, TrainingSettings(steps=10, save_every=5), folder=tmp_path)
    assert (tmp_path / STATE).exists()
    assert bool(torch.isfinite(parameters["weight"]).all())


def test_fit_refuses_nothing_to_train() -> None:
    with pytest.raises(TrainingError, match="no parameters"):
        fit({}, lambda _: {}, TrainingSettings(steps=1))
    parameters, _ = problem()
    with pytest.raises(TrainingError, match="received a gradient"):
        fit(parameters, lambda _: {"constant": torch.ones(())}, TrainingSettings(steps=1))


def test_load_state_refuses_the_state_of_another_run(tmp_path: Path) -> None:
    parameters, step = problem()
    fit(parameters, step, TrainingSettings(steps=5, save_every=5), folder=tmp_path)
    with pytest.raises(RunError, match="setting 'lr' differs"):
        fit(parameters, step, TrainingSettings(steps=5, save_every=5, lr=1.0), folder=tmp_path)


def test_fit_with_zero_steps_changes_nothing() -> None:
    parameters, step = problem()
    before = parameters["weight"].clone()
    assert fit(parameters, step, TrainingSettings(steps=0)).steps == 0
    assert torch.equal(before, parameters["weight"])
