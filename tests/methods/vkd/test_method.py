"""VKD: the effect of each field, erase targets, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unsee.data.selection import one_sample_per_picture
from unsee.data.widening import how_far
from unsee.errors import ConfigError, DataError, TrainingError
from unsee.features.capture import picture_features
from unsee.features.layers import choose_layers
from unsee.features.neurons import find_mlps
from unsee.features.pictures import picture_batches
from unsee.features.statistics import layer_statistics, scaled_distance
from unsee.methods import METHODS
from unsee.methods.vkd import VKD, language_tier
from unsee.methods.vkd.erase_targets import (
    ENOUGH_PEOPLE,
    TYPICAL_TRAITS,
    AnonymousTarget,
    NeutralTarget,
    PushTarget,
    StrangerTarget,
    group_samples,
    traits_of_groups,
    weight_of_traits,
)
from unsee.methods.vkd.layer_statistics import LayerStatistics
from unsee.methods.vkd.populations import (
    GENERATED,
    NEAREST,
    TOO_FEW_PEOPLE,
    generated_samples,
    pictures_of_nearest,
    population_pictures,
)
from unsee.methods.vkd.presets import PAPER
from unsee.models.vlm import VLM
from unsee.training.settings import TrainingSettings
from unsee.training.state import save_state, saved_steps
from unsee.training.trainer import Trainer
from unsee.types import Batch, Data, Picture, Sample

SETTINGS = TrainingSettings(steps=3, batch_size=4, lr=1e-3)


def unlearned(folder: Path, data: Data, **fields: Any) -> VLM:
    vlm = VLM.load(folder)
    METHODS.get("vkd")(**fields).unlearn(vlm, data, Trainer(SETTINGS))
    return vlm


@pytest.mark.parametrize(
    "fields",
    [
        {"supervision": "features"},
        {"answers_every": 2},
        {"w_forget": 0.1},
        {"w_retain": 0.1},
        {"w_keep": 0.1},
        {"w_erase": 0.1},
        {"scale_erase": False},
        {"population": "kept"},
        {"erase": "stranger"},
        {"erase": "neutral"},
        {"erase": "push"},
        {"erase_strength": 0.5},
        {"augment": 0.0},
        {"train_layers": ("projector",)},
        {"trains": "encoder"},
        {"saliency_fraction": 0.2},
        {"prune": 0.1},
        {"relearn_steps": 2},
        {"widen": 8},
    ],
    ids=lambda fields: "-".join(f"{k}={v}" for k, v in fields.items()),
)
def test_vkd_field_changes_the_result_and_never_the_language_part(
    fields: dict[str, Any], tiny: VLM, tiny_folder: Path, data: Data
) -> None:
    # Answers in every step, so that what only they change shows.
    default = unlearned(tiny_folder, data, answers_every=1)
    changed = unlearned(tiny_folder, data, **{"answers_every": 1, **fields})
    assert changed.hash("visual") != default.hash("visual") != tiny.hash("visual")
    assert changed.hash("language") == tiny.hash("language")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"relearn_steps": 2}, {"relearn_lr": 0.01}),
        ({"relearn_steps": 2}, {"relearn_every": 3}),
    ],
)
def test_vkd_field_that_depends_on_another_changes_the_result(
    first: dict[str, Any], second: dict[str, Any], tiny_folder: Path, data: Data
) -> None:
    one, two = (
        unlearned(tiny_folder, data, **first),
        unlearned(tiny_folder, data, **first, **second),
    )
    assert one.hash("visual") != two.hash("visual")


def test_vkd_features_needs_neither_answers_nor_the_language_model(
    tiny_folder: Path, data: Data
) -> None:
    bare = Data(
        [replace(s, question="", answer="") for s in data.forget],
        [replace(s, question="", answer="") for s in data.retain],
        data.strangers,
    )
    whole = unlearned(tiny_folder, bare, supervision="features")
    visual = VLM.load(tiny_folder, visual_only=True)
    METHODS.get("vkd")(supervision="features").unlearn(visual, bare, Trainer(SETTINGS))
    assert visual.hash("visual") == whole.hash("visual")


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"train_layers": ("encoder.99", "nose")}, ConfigError, "'encoder.99' matches nothing"),
        ({"train_layers": ("encoder.9",)}, ConfigError, "matches nothing"),
        ({"train_layers": ("projector",), "trains": "encoder"}, ConfigError, "have no weights"),
        ({"prune": 1e-9}, TrainingError, "is none"),
        ({"trains": "all"}, ConfigError, "freezes the language part"),
        ({"w_forget": 0.0, "w_retain": 0.0, "w_keep": 0.0, "w_erase": 0.0}, TrainingError, "no tr"),
    ],
)
def test_vkd_refuses_fields_that_match_nothing(
    fields: dict[str, Any], error: type[Exception], message: str, tiny: VLM, data: Data
) -> None:
    before = tiny.hash()
    with pytest.raises(error, match=message):
        METHODS.get("vkd")(**fields).unlearn(tiny, data, Trainer(SETTINGS))
    if "prune" not in fields:
        assert tiny.hash() == before


@pytest.mark.parametrize("field", ["saliency_fraction", "prune"])
def test_vkd_refuses_lora_with_fields_that_mask_weights(field: str, data: Data) -> None:
    with pytest.raises(ConfigError, match="lora=0"):
        METHODS.get("vkd")(**{field: 0.5}).validate(data, replace(SETTINGS, lora=4))


@pytest.mark.parametrize(
    ("fields", "runs"),
    [({}, 3), ({"w_retain": 0.0}, 2), ({"w_forget": 0.0}, 1)],
    ids=["teacher and student", "no retain loss", "retain loss alone"],
)
def test_vkd_runs_the_language_model_only_for_terms_that_need_it(
    fields: dict[str, Any], runs: int, tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Batch] = []
    whole = VLM.logits
    monkeypatch.setattr(
        VLM, "logits", lambda vlm, batch: (calls.append(batch), whole(vlm, batch))[1]
    )
    trainer = Trainer(replace(SETTINGS, steps=1))
    result = METHODS.get("vkd")(relearn_steps=0, **fields).unlearn(tiny, data, trainer)
    assert len(calls) == runs
    assert {"erase", "keep"} <= result.history.last.keys()


def test_vkd_population_forget_compares_the_people_to_be_forgotten(tiny: VLM, data: Data) -> None:
    vkd = METHODS.get("vkd")(population="forget")
    distillation = vkd.prepare(tiny, data.forget, data.retain, data.strangers)
    pictures = [s.picture for s in one_sample_per_picture(data.forget) if s.picture is not None]
    mean, _ = layer_statistics(tiny, picture_batches(tiny, pictures), ["projector"])["projector"]
    assert torch.allclose(distillation.statistics.mean["projector"], mean, atol=1e-6)
    # The traits of two people with equally many pictures are opposite.
    assert isinstance(distillation.target, AnonymousTarget)
    ada, bo = (traits["projector"] for traits in distillation.target.traits)
    assert torch.allclose(ada, -bo, atol=1e-5)
    assert float(ada.abs().max()) > 0
    one = [s for s in data.forget if s.concept == data.forget[0].concept]
    with pytest.raises(DataError, match="--set population=kept"):
        vkd.unlearn(tiny, Data(one, data.retain), Trainer(SETTINGS))


def test_vkd_population_generated_compares_with_pictures_of_nobody(tiny: VLM, data: Data) -> None:
    """The composites are the population, and are kept as the teacher sees them."""
    vkd = METHODS.get("vkd")(population="generated")
    distillation = vkd.prepare(tiny, data.forget, data.retain, data.strangers)
    pictures = [s.picture for s in generated_samples(data.forget) if s.picture is not None]
    assert len(pictures) == GENERATED
    mean, _ = layer_statistics(tiny, picture_batches(tiny, pictures), ["projector"])["projector"]
    assert torch.allclose(distillation.statistics.mean["projector"], mean, atol=1e-6)
    kept: list[str] = []
    trainer = Trainer(replace(SETTINGS, steps=8))
    real = trainer.draw
    object.__setattr__(
        trainer, "draw", lambda *given: [kept.append(s.id) or s for s in real(*given)]
    )
    result = vkd.unlearn(tiny, data, trainer)
    assert any(name.startswith("composite") for name in kept)
    assert "of nobody" in result.choices["population"]


def test_vkd_population_nearest_compares_with_the_nearest_people(
    tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ada lies by one, Bo by another of the kept people: that one's mean stands for everyone's."""
    for least in ("NEAREST", "LEAST_PICTURES"):
        monkeypatch.setattr(f"unsee.methods.vkd.populations.{least}", 1)
    layers = ["projector"]

    def centre(samples: Sequence[Sample]) -> Tensor:
        pictures = [s.picture for s in one_sample_per_picture(samples) if s.picture is not None]
        return layer_statistics(tiny, picture_batches(tiny, pictures), layers)["projector"][0]

    # As if Bo's first two pictures were of one kept person, and Ada's of another.
    twins = {"Ada Berg": "Cy Moser", "Bo Lind": "Di Novak"}
    kept = [
        replace(sample, concept=twins[sample.concept or ""])
        for sample in data.forget
        if sample.picture is not None and not sample.picture.source.endswith("-2.png")
    ]
    alone = replace(data.retain[0], concept="Ed Fox")
    vkd = METHODS.get("vkd")(population="nearest")
    target = vkd.prepare(tiny, data.forget, [*kept, alone], data.strangers).target
    assert isinstance(target, AnonymousTarget)
    for name, traits in zip(twins, target.traits, strict=True):
        mine = centre([s for s in data.forget if s.concept == name])
        twin = centre([s for s in kept if s.concept == twins[name]])
        assert torch.allclose(traits["projector"], mine - twin, atol=1e-6), name
    with pytest.raises(DataError, match="does not say who.*--set population=kept"):
        METHODS.get("vkd")(population="nearest").unlearn(
            tiny, replace(data, retain=[replace(alone, concept=None)]), Trainer(SETTINGS)
        )


