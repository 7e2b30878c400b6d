"""The published methods: their losses against hand-computed values, and their guarantees."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from support.fixed_model import LABELS, NLL, STUDENT, TEACHER, kl, loss_of
from unsee.data.augment import add_noise
from unsee.errors import ConfigError, DataError, TrainingError
from unsee.features.layers import hidden_states
from unsee.features.neurons import Activity, activity, find_mlps
from unsee.losses import adjusted_cross_entropy, masked_kl, masked_mse
from unsee.methods import METHODS, REMOVED, Method, manu, mmunlearner
from unsee.methods.abstention import ABSTENTIONS, tokenizable, with_abstentions
from unsee.methods.idk import preference_loss
from unsee.methods.rmu import unit_vector
from unsee.methods.smfa import conflicts
from unsee.models.vlm import VLM
from unsee.recipes.components import build_method
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Batch, Data

SETTINGS = TrainingSettings(steps=3, batch_size=4, lr=1e-3)

RENAMED = [(name, old, new) for name, item in METHODS.items() for old, new in item.aliases.items()]


@pytest.mark.parametrize(("name", "old", "new"), RENAMED)
def test_method_field_still_works_under_its_old_name(name: str, old: str, new: str) -> None:
    names = {field.name for field in fields(METHODS.get(name))}
    assert new in names
    assert old not in names
    with pytest.warns(FutureWarning, match=f"field of {name} '{old}' is now called '{new}'"):
        assert build_method(name, {old: 1}) == build_method(name, {new: 1})
    with pytest.raises(ConfigError, match=f"Did you mean '{new}'"):
        build_method(name, {f"{old}_x": 1})


@pytest.mark.parametrize(("old", "new"), REMOVED.items())
def test_method_refuses_a_class_that_overrides_a_removed_hook(old: str, new: str) -> None:
    for hook in (lambda self: None, property(lambda self: None)):
        with pytest.raises(ConfigError, match=f"Mine.{old} is never called. Override {new}"):
            type("Mine", (Method,), {old: hook})


def test_unlearn_refuses_a_train_that_returns_nothing(tiny: VLM, data: Data) -> None:
    class Silent(Method):
        def train(self, vlm: VLM, data: Data, trainer: Trainer) -> Any:
            return None

    message = r"Silent\.train returned NoneType.*must return the TrainingResult of trainer\.fit"
    with pytest.raises(TrainingError, match=message):
        Silent().unlearn(tiny, data, Trainer(SETTINGS))


@pytest.mark.parametrize("name", METHODS.names())
def test_method_value_still_works_under_its_old_name(name: str) -> None:
    for field, values in METHODS.get(name).value_aliases.items():
        for old, new in values.items():
            with pytest.warns(FutureWarning, match=f"{field} '{old}' is now called '{new}'"):
                assert getattr(build_method(name, {field: old}), field) == new


def test_grad_ascent_loss_matches_hand_computation() -> None:
    assert loss_of("grad_ascent", STUDENT, TEACHER) == pytest.approx({"forget": -NLL})
    assert loss_of("grad_ascent", STUDENT, TEACHER, cap=0.1) == pytest.approx({"forget": -0.1})


def test_kl_min_loss_matches_hand_computation() -> None:
    drift = (kl(0.5, 0.25) + kl(0.25, 0.5)) / 2
    assert loss_of("kl_min", STUDENT, TEACHER, w_retain=2.0) == pytest.approx(
        {"forget": -NLL, "retain": 2 * drift}
    )


def test_kl_min_tokens_all_runs_over_every_position() -> None:
    """The mean over three positions, the last of which predicts nothing and is the same in both."""
    drift = (kl(0.5, 0.25) + kl(0.25, 0.5) + 0.0) / 3
    assert loss_of("kl_min", STUDENT, TEACHER, tokens="all") == pytest.approx(
        {"forget": -NLL, "retain": drift}
    )


def test_undial_tokens_all_lowers_every_next_token() -> None:
    """The prompt's second token counts too; the answer's alone by default."""
    probabilities = torch.tensor([[[0.5, 0.5], [0.25, 0.75], [0.5, 0.5]]])
    ids, labels = torch.tensor([[0, 1, 0]]), torch.tensor([[-100, -100, 0]])
    batch: Any = Batch({"input_ids": ids}, labels)
    student: Any = SimpleNamespace(logits=lambda batch: probabilities.log())
    teacher: Any = SimpleNamespace(logits=lambda batch: torch.zeros(1, 3, 2))
    # Of the teacher's even odds, exp(-gamma) is left to the next token: 1, then 0.
    lowered = math.exp(-2.0) / (math.exp(-2.0) + 1)
    prompt = -math.log(0.5)
    answer = -(lowered * math.log(0.25) + (1 - lowered) * math.log(0.75))
    for tokens, expected in (("answer", answer), ("all", (prompt + answer) / 2)):
        method = METHODS.get("undial")(gamma=2.0, tokens=tokens)
        terms = method.loss(student, batch, None, teacher)
        assert float(terms["forget"]) == pytest.approx(expected)
    # The id of an image placeholder may lie beyond the vocabulary of the output.
    batch = Batch({"input_ids": torch.tensor([[0, 7, 0]])}, labels)
    method = METHODS.get("undial")(gamma=2.0, tokens="all")
    terms = method.loss(student, batch, None, teacher)
    assert float(terms["forget"]) == pytest.approx((prompt + answer) / 2)


@pytest.mark.parametrize("name", ["kl_min", "undial"])
def test_tokens_all_trains_on_padded_batches_of_a_real_model(
    name: str, tiny_folder: Path, data: Data
) -> None:
    weights = set()
    for tokens in ("answer", "all"):
        vlm = VLM.load(tiny_folder)
        METHODS.get(name)(tokens=tokens).unlearn(vlm, data, Trainer(SETTINGS))
        weights.add(vlm.hash())
    assert len(weights) == 2


def test_undial_loss_matches_hand_computation() -> None:
    # The teacher's odds of the true tokens are 1 and 1/3; exp(-gamma) times that is left of them.
    keep = math.exp(-2.0)
    first, second = keep / (keep + 1), keep / (keep + 3)
    cross = -(first * math.log(0.75) + (1 - first) * math.log(0.25))
    cross += -(second * math.log(0.5) + (1 - second) * math.log(0.5))
    assert loss_of("undial", STUDENT, TEACHER, gamma=2.0, w_retain=3.0) == pytest.approx(
        {"forget": cross / 2, "retain": 3 * NLL}
    )
    logits = torch.zeros(1, 3, 2)
    assert float(adjusted_cross_entropy(logits, logits, LABELS, 0.0)) == pytest.approx(math.log(2))


def test_idk_loss_matches_hand_computation() -> None:
    assert loss_of("idk", STUDENT, TEACHER, w_retain=2.0) == pytest.approx(
        {"forget": NLL, "retain": 2 * NLL}
    )
    # Log-ratios .6 and -.4 nats, beta .5: -(2/.5) log sigmoid(.5).
    value = preference_loss(torch.tensor([0.6]), torch.tensor([-0.4]), 0.5)
    assert float(value) == pytest.approx(4 * math.log(1 + math.exp(-0.5)))


def test_idk_preference_rejects_the_true_answer() -> None:
    """Log-ratio of the abstention log(.375 / .125), of the true answer none: both said alike."""
    forget: Any = Batch({}, LABELS)
    true: Any = Batch({}, torch.tensor([[-100, -100, -100]]))
    told: Any = (STUDENT, forget, None, TEACHER, true)
    terms = METHODS.get("idk")(form="preference", beta=2.0).loss(*told)
    assert float(terms["forget"]) == pytest.approx(math.log(1 + math.exp(-2 * math.log(3))))
    told = (STUDENT, forget, None, None)
    with pytest.raises(ConfigError, match="the start model and the true answers"):
        METHODS.get("idk")(form="preference").loss(*told)


def test_masked_mse_matches_hand_computation() -> None:
    h = torch.tensor([[[1.0, 3.0], [0.0, 0.0]], [[2.0, 0.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1], [1, 0]])
    # Row 1: (1 + 9) / 2 and 0, mean 2.5; row 2: 4 / 2.
    assert float(masked_mse(h, torch.zeros(2, 1, 2), mask)) == pytest.approx((2.5 + 2.0) / 2)


def test_masked_kl_compares_prompts_of_different_length() -> None:
    logits = torch.tensor([[[0.25, 0.75], [0.5, 0.5], [0.5, 0.5]]]).log()
    longer = torch.cat([torch.zeros(1, 2, 2), torch.tensor([[[0.5, 0.5], [0.25, 0.75]]]).log()], 1)
    longer = torch.cat([longer, torch.zeros(1, 1, 2)], 1)
    places = torch.tensor([[-100, -100, -100, 1, 0]])
    assert float(masked_kl(longer, logits, LABELS, places)) == pytest.approx(
        (kl(0.5, 0.25) + kl(0.25, 0.5)) / 2
    )


def test_rmu_loss_is_the_distance_from_the_vector(tiny: VLM, data: Data) -> None:
    """The forget term is the mean square of h - c u, and nothing is lost at the start on retain."""
    batch = tiny.collate(data.forget[:2])
    method = METHODS.get("rmu")(layer=1, c=3.0, w_forget=2.0)
    with torch.no_grad():
        terms = method.loss(tiny, batch, batch, tiny.frozen_copy(), 5)
        h = hidden_states(tiny, batch, 1)
    goal = 3.0 * unit_vector(h.shape[-1], (5,))
    assert float(goal.norm()) == pytest.approx(3.0)
    rows = []
    for row, mask in zip(h, batch.inputs["attention_mask"], strict=True):
        rows.append(float((row[mask == 1] - goal).square().mean()))
    assert float(terms["forget"]) == pytest.approx(sum(rows), rel=1e-5)
    assert float(terms["retain"]) == 0.0
    with pytest.raises(ConfigError, match="LLM has 2 blocks, 0 to 1"):
        METHODS.get("rmu")(layer=2).loss(tiny, batch, batch, tiny)


# What a method that abstains learns from; each is (name, fields).
ABSTAINING: list[tuple[str, dict[str, Any]]] = [
    ("idk", {}),
    ("idk", {"form": "preference"}),
    ("smfa", {}),
]


@pytest.mark.parametrize(("name", "fields"), ABSTAINING)
def test_abstaining_method_never_labels_with_the_true_answer(
    name: str, fields: dict[str, Any], tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every batch that a likelihood is raised on holds abstentions, or is of the retain set."""
    method, forgotten = METHODS.get(name)(**fields), {s.id for s in data.forget}
    seen: list[str] = []
    real: Callable[..., dict[str, Tensor]] = type(method).loss

    def watch(
        self: Any, student: VLM, forget: Batch, *rest: Any, **named: Any
    ) -> dict[str, Tensor]:
        assert set(forget.ids) <= forgotten
        tokens = student.processor.tokenizer
        for row in forget.labels:
            seen.append(tokens.decode(row[row >= 0], skip_special_tokens=True).strip())
        return real(self, student, forget, *rest, **named)

    monkeypatch.setattr(type(method), "loss", watch)
    method.unlearn(tiny, data, Trainer(SETTINGS))
    assert len(seen) == SETTINGS.steps * SETTINGS.batch_size
    assert set(seen) <= set(ABSTENTIONS)
    assert not set(seen) & {s.answer for s in data.forget}


