"""Laws that every model family must satisfy, on a tiny checkpoint of each."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from support.families import make_or_skip
from support.tiny import RECIPES
from unsee.errors import ModelError
from unsee.evaluation.generation import answer_and_score, answer_nlls, generate
from unsee.families import FAMILIES, Family, family_of
from unsee.features.capture import capture, layer_outputs, picture_features, split_by_picture
from unsee.features.layers import choose_layers, hidden_states, layer_parameters
from unsee.features.neuron_paths import influential_path
from unsee.features.neurons import activity, find_mlps
from unsee.features.pictures import picture_batches
from unsee.features.statistics import RepresentationShift
from unsee.losses import IGNORE, sequence_nll
from unsee.methods.vkd.frozen_prefix import frozen_prefix, replayed
from unsee.models import attention
from unsee.models.checkpoint import checkpoint_names, weight_map
from unsee.models.self_check import CHECKS, self_check
from unsee.models.vlm import VLM
from unsee.recipes.components import build_method
from unsee.recipes.sources import make_data
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Picture, Sample

NAMES = list(RECIPES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny checkpoint of a family, built once per session."""
    root = tmp_path_factory.mktemp("families")

    def folder(name: str) -> Path:
        return root / name if (root / name).exists() else make_or_skip(name, root / name)

    return folder


@pytest.fixture(scope="module")
def loaded(folders: Callable[[str], Path]) -> Callable[[str], VLM]:
    """The tiny model of a family as it was loaded, once; tests change copies."""
    return cache(lambda name: VLM.load(folders(name)))


@pytest.fixture(params=NAMES)
def vlm(request: pytest.FixtureRequest, loaded: Callable[[str], VLM]) -> VLM:
    """A family's tiny model."""
    return loaded(request.param).copy()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    """Noise in four shapes."""
    folder, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    found = []
    for width, height in ((28, 28), (56, 28), (30, 70), (56, 56)):
        path = folder / f"{width}x{height}.png"
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        found.append(Picture.from_path(path))
    return found


@pytest.fixture(scope="module")
def samples(pictures: list[Picture]) -> list[Sample]:
    """One picture in several shapes, two in one sample, and none."""
    one, two, three, four = pictures
    return [
        Sample("a", "Who is this?", "Ada Berg", one),
        Sample("b", "And who is that, then?", "Bo", two),
        Sample("c", "Which of them?", "the tall one", three, further=(four,)),
        Sample("d", "What does Ada do?", "She bakes."),
        Sample("e", "Who?", "Cy Moser", four),
    ]


def test_every_model_type_has_a_tiny_recipe() -> None:
    assert set(RECIPES) == {t for _, family in FAMILIES.items() for t in family.model_types}
    assert {family_of(name).name for name in RECIPES} == set(FAMILIES.names()) - {"generic"}


def test_collate_labels_cover_exactly_the_answer(vlm: VLM, samples: list[Sample]) -> None:
    batch = vlm.collate(samples)
    tokens = vlm.processor.tokenizer
    end = "<end_of_turn>" if vlm.family.name == "gemma3" else tokens.eos_token
    for sample, row in zip(samples, batch.labels, strict=True):
        answer = tokens.decode(row[row != IGNORE])
        # A space that the template writes before the answer belongs to it.
        assert answer.lstrip(" ") == f"{sample.answer}{end}"
        assert tokens.decode(row[row != IGNORE][-1]) == end
    assert bool((batch.labels[batch.inputs["attention_mask"] == 0] == IGNORE).all())
    assert batch.pictures == (1, 1, 2, 0, 1)
    chats = vlm.collate(samples, with_answer=False)
    assert bool((chats.labels == IGNORE).all())
    assert bool((chats.inputs["attention_mask"][:, -1] == 1).all())


def test_self_check_passes(vlm: VLM) -> None:
    """What a checkpoint of a found type must keep on load, the others keep as well."""
    checks = self_check(vlm.model, vlm.processor, vlm.family)
    assert len(checks) == len(CHECKS)
    assert [check for check in checks if not check.passed] == []


def test_parameters_of_the_visual_part_are_those_of_its_two(vlm: VLM) -> None:
    parts = [set(vlm.parameters(p)) for p in ("encoder", "projector", "language")]
    assert all(parts)
    assert set(vlm.parameters("visual")) == parts[0] | parts[1]
    with pytest.raises(ModelError, match="unknown part 'eyes'"):
        vlm.parameters("eyes")


def test_save_then_load_keeps_the_logits(vlm: VLM, samples: list[Sample], tmp_path: Path) -> None:
    vlm.save(tmp_path / "model")
    again = VLM.load(tmp_path / "model")
    batch, twin = vlm.collate(samples), again.collate(samples)
    assert torch.equal(batch.inputs["input_ids"], twin.inputs["input_ids"])
    with torch.no_grad():
        assert torch.equal(vlm.logits(batch), again.logits(twin))


