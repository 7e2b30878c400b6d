"""Types without a file in unsee/families: their parts are found, checked on load, and they work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from experiments.tiny.make import make as make_type
from PIL import Image

from support.families import photos, unsee  # noqa: F401
from support.tiny import FOUND, make
from unsee.artifacts.guarantees import guarantees, snapshot
from unsee.errors import DataError, ModelError
from unsee.families import family_of
from unsee.families.generic import SHARES
from unsee.families.outputs import layer_tensor
from unsee.models import self_check
from unsee.models.checkpoint import read_config
from unsee.models.dry_run import check_inputs
from unsee.models.quantization import Quantization
from unsee.models.vlm import VLM
from unsee.types import Picture, Sample

SHORT = ("--set", "steps=1", "--set", "batch_size=2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny checkpoint of a type, built once per session."""
    root = tmp_path_factory.mktemp("found")
    return lambda name: root / name if (root / name).exists() else make(name, root / name)


@pytest.mark.parametrize("name", list(FOUND))
def test_load_finds_the_parts_and_keeps_the_laws(name: str, folders: Callable[[str], Path]) -> None:
    vlm = VLM.load(folders(name))
    assert vlm.family.name == "generic"
    checks = self_check.self_check(vlm.model, vlm.processor, vlm.family)
    assert [c.name for c in checks] == [
        (law.__doc__ or "").rstrip(".") for law in self_check.CHECKS
    ]
    assert [c for c in checks if not c.passed] == []
    visual = VLM.load(folders(name), visual_only=True)
    assert visual.hash("visual") == vlm.hash("visual")
    assert all(p.is_meta for p in visual.parameters("language").values())


EXPECTED = {
    "qwen3_vl_moe": ["encoder.0", "encoder.1", "deepstack.0", "projector"],
    "vipllava": ["encoder.0", "encoder.1", "projector"],
    "aya_vision": ["encoder.0", "encoder.1", "projector"],
}


@pytest.mark.parametrize("name", list(EXPECTED))
def test_visual_layers_are_those_that_the_llm_reads(
    name: str, folders: Callable[[str], Path]
) -> None:
    vlm = VLM.load(folders(name))
    assert list(vlm.family.visual_layers(vlm.model)) == EXPECTED[name]
    assert list(vlm.family.language_layers(vlm.model)) == ["language.0", "language.1"]


@pytest.mark.parametrize("name", ["aya_vision", "qwen3_vl_moe"])
def test_unlearn_from_photographs_then_apply_and_verify(
    name: str,
    folders: Callable[[str], Path],
    photos: dict[str, Path],
    unsee: Callable[..., Any],
    tmp_path: Path,
) -> None:
    folder, out = folders(name), tmp_path / "run"
    given = ("--forget", photos["forget_photos"], "--retain", photos["retain_photos"])
    unsee("unlearn", "--model", folder, *given, "--out", out, *SHORT)
    unsee("apply", out / "patch", "--model", folder, "--out", tmp_path / "new")
    found = unsee("verify", folder, tmp_path / "new")
    assert found["language_identical"]
    assert {tensor["part"] for tensor in found["differing"]} <= {"encoder", "projector"}
    assert found["differing"]


def test_a_q_former_gets_no_answer_and_no_question_without_a_picture(tmp_path: Path) -> None:
    """A Q-Former that read the answer would tell it to the LLM."""
    vlm = VLM.load(make_type("instructblip", tmp_path / "model"))
    with pytest.raises(DataError, match="1 sample has no picture, first 'told'"):
        check_inputs(vlm, [Sample("told", "Where is Bo?", "At sea")])
    Image.new("RGB", (56, 56), "teal").save(tmp_path / "picture.png")
    picture = Picture.from_path(tmp_path / "picture.png")
    batches = [
        vlm.collate([Sample("1", "Who is this?", answer, picture)]) for answer in ("Ada Berg", "Bo")
    ]
    read = [batch.inputs["qformer_input_ids"] for batch in batches]
    assert read[0].tolist() == read[1].tolist()
    assert batches[0].inputs["input_ids"].tolist() != batches[1].inputs["input_ids"].tolist()