def test_the_nearest_people_are_three_or_more_where_there_are_few_pictures_of_each() -> None:
    pictures = [Picture(f"{n}.png") for n in range(40)]
    one_each = pictures_of_nearest([[picture] for picture in pictures[:20]], range(20, 0, -1))
    assert one_each == pictures[19:7:-1]
    many_each = pictures_of_nearest([pictures[n : n + 8] for n in range(0, 40, 8)], (4, 0, 1, 2, 3))
    assert many_each == pictures[8:32]


def test_vkd_keeps_alone_where_nothing_is_to_be_erased_with_inner_attacks_too(
    tiny: VLM, data: Data
) -> None:
    vkd = METHODS.get("vkd")(supervision="features", w_erase=0.0, relearn_steps=2)
    assert set(vkd.unlearn(tiny, data, Trainer(SETTINGS)).history.last) == {"keep"}


def test_vkd_validate_refuses_missing_sets(tiny: VLM, data: Data) -> None:
    vkd = METHODS.get("vkd")
    with pytest.raises(DataError, match="--retain"):
        vkd().unlearn(tiny, Data(data.forget, [], data.strangers), Trainer(SETTINGS))
    with pytest.raises(DataError, match="--strangers PATH"):
        vkd(erase="stranger").unlearn(tiny, Data(data.forget, data.retain), Trainer(SETTINGS))
    bare = [replace(s, answer="") for s in data.forget]
    with pytest.raises(ConfigError, match="--supervision features"):
        vkd().unlearn(tiny, Data(bare, data.retain, data.strangers), Trainer(SETTINGS))
    with pytest.raises(DataError, match="needs questions and answers"):
        METHODS.get("npo")().unlearn(tiny, Data(bare, data.retain), Trainer(SETTINGS))