def test_answers_in_batches_equal_each_alone(vlm: VLM, samples: list[Sample]) -> None:
    """Answers and likelihoods equal those of the model's own `generate`; pictures are read once."""
    longer = [
        replace(s, id=f"{s.id}2", question=f"{s.question} Do tell, and more.") for s in samples
    ]
    begun = replace(samples[0], id="begun", prefill="It is")
    bare = replace(samples[1], id="bare", answer="")
    asked, seen = [*samples, *longer, begun, bare], list[int]()
    projector = vlm.model.get_submodule(vlm.family.visual_layers(vlm.model)["projector"])
    handle = projector.register_forward_hook(lambda *_: seen.append(1))
    texts, nlls = answer_and_score(vlm, asked, batch_size=4, max_new_tokens=6)
    handle.remove()
    if vlm.family.reuses_prefix:
        assert len(seen) == 1
    tokens = vlm.processor.tokenizer
    for sample, text, value in zip(asked, texts, nlls, strict=True):
        inputs = vlm.collate([sample], with_answer=False).inputs
        made = vlm.model.generate(**inputs, max_new_tokens=6, pad_token_id=tokens.pad_token_id)
        new = made[0, inputs["input_ids"].shape[1] :]
        assert text == tokens.decode(new, skip_special_tokens=True).strip()
        if sample.answer:
            batch = vlm.collate([sample])
            with torch.no_grad():
                alone = float(sequence_nll(vlm.logits(batch), batch.labels))
            assert value == pytest.approx(alone, abs=1e-4), sample.id
        else:
            assert math.isnan(value)
    assert answer_nlls(vlm, asked) == pytest.approx(nlls, abs=1e-4, nan_ok=True)
    assert generate(vlm, asked, max_new_tokens=6) == texts


def test_collate_extra_padding_does_not_change_the_loss(vlm: VLM, samples: list[Sample]) -> None:
    shown = [s for s in samples if s.pictures]
    long = Sample("z", "Who is it? " * 9, "Di " * 9, shown[0].picture)
    with torch.no_grad():
        for sample in shown:
            alone, padded = vlm.collate([sample]), vlm.collate([sample, long])
            one = sequence_nll(vlm.logits(alone), alone.labels)
            two = sequence_nll(vlm.logits(padded), padded.labels)
            assert torch.allclose(one[0], two[0], atol=1e-4)


def test_logits_of_a_mixed_batch_equal_its_rows(vlm: VLM, samples: list[Sample]) -> None:
    with torch.no_grad():
        batch = vlm.collate(samples)
        together = sequence_nll(vlm.logits(batch), batch.labels)
        for sample, value in zip(samples, together, strict=True):
            alone = vlm.collate([sample])
            assert torch.allclose(
                sequence_nll(vlm.logits(alone), alone.labels)[0], value, atol=1e-4
            ), sample.id


def test_visual_only_model_gives_the_same_features(vlm: VLM, pictures: list[Picture]) -> None:
    visual = VLM.load(vlm.source, visual_only=True)
    layers = choose_layers(vlm, ["all"])
    assert layers[0] == "encoder.0"
    assert layers[-1] == "projector"
    (inputs,) = picture_batches(vlm, pictures)
    with torch.no_grad():
        whole, part = (
            picture_features(vlm, inputs, layers),
            picture_features(visual, inputs, layers),
        )
    for name in layers:
        assert len(whole[name]) == len(pictures)
        assert all(torch.equal(a, b) for a, b in zip(whole[name], part[name], strict=True))
    assert all(p.is_meta for p in visual.parameters("language").values())
    assert visual.hash("visual") == vlm.hash("visual")


def test_visual_forward_equals_the_whole_model(vlm: VLM, samples: list[Sample]) -> None:
    """Features of a picture do not depend on its row or batch."""
    layers = choose_layers(vlm, ["all"])
    batch = vlm.collate(samples)
    with torch.no_grad(), capture(vlm, layers) as found:
        vlm.logits(batch)
    inputs = vlm.visual_inputs(batch)
    whole = split_by_picture(vlm, found, inputs)
    with torch.no_grad():
        part = picture_features(vlm, inputs, layers)
    for name in layers:
        assert len(whole[name]) == sum(batch.pictures)
        for a, b in zip(whole[name], part[name], strict=True):
            assert torch.equal(a, b)
    # A sample with a single picture gives that picture's features.
    for row, sample in ((0, samples[0]), (1, samples[1]), (4, samples[4])):
        assert sample.picture is not None
        with torch.no_grad():
            inputs = vlm.collate_pictures([vlm.image(sample.picture)])
            alone = picture_features(vlm, inputs, layers)
        for name in layers:
            seen = whole[name][sum(batch.pictures[:row])]
            assert seen.shape == alone[name][0].shape
            assert torch.allclose(seen, alone[name][0], atol=1e-4), name