def test_with_abstentions_replaces_the_answers(tiny: VLM, data: Data) -> None:
    first = with_abstentions(data.forget, ABSTENTIONS, (0, 1))
    assert {s.answer for s in first} <= set(ABSTENTIONS)
    assert [replace(s, answer="") for s in first] == [replace(s, answer="") for s in data.forget]
    assert with_abstentions(data.forget, ABSTENTIONS, (0, 1)) == first
    assert with_abstentions(data.forget, ABSTENTIONS, (0, 2)) != first
    assert tokenizable(tiny, ["I don't know.", "Xyzzy!"]) == ("I don't know.",)
    with pytest.raises(ConfigError, match=r"--set abstentions=\[...\]"):
        tokenizable(tiny, ["Xyzzy!"])
    with pytest.raises(ConfigError, match="no abstention"):
        tokenizable(tiny, [])


def test_idk_preference_lowers_its_loss(tiny_folder: Path, data: Data) -> None:
    """The abstentions' likelihood rises and the true answers' falls."""
    vlm = VLM.load(tiny_folder)
    method = METHODS.get("idk")(form="preference", beta=1.0)
    trainer = Trainer(replace(SETTINGS, steps=1))
    result = method.unlearn(vlm, data, trainer)
    first = result.history.last["forget"]
    trainer = Trainer(replace(SETTINGS, steps=12))
    result = method.unlearn(VLM.load(tiny_folder), data, trainer)
    assert first == pytest.approx(2 * math.log(2), rel=1e-4)
    assert result.history.last["forget"] < first