def test_vkd_keeps_pruned_neurons_and_unsalient_weights_unchanged(
    tiny: VLM, tiny_folder: Path, data: Data
) -> None:
    start = tiny.parameters("visual")
    pruned = unlearned(tiny_folder, data, prune=0.2)
    zeroed = 0
    for _, outer in pruned.family.visual_mlps(pruned.model).values():
        columns = pruned.model.get_submodule(outer).weight.abs().sum(0)
        zeroed += int((columns == 0).sum())
    neurons = sum(
        tiny.model.get_submodule(outer).weight.shape[1]
        for _, outer in tiny.family.visual_mlps(tiny.model).values()
    )
    assert zeroed == round(0.2 * neurons)
    masked, trainer = VLM.load(tiny_folder), Trainer(SETTINGS)
    result = METHODS.get("vkd")(saliency_fraction=0.1).unlearn(masked, data, trainer)
    moved = sum(int((p != start[n]).sum()) for n, p in masked.parameters("visual").items())
    weights = sum(p.numel() for p in start.values())
    assert 0 < moved <= result.choices["mask"]["visual"]["chosen"] <= 0.11 * weights


def test_erase_targets_match_features_computed_by_hand(tiny: VLM, data: Data) -> None:
    teacher, layers = tiny.frozen_visual_copy(), choose_layers(tiny, ["all"])
    (inputs,) = picture_batches(teacher, data.strangers)
    statistics = layer_statistics(teacher, [inputs], layers)
    known = picture_features(teacher, inputs, layers)
    for name in layers:
        assert torch.allclose(statistics[name][0], known[name].mean(0), atol=1e-5)
        assert float(statistics[name][1]) == pytest.approx(
            float(known[name].flatten(0, 1).var(0, unbiased=False).mean()), rel=1e-3
        )
    groups = group_samples(data.forget)
    ada, bo = data.forget[0].id, data.forget[-1].id
    strangers = StrangerTarget(teacher, layers, data.strangers, groups)
    target = strangers(inputs, [ada, bo, ada], {})
    for name in layers:
        assert torch.allclose(target[name][0], known[name][0], atol=1e-5)
        assert torch.allclose(target[name][1], known[name][1], atol=1e-5)
        assert torch.allclose(target[name][0], target[name][2], atol=1e-5)
    means = {name: mean for name, (mean, _) in statistics.items()}
    neutral = NeutralTarget(means, aligned=True)(inputs, [ada, bo], {})
    assert neutral["projector"].shape[0] == 2
    assert torch.equal(neutral["projector"][0], statistics["projector"][0])
    with pytest.raises(DataError, match="no erase target assigned"):
        strangers(inputs, ["nobody"], {})