def test_layers_below_the_trained_ones_need_not_run(vlm: VLM, pictures: list[Picture]) -> None:
    layers = choose_layers(vlm, ["all"])
    encoder = [name for name in layers if name.startswith("encoder.")]
    prefix = frozen_prefix(vlm, layer_parameters(vlm, "visual", [encoder[-1], "projector"]))
    assert prefix == encoder[:-1]
    assert frozen_prefix(vlm, layer_parameters(vlm, "visual", ["projector"])) == encoder
    assert frozen_prefix(vlm, vlm.parameters("visual")) == []
    (inputs,) = picture_batches(vlm, pictures)
    with torch.no_grad():
        known = layer_outputs(vlm, inputs, layers)
        # Noise, because layer norms would remove a constant.
        noise = {name: torch.randn_like(known[name]) for name in prefix}
        for shift in (0.0, 1.0):
            with replayed(vlm, {name: known[name] + shift * noise[name] for name in prefix}):
                again = layer_outputs(vlm, inputs, layers)
            # The replayed output is the input of the layers above.
            for name in layers:
                assert torch.equal(again[name], known[name]) == (shift == 0), (name, shift)
        after = layer_outputs(vlm, inputs, layers)
    assert all(torch.equal(after[name], known[name]) for name in layers)


def test_unread_layers_do_not_run(vlm: VLM, samples: list[Sample]) -> None:
    unread = vlm.family.unread_layers(vlm.model)
    if not unread:
        pytest.skip("every layer is read")
    ran: list[str] = []
    for name in unread:
        for child in vlm.model.get_submodule(name).children():
            child.register_forward_hook(lambda *_, name=name: ran.append(name))
    batch = vlm.collate(samples)
    with torch.no_grad():
        skipped = vlm.logits(batch)
        assert not ran
        for name in unread:
            del vlm.model.get_submodule(name).forward
        assert torch.equal(vlm.logits(batch), skipped)
    assert set(ran) == set(unread)


def test_headwise_attention_matches_torch(
    vlm: VLM, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "MIN_TOKENS", 1)
    inputs = vlm.collate_pictures([picture.open() for picture in pictures])
    asked: list[int] = []

    def counted(*given: Any) -> Any:
        asked.append(1)
        return apply(*given)

    apply = attention.Headwise.apply
    monkeypatch.setattr(attention.Headwise, "apply", counted)
    found = {}
    for kind in ("sdpa", "headwise"):
        half = vlm.copy()
        half.model.bfloat16()
        half.model.set_attn_implementation(kind)
        layers = choose_layers(half, ["all"])
        with torch.no_grad():
            found[kind] = layer_outputs(half, inputs, layers)
    # Their towers use attention masks, for which torch's own attention is used.
    assert bool(asked) == (vlm.family.name not in ("idefics2", "mllama"))
    for name, seen in found["sdpa"].items():
        error = (found["headwise"][name] - seen).float().norm() / seen.float().norm()
        assert error < 0.02, name


def test_frozen_copies_share_the_stated_parameters(vlm: VLM) -> None:
    teacher = vlm.frozen_visual_copy()
    for name, parameter in vlm.parameters("language").items():
        assert teacher.parameters("language")[name] is parameter
    for name, parameter in vlm.parameters("visual").items():
        mine = teacher.parameters("visual")[name]
        assert mine is not parameter
        assert torch.equal(mine, parameter)
        assert not mine.requires_grad


def test_checkpoint_keys_find_every_parameter(vlm: VLM) -> None:
    files = weight_map(vlm.source)
    found = checkpoint_names(vlm.family, files, [n for n, _ in vlm.model.named_parameters()])
    assert set(found.values()) == set(files)


def test_visual_mlps_are_matching_linear_layers(vlm: VLM) -> None:
    mlps = vlm.family.visual_mlps(vlm.model)
    assert mlps
    for inner, outer in mlps.values():
        one, two = vlm.model.get_submodule(inner), vlm.model.get_submodule(outer)
        assert one.weight.shape[0] == two.weight.shape[1]