def test_manu_importance_matches_hand_computation() -> None:
    def activity(mean: float, share: float, variance: float, energy: float) -> Activity:
        return Activity(*(torch.tensor([v]) for v in (mean, share, variance, energy)))

    shown, told = activity(3.0, 0.8, 5.0, 10.0), activity(1.0, 0.2, 4.0, 6.0)
    by_hand = 2 / 4 + 0.6 / 1.0 + math.sqrt(9) + math.sqrt(4 / 16)
    assert float(manu.importance(shown, told)) == pytest.approx(by_hand, rel=1e-5)
    # Without a picture the encoder does not run: all differs, wholly.
    nothing = activity(0.0, 0.0, 0.0, 0.0)
    assert float(manu.importance(shown, nothing)) == pytest.approx(3 + math.sqrt(5), rel=1e-5)


def test_manu_importance_of_counts_depends_on_the_number_of_tokens() -> None:
    """Active at 80 of 100 tokens, and at 2 of 10."""
    same = torch.tensor([1.0])
    shown = Activity(same, torch.tensor([0.8]), 0 * same, same, tokens=100)
    told = Activity(same, torch.tensor([0.2]), 0 * same, same, tokens=10)
    assert float(manu.importance(shown, told)) == pytest.approx(78 / 82, rel=1e-5)
    assert float(manu.importance(shown, told, "share")) == pytest.approx(0.6, rel=1e-5)


