"""Uploads, by the client of the hub to the stand-in in `support.hub`; no real hub is asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

import unsee as package
from support.cli import unsee
from support.hub import TOKEN, LocalHub
from unsee.errors import HubError, PatchError, RunError
from unsee.hub.names import Repository
from unsee.hub.uploads import upload
from unsee.models.vlm import VLM

CARD = "README.md"


@pytest.fixture
def token(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def published(hub: LocalHub, name: str, revision: str = "main") -> ModelCard:
    return ModelCard(hub.files(name, revision)[CARD].decode())


@pytest.mark.usefixtures("token")
def test_push_uploads_a_patch_that_apply_takes(
    hub: LocalHub, run: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    commit = hub.add("lab/model", tiny_folder)
    hub.add("lab/model", {**hub.files("lab/model"), CARD: b"---\nlicense: mit\n---\n"})
    shown = unsee("push", run, "--repo", "lab/forgets", "--private")
    assert "lab/forgets: 3 files uploaded: README.md" in shown
    repo = hub.repos["model", "lab/forgets"]
    assert repo.private and f"commit {repo.refs['main']}: " in shown
    files = hub.files("lab/forgets")
    assert sorted(files) == [CARD, "manifest.json", "patch.safetensors"]
    for name in ("manifest.json", "patch.safetensors"):
        assert files[name] == (run / "patch" / name).read_bytes()
    summary = json.loads((run / "summary.json").read_text())
    card = published(hub, "lab/forgets")
    assert (card.data.base_model, card.data["base_model_relation"]) == ("lab/model", "finetune")
    assert (card.data.pipeline_tag, card.data.license) == ("image-text-to-text", "mit")
    assert card.data.library_name == "unsee" and "machine-unlearning" in card.data.tags
    scored = {k: m["value"] for k, m in summary["measures"].items() if m["value"] is not None}
    results = {
        f"{r.dataset_split}/{r.dataset_config}/{r.metric_type}": r.metric_value
        for r in card.data.eval_results
    }
    assert results == {key: round(value, 4) for key, value in scored.items()} and results
    assert "`unsee apply hub:lab/forgets --model lab/model --out OUT`" in card.text
    patch = package.load_patch(run / "patch")
    assert f"- base: `lab/model`, commit `{commit}`" in card.text
    assert f"- patch 1: `{patch.id}` (vkd, " in card.text
    assert f"`{patch.manifest.base_sha256}`" in card.text
    unsee("apply", "hub:lab/forgets", "--model", tiny_folder, "--out", tmp_path / "there")
    unsee("apply", run / "patch", "--model", tiny_folder, "--out", tmp_path / "here")
    assert VLM.load(tmp_path / "there").hash() == VLM.load(tmp_path / "here").hash()


@pytest.mark.usefixtures("token")
def test_push_of_a_model_uploads_the_patched_checkpoint(
    hub: LocalHub, run: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    hub.add("lab/model", tiny_folder)
    given = ("push", run, "--repo", "lab/model-forgets", "--what", "model", "--license", "mit")
    assert unsee(*given, "--json")["kind"] == "model"
    vlm = package.load_patch(run / "patch").apply(VLM.load(tiny_folder))
    assert VLM.load("lab/model-forgets").hash() == vlm.hash()
    card = published(hub, "lab/model-forgets")
    assert (card.data.base_model, card.data.library_name) == ("lab/model", "transformers")
    assert "AutoModelForImageTextToText.from_pretrained('lab/model-forgets')" in card.text
    unsee("apply", run / "patch", "--model", "lab/model", "--out", tmp_path / "applied")
    again = unsee("push", tmp_path / "applied", "--repo", "lab/again", "--license", "mit", "--json")
    assert again["kind"] == "model"
    assert again["commit"] == hub.repos["model", "lab/again"].refs["main"]
    assert published(hub, "lab/again").data.base_model == "lab/model"
    large = {n: f for n, f in hub.files("lab/again").items() if n.endswith(".safetensors")}
    assert large.items() <= hub.files("lab/model-forgets").items() and large


@pytest.mark.usefixtures("token")
def test_push_to_a_branch_makes_it_and_keeps_main(hub: LocalHub, patch: Path) -> None:
    given = ("push", patch, "--repo", "lab/forgets", "--base-model", "lab/model")
    unsee(*given, "--license", "mit", "--revision", "second")
    assert CARD in hub.files("lab/forgets", "second") and CARD not in hub.files("lab/forgets")
    assert published(hub, "lab/forgets", "second").data.base_model == "lab/model"
    assert package.load_patch("hub:lab/forgets@second").manifest.method == "vkd"
    with pytest.raises(PatchError, match="has no file manifest.json"):
        package.load_patch("hub:lab/forgets")


def test_push_dry_run_says_what_would_be_uploaded(hub: LocalHub, run: Path) -> None:
    given = ("push", run, "--repo", "lab/forgets", "--dry-run")
    shown = unsee(*given)
    assert "3 files would be uploaded: README.md (" in shown and "base_model: lab/model" in shown
    assert "the card names no license. Type --license NAME." in unsee(*given, stderr=True)
    assert ("model", "lab/forgets") not in hub.repos
    assert not [request for request in hub.requests if not request.startswith("GET")]


def test_push_without_a_token_says_how_to_get_one(hub: LocalHub, run: Path) -> None:
    message = unsee("push", run, "--repo", "lab/forgets", code=2)
    begins = f"unsee: nothing was uploaded: the hub ({hub.endpoint}) needs a token"
    assert message.startswith(begins) and "hf auth login" in message and not hub.requests


def test_push_with_a_token_that_may_not_write_is_refused(
    hub: LocalHub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 30)
    with pytest.raises(HubError, match="lab/forgets was not uploaded: the hub refuses the token"):
        package.push(run, "lab/forgets")
    assert not hub.repos


@pytest.mark.usefixtures("token")
def test_push_refuses_files_that_name_a_person(hub: LocalHub, run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    card = copied / "patch" / CARD
    # As `--names` writes it.
    card.write_text(card.read_text().replace("- concept 1: ", "- Ada Berg: "))
    message = unsee("push", copied, "--repo", "lab/forgets", code=2)
    assert "files may identify a person: README.md (names or paths). Type `unsee purge" in message
    assert not hub.repos
    unsee("purge", copied)
    unsee("push", copied, "--repo", "lab/forgets", "--license", "mit")
    assert b"Ada Berg" not in b"".join(hub.files("lab/forgets").values())


@pytest.mark.parametrize(
    "place, what, message",
    [
        ("run", "adapter", "holds a patch. Leave --what out"),
        ("run/patch", "model", "Type `unsee apply .* --model MODEL --out DIR`, and push DIR"),
        (".", None, "holds no patch and no model to publish"),
    ],
)
def test_push_of_what_is_not_there_is_refused(
    hub: LocalHub, run: Path, place: str, what: str | None, message: str
) -> None:
    with pytest.raises(RunError, match=message):
        package.push(run.parent / place, "lab/forgets", what=what, dry_run=True)  # type: ignore[arg-type]


def test_load_patch_puts_it_on_a_model_of_the_hub(
    hub: LocalHub, tiny_folder: Path, patch: Path
) -> None:
    commit = hub.add("lab/model", tiny_folder)
    hub.add("lab/model", {"README.md": b"emptied"})
    hub.add("lab/patch", patch)
    base = package.VLM.load("lab/model", revision=commit)
    before = base.hash("visual")
    assert package.load_patch("hub:lab/patch").apply(base) is base
    assert base.hash("visual") != before
    with pytest.raises(package.UnseeError, match="given at v1 already"):
        package.VLM.load("lab/model@v1", revision=commit)
    with pytest.raises(package.UnseeError, match="because it is a folder"):
        package.VLM.load(tiny_folder, revision=commit)


@pytest.mark.usefixtures("token")
def test_upload_by_xet_that_fails_says_how_to_do_without(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hf_xet")
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "patch.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(HubError, match=r"was not uploaded.*HF_HUB_DISABLE_XET=1 leaves it out"):
        upload(tmp_path / "patch", Repository("lab/forgets"), "A patch")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    upload(tmp_path / "patch", Repository("lab/forgets"), "A patch")
    assert hub.files("lab/forgets")["patch.safetensors"] == b"weights"