def test_push_target_adds_noise_of_a_tenth_of_the_deviation() -> None:
    torch.manual_seed(0)
    push = PushTarget({"projector": torch.tensor(4.0)})
    h = torch.randn(2, 500, 8)
    target = push({}, ["a", "b"], {"projector": h, "encoder.0": h})
    # Layers without statistics, such as those of a frozen prefix, get no target.
    assert list(target) == ["projector"]
    assert float((target["projector"] - h).std()) == pytest.approx(0.2, rel=0.05)
    # sqrt(4) - sqrt(1), and nothing beyond the margin.
    penalty = push.penalty(torch.tensor([1.0, 4.0, 9.0]))
    assert penalty.tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-5)


@pytest.mark.parametrize(
    ("erase", "kind"),
    [
        ("anonymous", AnonymousTarget),
        ("stranger", StrangerTarget),
        ("neutral", NeutralTarget),
        ("push", PushTarget),
    ],
)
def test_prepare_makes_the_target_of_the_erase_field(
    erase: str, kind: type, tiny: VLM, data: Data
) -> None:
    vkd = METHODS.get("vkd")(erase=erase)
    distillation = vkd.prepare(tiny, data.forget, data.retain[:3], data.strangers)
    assert type(distillation.target) is kind
    assert distillation.teacher is tiny
    assert set(distillation.statistics.mean) == set(distillation.layers)


def test_population_pictures_are_those_to_keep_and_strangers(data: Data) -> None:
    kept = population_pictures(data.forget, data.retain, data.strangers)
    assert [p.source for p in kept] == [p.source for p in (*data.retain_pictures, *data.strangers)]
    forgotten = population_pictures(data.forget, None, data.strangers)
    assert [p.source for p in forgotten] == [p.source for p in data.forget_pictures]


def test_anonymous_target_subtracts_what_a_persons_pictures_have_in_common(
    tiny: VLM, data: Data
) -> None:
    """At strength 1 a person's pictures come to lie around the population's mean."""
    teacher, layers = tiny.frozen_visual_copy(), choose_layers(tiny, ["all"])
    (others,) = picture_batches(teacher, data.strangers)
    statistics = LayerStatistics.of_inputs(teacher, [others], layers)
    mine = one_sample_per_picture([s for s in data.forget if s.concept == "Bo Lind"])
    (inputs,) = picture_batches(teacher, [s.picture for s in mine if s.picture is not None])
    ids = [s.id for s in mine]
    known = picture_features(teacher, inputs, layers)
    groups = group_samples(data.forget)
    traits = traits_of_groups(teacher, data.forget, groups, layers, statistics)
    assert len(traits) == 2
    for strength in (1.0, 1.5):
        target = AnonymousTarget(traits, groups, strength)(inputs, ids, known)
        for name in layers:
            mean, population = known[name].mean(0), statistics.mean[name]
            hand = known[name] - strength * (mean - population)
            assert torch.allclose(target[name], hand, atol=1e-5)
            if strength == 1.0:
                assert torch.allclose(target[name].mean(0), population, atol=1e-5)


def test_scaled_distance_is_the_same_of_stacked_and_of_listed_features() -> None:
    h, t, variance = torch.randn(3, 4, 8), torch.randn(3, 4, 8), torch.tensor(2.0)
    values = scaled_distance(h, t, variance)
    assert torch.allclose(values, ((h - t) ** 2).mean((1, 2)) / 2, atol=1e-6)
    assert torch.equal(scaled_distance(list(h), list(t), variance), values)
    assert not scaled_distance(h, h, variance).any()