def test_erasing_reaches_all_layers_that_feed_the_llm(
    folders: Callable[[str], Path], pictures: list[Picture]
) -> None:
    """Qwen3-VL's deepstack tokens bypass the projector; the default erase layers include them."""
    vlm = VLM.load(folders("qwen3_vl"))
    assert choose_layers(vlm, ["projector"]) == ["deepstack.0", "projector"]
    assert choose_layers(vlm, ["encoder"]) == ["encoder.0", "encoder.1"]
    assert choose_layers(vlm, ["upper"]) == ["encoder.1", "deepstack.0", "projector"]
    # Only the erase term, and only the deepstack merger is trained.
    method = build_method(
        "vkd",
        {"supervision": "features", "w_keep": 0, "w_erase": 1, "erase": "neutral", "augment": 0},
    )
    before = {n: p.detach().clone() for n, p in vlm.parameters("visual").items()}
    data = make_data(
        [Sample("a", "", "", pictures[0], "Ada")], [Sample("b", "", "", pictures[3], "Bo")]
    )
    shift = RepresentationShift.before(vlm, data)
    method.unlearn(vlm, data, Trainer(TrainingSettings(steps=1, batch_size=1, lr=1e-3)))
    moved = {n for n, p in vlm.parameters("visual").items() if not torch.equal(p, before[n])}
    assert any("deepstack_merger_list" in name for name in moved)
    assert shift.after(vlm)["forget_shift"] > 0


def test_check_processor_refuses_gemma3_with_pan_and_scan(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    source = folders("gemma3")
    shutil.copytree(source, tmp_path / "model")
    (file,) = (tmp_path / "model").glob("*processor_config.json")
    content = json.loads(file.read_text())
    content.get("image_processor", content)["do_pan_and_scan"] = True
    file.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"do_pan_and_scan.* Set it to false"):
        VLM.load(tmp_path / "model")
    with pytest.raises(ModelError, match="do_pan_and_scan"):
        VLM.load(tmp_path / "model", visual_only=True)


@pytest.mark.parametrize("kept", ["processor_config.json", "video_preprocessor_config.json"])
def test_save_processor_keeps_the_video_configuration(
    kept: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(folders("qwen2_vl"), source)
    told = {"video_processor_type": "Qwen2VLVideoProcessor", "merge_size": 2}
    path = source / "processor_config.json"
    config = json.loads(path.read_text()) | {"video_processor": told}
    if kept != path.name:
        (source / kept).write_text(json.dumps(config.pop("video_processor")))
    path.write_text(json.dumps(config))
    VLM.load(source).save(tmp_path / "saved")
    found = json.loads((tmp_path / "saved" / "processor_config.json").read_text())
    if "video_processor" not in found:
        found["video_processor"] = json.loads((tmp_path / "saved" / kept).read_text())
    assert {name: found["video_processor"].get(name) for name in told} == told
    assert type(VLM.load(tmp_path / "saved").processor).__name__ == "Qwen2VLProcessor"


def test_processor_saved_without_video_loads_with_torchvision(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    """With torchvision, transformers' own class requires a video processor, which is missing."""
    source = folders("qwen2_vl")
    shutil.copytree(source, tmp_path / "model")
    path = tmp_path / "model" / "processor_config.json"
    config = json.loads(path.read_text())
    config.pop("video_processor", None)
    path.write_text(json.dumps(config))
    assert not (tmp_path / "model" / "video_preprocessor_config.json").exists()
    assert type(VLM.load(tmp_path / "model").processor).__name__ == "Qwen2VLProcessor"


def test_open_processor_names_a_missing_package(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folders("smolvlm")
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", None)
    with pytest.raises(ModelError, match=r"needs a package that is not installed.*num2words"):
        VLM.load(source)


def test_hidden_of_a_mixed_batch_equals_its_rows(vlm: VLM, samples: list[Sample]) -> None:
    with torch.no_grad():
        batch = vlm.collate(samples)
        together = hidden_states(vlm, batch, None)
        assert together.shape[:2] == batch.labels.shape
        for row, sample in enumerate(samples):
            alone = hidden_states(vlm, vlm.collate([sample]), None)[0]
            assert torch.allclose(together[row, : len(alone)], alone, atol=1e-4), sample.id


def test_find_mlps_finds_encoder_and_llm(vlm: VLM, samples: list[Sample]) -> None:
    layers = find_mlps(vlm, "all")
    blocks = vlm.family.language_layers(vlm.model)
    assert [layer.part for layer in layers].count("language") == len(blocks)
    assert list(blocks) == [f"language.{i}" for i in range(len(blocks))]
    for layer in layers:
        outer = vlm.model.get_submodule(layer.outer)
        assert outer.in_features == 2 * outer.out_features
        assert layer.inner
    seen = activity(vlm, samples, layers, 0.1)
    assert all(bool(a.mean.any()) for a in seen.values())
    for part, fisher in (("encoder", True), ("language", False)):
        mine = [layer for layer in layers if layer.part == part]
        shown = [s for s in samples if len(s.pictures) == 1]
        path = influential_path(vlm, mine, shown, top=2, frames=2, fisher=fisher)
        assert all(int(chosen.sum()) == 2 for chosen in path.values())


def test_family_accepts_old_attribute_names_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match="chats is now uses_chat_template"):

        class Old(Family):
            chats = False

    assert not Old().uses_chat_template