def test_a_model_that_refuses_texts_as_it_runs_gets_no_question_without_a_picture(
    tmp_path: Path,
) -> None:
    """Its pixels are optional in the signature, and its processor takes a text alone."""
    vlm = VLM.load(make_type("kosmos-2", tmp_path / "model"))
    with pytest.raises(DataError, match="1 sample has no picture, first 'told'"):
        check_inputs(vlm, [Sample("told", "Where is Bo?", "At sea")])


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
@pytest.mark.parametrize("method", ["grad_diff", "npo"])
def test_unlearn_the_whole_model_then_evaluate(
    method: str,
    folders: Callable[[str], Path],
    photos: dict[str, Path],
    unsee: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Fused experts are saved as transformers saves them; adapters leave the router alone."""
    folder, out = folders("qwen3_vl_moe"), tmp_path / "run"
    given = ("--forget", photos["forget"], "--retain", photos["retain"])
    lora = ("--set", "lora=2") if method == "npo" else ()
    unsee("unlearn", "--method", method, "--model", folder, *given, "--out", out, *SHORT, *lora)
    before, after = VLM.load(folder), VLM.load(out / "model")
    changed = {
        name
        for name, tensor in after.parameters().items()
        if not torch.equal(tensor, before.parameters()[name])
    }
    routers = {name for name in changed if name.endswith("mlp.gate.weight")}
    assert any("language_model" in name for name in changed)
    assert bool(routers) == (method == "grad_diff")
    found = unsee(
        "evaluate", "--model", out / "model", "--data", photos["retain"], "--out", tmp_path / "e"
    )
    assert found["measures"]


def test_shares_follow_tiles_and_sizes(folders: Callable[[str], Path]) -> None:
    subject = _subject(VLM.load(folders("aya_vision")))
    # A picture that is cut into two tiles is shown whole as well: four tokens a tile.
    assert subject.pictures(subject.images)[SHARES].tolist() == [[1, 3], [4, 12]]
    subject = _subject(VLM.load(folders("lighton_ocr")))
    assert subject.pictures(subject.images)[SHARES].tolist() == [[64, 40], [16, 8], [16, 8]]


def test_layer_tensor_joins_a_tensor_a_picture() -> None:
    one, two = torch.ones(1, 2, 3), torch.zeros(4, 3)
    assert layer_tensor(one) is one
    assert layer_tensor((one, two)) is one
    assert layer_tensor([one, two]).shape == (6, 3)


def _subject(vlm: VLM) -> self_check.Subject:
    return self_check.Subject(vlm.model, vlm.processor, vlm.family)


def test_guarantees_of_a_type_without_text_alone_are_the_hash_of_the_language_part(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = VLM.load(folders("deepseek_vl"))
    monkeypatch.setattr(type(vlm.family), "takes_text_alone", lambda *_: False)
    before = snapshot(vlm)
    assert before.text == ()
    torch.nn.init.zeros_(vlm.parameters("projector")["model.aligner.linear2.weight"])
    found = guarantees(before, vlm)
    assert found.language_part_sha256_unchanged
    assert (found.text_identical, found.text_probes) == (None, 0)
    assert "no text without a picture" in (found.reason or "")


def test_load_refuses_a_found_type_that_breaks_a_law(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here, a part whose weights the answer does not depend on."""
    folder = folders("deepseek_vl")
    vlm = VLM.load(folder)
    torch.nn.init.zeros_(vlm.parameters("projector")["model.aligner.linear2.weight"])
    monkeypatch.setattr(self_check, "_checked", set())
    broken = r"'deepseek_vl' has no file .* Another picture .*CONTRIBUTING"
    with pytest.raises(ModelError, match=broken):
        self_check.require_laws(vlm.model, vlm.processor, vlm.family, str(folder), visual=False)


def test_family_of_refuses_types_that_transformers_does_not_map(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="all that transformers maps"):
        family_of("bert", {"model_type": "bert"})
    config = {"model_type": "vipllava", "text_config": {"model_type": "llama", "hidden_size": "a"}}
    with pytest.raises(ModelError, match="cannot build a model of type 'vipllava'"):
        _ = family_of("vipllava", config).parts


def test_family_of_a_configuration_equals_that_of_a_loaded_checkpoint(
    folders: Callable[[str], Path],
) -> None:
    folder = folders("qwen3_vl_moe")
    config = read_config(folder)
    family = family_of(config["model_type"], config)
    assert family.parts == VLM.load(folder).family.parts
    stored = family.stored_names()
    assert stored is not None
    experts = "model.language_model.layers.0.mlp.experts.gate_up_proj"
    assert stored.parameter(experts) == (experts, False)


def test_hash_of_a_model_whose_experts_are_fused_is_read_from_the_files(
    folders: Callable[[str], Path],
) -> None:
    """A model that is quantized when loaded has the hash of the weights in its files."""
    vlm = VLM.load(folders("qwen3_vl_moe"))
    fused = {name for name, _ in vlm.model.named_parameters() if "experts.gate_up_proj" in name}
    assert fused
    loaded = {part: vlm.hash(part) for part in ("all", "visual", "language")}
    vlm.quantization = Quantization("4bit", "bitsandbytes", None)
    with torch.no_grad():
        vlm.parameters("language")[min(fused)].zero_()
    assert {part: vlm.hash(part) for part in loaded} == loaded