def test_vkd_answers_every_applies_the_answer_loss_to_one_batch_in_n(tiny: VLM, data: Data) -> None:
    asked: list[bool] = []

    class Watch:
        def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
            asked.append("forget" in terms and "retain" in terms)
            assert {"erase", "keep"} <= set(terms)

    settings = replace(SETTINGS, steps=5)
    METHODS.get("vkd")(answers_every=2).unlearn(tiny, data, Trainer(settings, progress=Watch()))
    assert asked == [True, False, True, False, True]


def test_vkd_answers_every_holds_after_the_inner_attack_too(
    tiny: VLM, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    logits = VLM.logits
    monkeypatch.setattr(VLM, "logits", lambda vlm, batch: asked.append(1) or logits(vlm, batch))
    passes = []
    for every in (1, 3):
        asked.clear()
        method = METHODS.get("vkd")(answers_every=every, relearn_steps=1, relearn_every=1)
        method.unlearn(tiny, data, Trainer(SETTINGS))
        passes.append(len(asked))
    assert passes[0] == SETTINGS.steps * passes[1] > 0


@pytest.mark.parametrize(
    ("least", "usual", "factor", "steps"),
    [(0.0, 3, 2.0, 6), (100.0, 3, 2.0, 3), (0.0, 400, 2.0, 3), (0.0, 3, 3.0, 9)],
    ids=["alike", "not alike", "steps set", "factor set"],
)
def test_people_who_are_much_alike_take_twice_the_default_steps(
    least: float,
    usual: int,
    factor: float,
    steps: int,
    tiny: VLM,
    data: Data,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unsee.methods.vkd.erase_targets.ALIKE", least)
    monkeypatch.setattr(VKD, "defaults", {"steps": usual})
    method = VKD(supervision="features", alike_steps=factor)
    assert method.unlearn(tiny, data, Trainer(SETTINGS)).history.steps == steps


def test_a_number_of_steps_that_is_set_stays(data: Data) -> None:
    assert VKD().adapt_to(data)[0].alike_steps == VKD().alike_steps == 2.0
    assert VKD().adapt_to(data, given=("steps",))[0].alike_steps == 1.0
    assert VKD(alike_steps=3.0).adapt_to(data, ("steps", "alike_steps"))[0].alike_steps == 3.0


def test_vkd_says_how_far_few_photographs_carry(tiny: VLM, data: Data) -> None:
    method, notes = METHODS.get("vkd")().adapt_to(data, given=("population",))
    assert method == METHODS.get("vkd")()
    assert any(how_far(3) in note for note in notes)
    trainer = Trainer(replace(SETTINGS, steps=1))
    result = METHODS.get("vkd")(widen=8).unlearn(VLM.load(tiny.source), data, trainer)
    assert result.choices["widened_to"] == 8


def test_vkd_compares_with_the_people_most_alike_where_enough_are_named(data: Data) -> None:
    vkd = METHODS.get("vkd")()
    assert len({s.concept for s in data.retain}) < NEAREST
    method, notes = vkd.adapt_to(data)
    assert method.population == "kept" and TOO_FEW_PEOPLE in notes
    unnamed = Data(data.forget, [replace(s, concept=None) for s in data.retain], data.strangers)
    assert vkd.adapt_to(unnamed)[0].population == "kept"
    typed, notes = vkd.adapt_to(data, given=("population",))
    assert typed.population == "nearest" and TOO_FEW_PEOPLE not in notes
    named = [replace(s, concept=f"person {i}") for i, s in enumerate(data.retain)]
    method, notes = vkd.adapt_to(Data(data.forget, named, data.strangers))
    assert method.population == "nearest" and TOO_FEW_PEOPLE not in notes


def test_erase_term_weighs_more_where_people_differ_less(tiny: VLM, data: Data) -> None:
    vkd = METHODS.get("vkd")(population="kept")
    distillation = vkd.prepare(tiny, data.forget, data.retain, data.strangers)
    target, statistics = distillation.target, distillation.statistics
    assert isinstance(target, AnonymousTarget)
    known = sum(
        (mine[name].square().mean() / statistics.variance[name]).item() / len(target.traits)
        for mine in target.traits
        for name in mine
    )
    factor = min(max((TYPICAL_TRAITS / known) ** 1.5, 0.2), 5.0)
    assert target.weight == max(round(factor * len(target.traits) / ENOUGH_PEOPLE, 1), 0.1)
    assert torch.equal(target.penalty(torch.tensor([2.0])), torch.tensor([2.0 * target.weight]))

    def weight(factor: float, times: int = 3) -> float:
        """Of `times` as many people who differ `factor` times as much."""
        traits = [{n: factor * value for n, value in mine.items()} for mine in target.traits]
        return weight_of_traits(times * traits, statistics)

    typical = (TYPICAL_TRAITS / known) ** 0.5
    assert [weight(f * typical) for f in (1.0, 0.5 ** (1 / 3), 2 ** (1 / 3), 0.0, 9.0)] == [
        1,
        2,
        0.5,
        5,
        0.2,
    ]
    assert weight(typical, times=1) == round(len(target.traits) / ENOUGH_PEOPLE, 1)
    plain = replace(vkd, scale_erase=False).prepare(tiny, data.forget, data.retain).target
    assert isinstance(plain, AnonymousTarget) and plain.weight == 1


def test_presets_give_every_value_that_they_depend_on() -> None:
    # A preset is what it was, whatever the defaults become.
    vkd = METHODS.get("vkd")
    changed = {**vkd.defaults, **asdict(vkd())}
    for values in (*vkd.presets.values(), vkd.for_encoders):
        assert set(PAPER) <= set(values) <= set(changed)
    assert {name for name, value in PAPER.items() if changed[name] != value} >= {"steps", "lr"}


def test_tier_language_also_trains_the_mlp_that_retrieves_and_keeps_text(
    tiny: VLM, tiny_folder: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_tier, "STEPS", 3)
    method = VKD(tier="language", supervision="features")
    result = method.unlearn(tiny, data, Trainer(replace(SETTINGS, steps=2)))
    before = VLM.load(tiny_folder).parameters()
    changed = {n for n, p in tiny.parameters().items() if not torch.equal(p, before[n])}
    language = changed & set(tiny.parameters("language"))
    block = find_mlps(tiny, "language")[1]
    assert language == {f"{n}.weight" for n in (block.outer, *block.inner)}
    assert changed > language, "the visual part is trained too"
    assert result.choices["mlps"] == {"chosen": 1, "of": 1}
    assert set(result.choices["language"]["last"]) == {"forget", "retain", "own"}
    assert list(result.history.last) == ["erase", "keep"]


@pytest.mark.parametrize(("stage", "lora"), [("language", 0), ("visual", 2)])
def test_tier_language_that_is_interrupted_ends_in_the_same_weights(
    stage: str,
    lora: int,
    tiny_folder: Path,
    data: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(language_tier, "STEPS", 3)
    method = VKD(tier="language", supervision="features")
    settings = replace(SETTINGS, steps=2, batch_size=2, save_every=1, lora=lora)

    def unlearned(folder: Path) -> dict[str, Tensor]:
        vlm = VLM.load(tiny_folder)
        method.unlearn(vlm, data, Trainer(settings, folder))
        return {name: weight.detach().clone() for name, weight in vlm.parameters().items()}

    unbroken = unlearned(tmp_path / "unbroken")

    def save_and_die(folder: Path, *arguments: Any, **options: Any) -> None:
        save_state(folder, *arguments, **options)
        if (folder.name == "language") == (stage == "language"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("unsee.training.loop.save_state", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            unlearned(tmp_path / "broken")
    assert saved_steps(tmp_path / "broken" / "language") == (1 if stage == "language" else 3)
    resumed = unlearned(tmp_path / "broken")
    assert all(torch.equal(resumed[name], weight) for name, weight in unbroken.items())


def test_tier_language_asks_about_forgotten_people_by_name(data: Data) -> None:
    asked = language_tier._by_name(data.forget, data.retain)
    assert {s.concept for s in asked} == {s.concept for s in data.forget}
    assert all(s.picture is None and str(s.concept) in s.question for s in asked)
    questions = {s.question for s in asked}
    assert "Who is Ada Berg?" in questions and "What does Ada Berg work as a ?" in questions


def test_tier_language_needs_answers(tiny: VLM, data: Data) -> None:
    silent = replace(data, forget=[replace(s, answer="") for s in data.forget])
    method: Any = VKD(tier="language")
    with pytest.raises(ConfigError, match="tier=language needs questions.*Type --tier visual"):
        method.adapt_to(silent)
    with pytest.raises(DataError, match="needs questions and answers"):
        method.unlearn(tiny, silent, Trainer(SETTINGS))