def test_activity_counts_the_tokens_of_each_modality(tiny: VLM, data: Data) -> None:
    """All tokens but padding in the LLM, a picture's patches in the encoder."""
    shown = [s for s in data.forget if s.picture is not None][:3]
    layers = find_mlps(tiny, "all")
    activities = activity(tiny, shown, layers, 0.0, size=2)
    tokens = {layer.part: activities[layer.outer].tokens for layer in layers}
    batch = tiny.collate(shown)
    assert tokens["language"] == int(batch.inputs["attention_mask"].sum())
    vision = tiny.model.config.vision_config
    assert tokens["encoder"] == 3 * ((vision.image_size // vision.patch_size) ** 2 + 1)
    active = activities[layers[0].outer]
    assert torch.equal(active.count, active.share * active.tokens)


def test_manu_zeroes_the_given_share_of_each_part(tiny: VLM, tiny_folder: Path, data: Data) -> None:
    trainer = Trainer(SETTINGS)
    result = METHODS.get("manu")(prune=0.1).unlearn(tiny, data, trainer)
    record, before = result.choices["neurons"], VLM.load(tiny_folder).parameters()
    zeroed = {"encoder": 0, "language": 0}
    for layer in find_mlps(tiny, "all"):
        weight = tiny.model.get_submodule(layer.outer).weight
        off = (weight == 0).all(0)
        assert int(off.sum()) == record["by_layer"][layer.outer]
        kept = before[f"{layer.outer}.weight"] * ~off
        assert torch.equal(weight, kept)
        zeroed[layer.part] += int(off.sum())
    assert zeroed == record["by_part"]
    for part, count in zeroed.items():
        layers = [layer for layer in find_mlps(tiny, "all") if layer.part == part]
        width = sum(tiny.model.get_submodule(layer.outer).in_features for layer in layers)
        assert count == round(0.1 * width)


def test_mmunlearner_masks_only_the_ascent() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    weight.grad = torch.tensor([0.5, 0.5])
    masks = {"w": torch.tensor([1.0, 0.0])}
    mmunlearner.ascend({"w": weight}, masks, -weight.square().sum())
    assert weight.grad.tolist() == [0.5 - 2.0, 0.5]


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6, 1e-7])
def test_mmunlearner_masks_match_the_published_ratio_at_any_size_of_gradients(
    size: float, tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(f + 1e-15) / (p + 1e-15) >= threshold, f and p the mean squared gradients."""
    forget = torch.tensor([2.0, 1.0, 0.9, 0.0, 0.0]).square() * size**2
    retain = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]).square() * size**2
    expected = ((forget + 1e-15) / (retain + 1e-15) >= 1.0).float()
    assert expected.tolist() == [1.0, 1.0, 0.0, 0.0, 1.0]
    weight = nn.Parameter(torch.zeros(5))
    sides = iter([retain, forget])
    monkeypatch.setattr(mmunlearner, "squared_gradients", lambda *_: {"w": next(sides)})
    parts = {"visual": {"w": weight}, "language": {}}
    monkeypatch.setattr(type(tiny), "parameters", lambda self, part: parts[part])
    masks, record = METHODS.get("mmunlearner")(trains="visual")._masks(tiny, data, {"w": weight})
    assert masks["w"].tolist() == expected.tolist()
    assert record["visual"] == {"chosen": 3, "of": 5}


def test_mmunlearner_preserves_other_sets_for_each_part(
    tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retain pictures for the visual part; for the LLM texts too, the same people's included."""
    probed: list[set[str]] = []
    real = mmunlearner.answer_probes

    def watch(vlm: VLM, samples: Any) -> Any:
        probed.append({s.id for s in samples})
        return real(vlm, samples)

    monkeypatch.setattr(mmunlearner, "answer_probes", watch)
    # The conftest's texts on the others stand in for texts on the same people.
    texts = [s for s in data.retain if s.picture is None]
    named = [replace(s, id=f"named/{s.id}") for s in texts[:2]]
    whole = replace(data, text_only=named)
    trainer = Trainer(SETTINGS)
    result = METHODS.get("mmunlearner")().unlearn(tiny, whole, trainer)
    target = {s.id for s in data.forget}
    shown = {s.id for s in data.retain if s.picture is not None}
    told = {s.id for s in texts}
    assert probed == [shown, target, shown, told, {s.id for s in named}, target]
    record = result.choices["mask"]
    assert record["preserved_by_name"] == 2
    assert 0 < record["visual"]["chosen"] < record["visual"]["of"]
    bare = Data(data.forget, texts)
    with pytest.raises(DataError, match="retain pictures"):
        METHODS.get("mmunlearner")().unlearn(tiny, bare, trainer)


def test_mmunlearner_keeps_unsalient_weights(tiny_folder: Path, data: Data) -> None:
    vlm, trainer = VLM.load(tiny_folder), Trainer(SETTINGS)
    start = {n: p.detach().clone() for n, p in vlm.parameters().items()}
    method = METHODS.get("mmunlearner")(w_retain=0.0, saliency_threshold=5.0)
    result = method.unlearn(vlm, data, trainer)
    moved = sum(int((p != start[n]).sum()) for n, p in vlm.parameters().items())
    mask = result.choices["mask"]
    assert 0 < moved <= mask["visual"]["chosen"] + mask["language"]["chosen"]
    with pytest.raises(TrainingError, match="selects no weight"):
        METHODS.get("mmunlearner")(saliency_threshold=1e30).unlearn(vlm, data, trainer)


def test_vgid_loss_matches_hand_computation(data: Data) -> None:
    drift = (kl(0.5, 0.25) + kl(0.25, 0.5)) / 2
    terms = loss_of("vgid", STUDENT, TEACHER, w_forget=2.0, w_retain=0.5)
    assert terms == pytest.approx({"forget": 2 * drift, "retain": 0.5 * drift})
    with pytest.raises(ConfigError, match="nothing would be forgotten"):
        METHODS.get("vgid")(noise=0.0, instruction="").validate(data, SETTINGS)


def test_vgid_teacher_gets_noise_and_the_instruction(
    tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, seen = METHODS.get("vgid")(instruction="pilot nurse judge : "), []
    real: Callable[..., dict[str, Tensor]] = type(method).loss

    def watch(
        self: Any, student: VLM, forget: Batch, *rest: Any, blind: Batch
    ) -> dict[str, Tensor]:
        seen.append((forget, blind))
        return real(self, student, forget, *rest, blind=blind)

    monkeypatch.setattr(type(method), "loss", watch)
    method.unlearn(tiny, data, Trainer(replace(SETTINGS, steps=1)))
    ((forget, blind),) = seen
    assert blind.ids == forget.ids
    shown, noise = forget.inputs["pixel_values"], blind.inputs["pixel_values"]
    assert abs(float(torch.corrcoef(torch.stack([shown.flatten(), noise.flatten()]))[0, 1])) < 0.1
    for mine, theirs in zip(forget.labels, blind.labels, strict=True):
        assert torch.equal(mine[mine >= 0], theirs[theirs >= 0])
    read = tiny.processor.tokenizer.decode
    for row, ids in enumerate(blind.inputs["input_ids"]):
        assert "pilot nurse judge" in read(ids)
        assert "pilot nurse judge" not in read(forget.inputs["input_ids"][row])


def test_noised_ranges_from_the_picture_to_noise() -> None:
    pixels = np.full((64, 64, 3), 200, dtype=np.uint8)
    image = Image.fromarray(pixels)
    assert np.array_equal(np.asarray(add_noise(image, np.random.default_rng(0), 0.0)), pixels)
    whole = np.asarray(add_noise(image, np.random.default_rng(0), 1.0), dtype=float)
    assert whole.mean() == pytest.approx(127.5, abs=2)
    assert whole.std() == pytest.approx(64, rel=0.1)
    half = np.asarray(add_noise(image, np.random.default_rng(0), 0.75), dtype=float)
    assert half.mean() == pytest.approx(127.5 + 0.5 * 72.5, abs=3)


def test_smfa_conflicts_match_hand_computation() -> None:
    """rho = 5 / 1; the first agrees, the second is not dominant at k = 2, the third is."""
    forgetting, anchor = torch.tensor([0.0, 3.0, 4.0]), torch.tensor([0.8, -0.6, -0.0])
    assert conflicts(forgetting, anchor, 0.5).tolist() == [False, True, False]
    assert conflicts(forgetting, anchor, 1.0).tolist() == [False, False, False]
    assert conflicts(-forgetting, anchor, 0.0).tolist() == [False, False, False]


def test_smfa_resets_conflicting_weights(tiny_folder: Path, data: Data) -> None:
    def run(k: float) -> tuple[VLM, dict[str, Any]]:
        vlm, trainer = VLM.load(tiny_folder), Trainer(SETTINGS)
        result = METHODS.get("smfa")(k=k).unlearn(vlm, data, trainer)
        return vlm, result.choices["mask"]

    (most, all_of_it), (least, record) = run(1e9), run(0.0)
    start = VLM.load(tiny_folder).parameters()
    for part in ("visual", "language"):
        assert all_of_it[part]["chosen"] == all_of_it[part]["of"] == record[part]["of"]
        assert 0 < record[part]["chosen"] < record[part]["of"]
    back = 0
    for name, weight in least.parameters().items():
        kept = weight == most.parameters()[name]
        assert bool((kept | (weight == start[name])).all())
        back += int((~kept).sum())
    assert back == sum(record[p]["of"] - record[p]["chosen"] for p in ("visual", "language"))


def test_mip_editor_edits_only_neurons_of_the_paths(tiny_folder: Path, data: Data) -> None:
    vlm, trainer = VLM.load(tiny_folder), Trainer(SETTINGS)
    start = {n: p.detach().clone() for n, p in vlm.parameters().items()}
    method = METHODS.get("mip_editor")(top_k=2, frames=2, samples=4)
    result = method.unlearn(vlm, data, trainer)
    layers = find_mlps(vlm, "all")
    assert result.choices["neurons"]["by_layer"] == {layer.outer: 2 for layer in layers}
    named = {layer.outer: layer for layer in layers}
    touched = {n for n, p in vlm.parameters().items() if not torch.equal(p, start[n])}
    for outer in named:
        columns = (vlm.model.get_submodule(outer).weight != start[f"{outer}.weight"]).any(0)
        assert int(columns.sum()) == 2
        for inner in named[outer].inner:
            moved = vlm.model.get_submodule(inner).weight != start[f"{inner}.weight"]
            assert bool((moved.any(1) <= columns).all())
    allowed = {f"{n}.weight" for n in named} | {
        f"{n}.{leaf}" for layer in layers for n in layer.inner for leaf in ("weight", "bias")
    }
    assert touched <= allowed


def test_mip_editor_loss_matches_hand_computation(tiny: VLM, data: Data) -> None:
    """At the start: the target's length is the state's own, and nothing has drifted."""
    batch = tiny.collate(data.forget[:2])
    method = METHODS.get("mip_editor")(layer=0, scale=2.0, gamma=3.0, w_retain=0.0)
    with torch.no_grad():
        terms = method.loss(tiny, batch, batch, tiny.frozen_copy())
        h = hidden_states(tiny, batch, 0)
    assert float(terms["anchor"]) == float(terms["retain"]) == 0.0
    rows = []
    for row, mask, name in zip(h, batch.inputs["attention_mask"], batch.ids, strict=True):
        unit = unit_vector(h.shape[-1], (crc32(name.encode()),))
        goal = 2 * row.norm(dim=-1, keepdim=True) * unit
        rows.append(float((row - goal)[mask == 1].square().mean()))
    assert float(terms["forget"]) == pytest.approx(sum(rows) / 2, rel=1e-4)
