"""Laws that hold for every registered method, on a tiny real model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unsee.errors import ConfigError
from unsee.losses import IGNORE
from unsee.methods import METHODS, Method
from unsee.models.vlm import VLM
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Batch, Data, Sample

NAMES = METHODS.names()
FREE = [name for name in NAMES if METHODS.get(name).training_free]
TRAINED = [name for name in NAMES if name not in FREE]
# Methods that by default choose weights or neurons before they change any.
CHOOSING = ("kvw", "manu", "mip_editor", "mmunlearner", "pava", "smfa")
# Methods that edit single neurons of blocks' MLPs.
NEURONS = ("manu", "mip_editor")
SETTINGS = TrainingSettings(steps=4, batch_size=4, lr=1e-3, save_every=2)
# Steps of the stages before the last, whose laws hold after a few as after the default's hundred.
EARLIER = {"undo": {"unlearn_steps": 6}, "aim": {"prompt_steps": 6}}


class Stopped(Exception):
    """Breaks a run off."""


def make(name: str) -> Method:
    return METHODS.get(name)(**EARLIER.get(name, {}))


def pictured(samples: object, count: int = 6) -> list[Sample]:
    assert isinstance(samples, tuple | list)
    return [s for s in samples if s.picture is not None][:count]


def total(method: Method, student: VLM, forget: Batch, retain: Batch, teacher: VLM) -> float:
    """The summed loss of one step, without the random draws of erase targets."""
    torch.manual_seed(0)
    return float(sum(v.detach() for v in method.loss(student, forget, retain, teacher).values()))


def padded(batch: Batch, extra: int = 5) -> Batch:
    rows = batch.labels.shape[0]
    pads = torch.zeros(rows, extra, dtype=torch.long)
    inputs = dict(batch.inputs)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], pads], 1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], pads], 1)
    return Batch(inputs, torch.cat([batch.labels, pads + IGNORE], 1), batch.ids)


def reordered(batch: Batch) -> Batch:
    order = torch.arange(len(batch) - 1, -1, -1)
    inputs = {name: tensor[order] for name, tensor in batch.inputs.items()}
    return Batch(inputs, batch.labels[order], tuple(reversed(batch.ids)))


@pytest.fixture
def moved(tiny: VLM) -> VLM:
    """A student with other weights than its teacher, so that no term is zero by accident."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in tiny.parameters("visual").values():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return tiny


@pytest.mark.parametrize("name", TRAINED)
def test_loss_does_not_change_with_padding_and_order(
    name: str, moved: VLM, tiny_folder: Path, data: Data
) -> None:
    method, teacher = make(name), VLM.load(tiny_folder)
    forget, retain = moved.collate(pictured(data.forget)), moved.collate(pictured(data.retain))
    plain = total(method, moved, forget, retain, teacher)
    assert total(method, moved, padded(forget), padded(retain), teacher) == pytest.approx(
        plain, rel=1e-4
    )
    assert total(method, moved, reordered(forget), reordered(retain), teacher) == pytest.approx(
        plain, rel=1e-4
    )


@pytest.mark.parametrize("name", TRAINED)
def test_loss_does_not_depend_on_predictions_of_the_prompt(
    name: str, moved: VLM, tiny_folder: Path, data: Data
) -> None:
    method, teacher = make(name), VLM.load(tiny_folder)
    forget = moved.collate(pictured(data.forget))
    # Told apart by its length below.
    retain = padded(moved.collate(pictured(data.retain)), 7)
    plain = total(method, moved, forget, retain, teacher)

    def disturb(_module: object, _inputs: object, output: object) -> object:
        # Noise on every logit whose next token is no answer.
        logits = output.logits  # type: ignore[attr-defined]
        labels = {b.labels.shape: b.labels for b in (forget, retain)}[logits.shape[:2]]
        free = torch.ones(logits.shape[:2], dtype=torch.bool)
        free[:, :-1] = labels[:, 1:] == IGNORE
        output.logits = logits + 7.0 * free.unsqueeze(-1)  # type: ignore[attr-defined]
        return output

    handle = moved.model.register_forward_hook(disturb)
    try:
        assert total(method, moved, forget, retain, teacher) == pytest.approx(plain, rel=1e-4)
    finally:
        handle.remove()


