"""The training loop: order, schedule, resuming, and what it refuses."""

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
from unsee.training.sampling import batch_indices
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
    """Stops a run from within."""


def test_every_index_comes_once_an_epoch() -> None:
    seen = [i for step in range(7) for i in batch_indices(14, 4, step, seed=3)]
    assert sorted(seen[:14]) == sorted(seen[14:28]) == list(range(14))
    assert batch_indices(14, 4, 2, seed=3) == seen[8:12]
    assert batch_indices(14, 14, 0, seed=3) != batch_indices(14, 14, 0, seed=4)


def test_a_batch_larger_than_the_set_repeats_it() -> None:
    assert sorted(batch_indices(2, 5, 0, seed=0))[:2] == [0, 0]
    with pytest.raises(TrainingError, match="a set is empty"):
        batch_indices(0, 4, 0, seed=0)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)],
)
def test_schedules_half_way(schedule: str, expected: float) -> None:
    settings = TrainingSettings(steps=100, lr=1.0, warmup=0.0, schedule=schedule)
    # Without warm-up one step still counts as the start.
    assert settings.rate(50) == pytest.approx(expected, abs=0.02)
    assert TrainingSettings(steps=100, lr=1.0, warmup=0.1).rate(4) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("stop", "dtype"), [*((n, torch.float32) for n in (1, 5, 9, 10, 13)), (9, torch.bfloat16)]
)
def test_resumed_equals_unbroken_to_the_bit(tmp_path: Path, stop: int, dtype: torch.dtype) -> None:
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


def test_accumulation_divides_by_the_number_of_micro_batches() -> None:
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


def test_no_step_holds_the_gradients_of_the_one_before() -> None:
    weight = nn.Parameter(torch.ones(3))
    held: list[weakref.ref[Tensor]] = []

    def step(number: int) -> Mapping[str, Tensor]:
        assert [grad() for grad in held] == [None] * number
        return {"loss": weight.square().sum()}

    def look(parameters: Mapping[str, nn.Parameter]) -> None:
        grad = parameters["weight"].grad
        assert grad is not None
        held.append(weakref.ref(grad))
        # The wrapper lives as long as the gradient, not just as long as this name for it.
        assert held[-1]() is parameters["weight"].grad

    fit({"weight": weight}, step, TrainingSettings(steps=3), gradient=look)
    assert len(held) == 3


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_term_and_keeps_the_state(
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


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(TrainingError, match="no parameters"):
        fit({}, lambda _: {}, TrainingSettings(steps=1))
    parameters, _ = problem()
    with pytest.raises(TrainingError, match="received a gradient"):
        fit(parameters, lambda _: {"constant": torch.ones(())}, TrainingSettings(steps=1))


def test_the_state_of_another_run_is_refused(tmp_path: Path) -> None:
    parameters, step = problem()
    fit(parameters, step, TrainingSettings(steps=5, save_every=5), folder=tmp_path)
    with pytest.raises(RunError, match="setting 'lr' differs"):
        fit(parameters, step, TrainingSettings(steps=5, save_every=5, lr=1.0), folder=tmp_path)


def test_zero_steps_change_nothing() -> None:
    parameters, step = problem()
    before = parameters["weight"].clone()
    assert fit(parameters, step, TrainingSettings(steps=0)).steps == 0
    assert torch.equal(before, parameters["weight"])
