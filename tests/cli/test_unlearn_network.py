"""`--model MODULE:FUNCTION`: a network of the user's own, forgotten, patched and taken back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from support.cli import unsee
from support.face_network import FaceNetwork, load, preprocess
from unsee.errors import ModelError
from unsee.families.encoders import functions
from unsee.features.capture import picture_features
from unsee.models.dry_run import check_inputs
from unsee.models.vlm import VLM
from unsee.records.reader import Run, read_run
from unsee.requests.models import base_hashes, check_base
from unsee.types import Picture

NETWORK = "support.face_network:load"
ATTACKS = ("prototype", "probe", "difference", "relearn_features")


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A cache of the tests' own, in place of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def run(photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on the network."""
    root = tmp_path_factory.mktemp("network")
    (root / "recipe.yaml").write_text(
        f"model: {NETWORK}\nforget: {photographs['forget']}\nretain: {photographs['retain']}\n"
        "set: {steps: 3, batch_size: 2, lr: 1.0e-3, widen: 0}\n"
        f"attacks: [{', '.join(ATTACKS)}]\n"
    )
    unsee("run", root / "recipe.yaml", "--out", root / "run")
    return read_run(root / "run")


def test_network_is_loaded_with_its_weights_and_blocks() -> None:
    vlm = VLM.load(NETWORK)
    network, _ = load()
    found = vlm.model.network.state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in network.state_dict().items())
    assert vlm.family.visual_layers(vlm.model) == {
        "encoder.0": "network.body.0",
        "encoder.1": "network.body.1",
        "projector": "embedding",
    }


def test_embedding_is_that_of_the_network(photographs: dict[str, Path]) -> None:
    vlm = VLM.load(NETWORK)
    path = next(photographs["forget"].rglob("*.png"))
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    with torch.no_grad():
        features = picture_features(vlm, vlm.collate_pictures([image]), ["encoder.1", "projector"])
        own = load()[0].eval()(preprocess(image)[None])
    assert torch.equal(features["projector"][0], own)
    # 8 x 8 positions of 16 channels.
    assert features["encoder.1"].shape == (1, 64, 16)


def test_doctor_checks_the_network() -> None:
    found = unsee("doctor", NETWORK, "--json")
    assert found["family"] == "module"
    assert found["visual_mlps"] == 0
    assert found["visual_layers"] == ["encoder.0", "encoder.1", "projector"]
    assert all(check["passed"] for check in found["checks"])
    assert found["expected"]["visual"]["seconds"] > 0


def test_run_measures_and_attacks(run: Run) -> None:
    assert run.summary.recognition is not None
    assert run.summary.recognition.encoder
    assert "forget_holdout/features/rank_1" in (run.summary.measures or {})
    assert run.summary.attacks is not None
    assert set(ATTACKS) <= run.summary.attacks.model_dump(exclude_none=True).keys()


def test_patch_gives_weights_that_the_network_itself_loads(run: Run, tmp_path: Path) -> None:
    out, inverse = tmp_path / "out", tmp_path / "inverse"
    patch = run.folder / "patch"
    unsee("apply", patch, "--model", NETWORK, "--out", out, "--inverse", inverse)
    unsee("verify", NETWORK, out, "--require", "language,visual")
    network = FaceNetwork()
    network.load_state_dict(load_file(out / "model.safetensors"))
    before = load()[0].state_dict()
    after = network.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    # Running means are no weights: a patch does not have them, so they must not move.
    assert torch.equal(
        before["body.0.normalisation.running_mean"], after["body.0.normalisation.running_mean"]
    )
    unsee("undo", inverse, "--model", out, "--out", tmp_path / "undone")
    undone = load_file(tmp_path / "undone" / "model.safetensors")
    assert all(torch.equal(before[name], undone[name]) for name in before)


def test_folder_that_names_a_function_is_not_trusted(tmp_path: Path) -> None:
    """Whoever made the folder must not choose what is imported and called here."""
    VLM.load(NETWORK).save(tmp_path / "model")
    functions._allowed.discard(NETWORK)
    with pytest.raises(ModelError, match="Type --trust-remote-code if you trust it"):
        VLM.load(tmp_path / "model")
    assert VLM.load(tmp_path / "model", trust_remote_code=True).family.name == "module"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("support.no_network:load", "ModuleNotFoundError in importing or calling it"),
        ("support.face_network:nothing", "AttributeError in importing or calling it"),
        ("support.face_network:load_broken", "FileNotFoundError in importing or calling it"),
        ("support.face_network.py:load", "Type --model support.face_network:load"),
        ("support.face_network:load_and_exit", "SystemExit in importing or calling it"),
        ("support.face_network:load_uncopyable", "its network cannot be copied"),
        ("support.face_network:load_alone", "it returned an object of type FaceNetwork. Return"),
    ],
)
def test_function_that_returns_no_network_is_refused(name: str, part: str) -> None:
    with pytest.raises(ModelError, match=part):
        VLM.load(name)


def test_network_without_embedding_is_refused() -> None:
    vlm = VLM.load("support.face_network:load_maps")
    with pytest.raises(ModelError, match=r"makes \[2, 16, 8, 8\] of 2 pictures. Return"):
        vlm.model(torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("load_with_broken_preprocess", r"KeyError in its preprocessing of a picture \('RGB'\)"),
        ("load_with_whole_numbers", r"makes whole numbers \(torch.uint8\).*tensor.float"),
    ],
)
def test_preprocessing_that_fails_is_refused(name: str, part: str) -> None:
    vlm = VLM.load(f"support.face_network:{name}")
    with pytest.raises(ModelError, match=part):
        vlm.collate_pictures([Image.new("RGB", (40, 40))])


def test_what_a_function_prints_is_kept_off_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With --json, standard output holds nothing but the result."""
    vlm = VLM.load("support.face_network:load_loudly")
    vlm.collate_pictures([Image.new("RGB", (40, 40))])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "reading weights" in printed.err and "a picture" in printed.err


def test_extra_state_of_a_network_is_no_weight() -> None:
    vlm = VLM.load("support.face_network:load_with_extra_state")
    assert vlm.model.network.get_extra_state() == {"version": 1}


def test_network_that_fails_is_named_with_what_it_was_given(
    photographs: dict[str, Path],
) -> None:
    vlm = VLM.load("support.face_network:load_with_one_channel")
    picture = Picture.from_path(next(photographs["forget"].rglob("*.png")))
    part = r"one_channel': RuntimeError in its network, given pictures of shape \[1, 1, 32, 32\]"
    with pytest.raises(ModelError, match=part):
        check_inputs(vlm, [], [picture])


def test_ledger_says_that_a_function_must_give_the_same_weights() -> None:
    known = base_hashes(NETWORK)
    check_base(NETWORK, known)
    with pytest.raises(ModelError, match="the function load the same weights on every call, or"):
        check_base(NETWORK, dict.fromkeys(known, "0"))