# Every trained method at its defaults, and VKD with each erase target and without a forget loss.
ACCUMULATED: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in TRAINED),
    *(("vkd", {"erase": erase}) for erase in ("stranger", "neutral", "push")),
    ("vkd", {"w_forget": 0.0, "erase": "push"}),
]


@pytest.mark.parametrize(
    ("name", "fields"), ACCUMULATED, ids=lambda value: str(value) if value else "default"
)
def test_loss_of_accumulated_small_batches_equals_one_large_batch(
    name: str,
    fields: dict[str, Any],
    moved: VLM,
    tiny_folder: Path,
    data: Data,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All terms, gradients included; layer statistics are of the whole sets, as in training."""
    method, teacher = METHODS.get(name)(**fields), VLM.load(tiny_folder)
    forget, retain = pictured(data.forget), pictured(data.retain)
    prepare = getattr(method, "prepare", None)
    given = () if prepare is None else (prepare(teacher, forget, retain, data.strangers),)
    # The noise of erase=push is drawn for each batch.
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)

    def gradient(parts: int) -> tuple[dict[str, float], Tensor]:
        moved.model.zero_grad(set_to_none=True)
        moved.model.requires_grad_(True)
        size, totals = len(forget) // parts, dict[str, float]()
        for i in range(parts):
            rows = slice(i * size, (i + 1) * size)
            batches = moved.collate(forget[rows]), moved.collate(retain[rows])
            terms = method.loss(moved, *batches, teacher, *given)
            for term, value in terms.items():
                totals[term] = totals.get(term, 0.0) + float(value.detach()) / parts
            (sum(terms.values(), torch.zeros(())) / parts).backward()
        weights = moved.parameters("visual").values()
        return totals, torch.cat([p.grad.flatten() for p in weights if p.grad is not None])

    (large, whole), (small, summed) = gradient(1), gradient(3)
    assert small == pytest.approx(large, rel=1e-4)
    assert torch.allclose(whole, summed, rtol=1e-3, atol=1e-5)
    if name == "vkd":
        assert {"keep", "erase"} <= set(large)
        assert all(abs(value) > 1e-6 for value in large.values())


def refused(name: str, part: str) -> bool:
    """Whether a method refuses to train a part."""
    if name == "vkd" and part in ("language", "all"):
        return True
    if part not in METHODS.get(name).parts:
        return True
    return name in NEURONS and part == "projector"


@pytest.mark.parametrize("part", ["visual", "encoder", "projector", "language", "all"])
@pytest.mark.parametrize("name", NAMES)
def test_unlearn_changes_only_the_declared_part(
    name: str, part: str, tiny: VLM, data: Data
) -> None:
    method = replace(make(name), trains=part)
    before = {n: p.detach().clone() for n, p in tiny.parameters().items()}
    if refused(name, part):
        with pytest.raises(ConfigError, match="Allowed: "):
            method.unlearn(tiny, data, Trainer(SETTINGS))
    else:
        method.unlearn(tiny, data, Trainer(SETTINGS))
    changed = {n for n, p in tiny.parameters().items() if not torch.equal(p, before[n])}
    assert bool(changed) != refused(name, part)
    assert changed <= set(tiny.parameters(part))
    if part == "all" and changed:
        assert changed & set(tiny.parameters("language"))


@pytest.mark.parametrize("part", ["visual", "language"])
def test_smfa_with_lora_changes_only_linear_layers(part: str, tiny: VLM, data: Data) -> None:
    """The masked change of SMFA is no adapter, so tests/training/test_lora.py skips it."""
    before = {n: p.detach().clone() for n, p in tiny.parameters().items()}
    trainer = Trainer(replace(SETTINGS, lora=2))
    result = replace(make("smfa"), trains=part).unlearn(tiny, data, trainer)
    assert result.adapters is None
    # Names are as before: no adapter is left in the model.
    changed = {n for n, p in tiny.parameters().items() if not torch.equal(p, before[n])}
    assert changed
    assert changed <= set(tiny.parameters(part))
    for changed_name in changed:
        owner, _, leaf = changed_name.rpartition(".")
        assert leaf == "weight" and isinstance(tiny.model.get_submodule(owner), torch.nn.Linear)


@pytest.mark.parametrize("name", NAMES)
def test_unlearn_never_changes_the_teacher(
    name: str, tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers: list[tuple[VLM, str]] = []
    for copier in ("frozen_copy", "frozen_visual_copy"):
        real = getattr(VLM, copier)

        def watch(self: VLM, *own: object, real: object = real, **named: object) -> VLM:
            made = real(self, *own, **named)  # type: ignore[operator]
            teachers.append((made, made.hash()))
            return made

        monkeypatch.setattr(VLM, copier, watch)
    make(name).unlearn(tiny, data, Trainer(SETTINGS))
    assert bool(teachers) == ("teacher" in make(name).required)
    for teacher, before in teachers:
        assert teacher.hash() == before


@pytest.mark.parametrize("name", NAMES)
def test_unlearn_again_or_resumed_gives_the_same_bits(
    name: str, tiny_folder: Path, data: Data, tmp_path: Path
) -> None:
    def run(folder: Path, stop: int | None = None, seed: int = 0) -> str:
        vlm = VLM.load(tiny_folder)

        class Watch:
            def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
                if step == stop:
                    raise Stopped

        trainer = Trainer(replace(SETTINGS, seed=seed), folder, folder / "log.jsonl", Watch())
        make(name).unlearn(vlm, data, trainer)
        return vlm.hash()

    whole = run(tmp_path / "a")
    assert run(tmp_path / "b") == whole
    if name in FREE:
        return
    assert run(tmp_path / "c", seed=1) != whole
    with pytest.raises(Stopped):
        run(tmp_path / "d", stop=3)
    assert run(tmp_path / "d") == whole


@pytest.mark.parametrize("name", FREE)
def test_training_free_method_takes_no_step(
    name: str, tiny: VLM, data: Data, tmp_path: Path
) -> None:
    trainer = Trainer(SETTINGS, tmp_path, tmp_path / "log.jsonl")
    result = make(name).unlearn(tiny, data, trainer)
    assert result.history.steps == result.history.trained == 0
    assert result.history.seconds > 0
    assert not list(tmp_path.iterdir())
    assert all(p.grad is None for p in tiny.parameters().values())


@pytest.mark.parametrize("name", NAMES)
def test_unlearn_returns_choices_with_counts(name: str, tiny: VLM, data: Data) -> None:
    """What a mask lets through, or which neurons were chosen, is JSON and says how many."""
    trainer = Trainer(SETTINGS)
    result = make(name).unlearn(tiny, data, trainer)
    assert json.loads(json.dumps(result.choices)) == result.choices

    def counts(record: object) -> list[int]:
        if not isinstance(record, dict):
            return []
        own = [record["chosen"]] if "chosen" in record else []
        return own + [n for value in record.values() for n in counts(value)]

    assert all(n > 0 for n in counts(result.choices))
    assert bool(counts(result.choices)) == (name in CHOOSING)


@pytest.mark.parametrize("name", ["sineproject", "ssiuu"])
def test_method_that_needs_whole_weights_refuses_sharding(
    name: str, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    make(name).validate(data, replace(SETTINGS, parallel="ddp"))
    with pytest.raises(ConfigError, match=f"{name} needs whole weights.*Type parallel=ddp"):
        make(name).validate(data, replace(SETTINGS, parallel="fsdp"))
