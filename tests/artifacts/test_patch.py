"""Visual patches: what they hold, what they refuse, and that applying one streams."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unsee.artifacts.manifest import (
    BaseTensor,
    ChangedTensor,
    Manifest,
    base_hash,
    patch_bytes,
    range_digest,
    read_manifest,
)
from unsee.artifacts.patch import apply_in_memory, apply_patch, write_patch
from unsee.artifacts.redaction import redact
from unsee.errors import ModelError, PatchError
from unsee.files import atomic_folder
from unsee.models.checkpoint import read_header, weight_map
from unsee.models.vlm import VLM


def nudge(vlm: VLM, part: str = "visual", every: int = 1) -> list[str]:
    """Changes every n-th tensor of a part a little; their names."""
    torch.manual_seed(1)
    named = list(vlm.parameters(part).items())[::every]
    with torch.no_grad():
        for _, parameter in named:
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return [name for name, _ in named]


@pytest.fixture(scope="session")
def sharded(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint in many shards."""
    folder = tmp_path_factory.mktemp("sharded") / "model"
    vlm = VLM.load(tiny_folder)
    vlm.model.save_pretrained(folder, max_shard_size="40KB")
    vlm.processor.save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 3
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes, to see that nothing was touched or left."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def same_weights(one: VLM, two: VLM) -> bool:
    """Whether two models are the same bit for bit."""
    return one.hash() == two.hash()


@pytest.mark.parametrize("visual_only", [False, True])
@pytest.mark.parametrize("layout", ["single", "sharded"])
def test_apply_patch_gives_the_model_in_memory(
    tiny_folder: Path, sharded: Path, tmp_path: Path, visual_only: bool, layout: str
) -> None:
    base = tiny_folder if layout == "single" else sharded
    before = everything(base)
    vlm = VLM.load(base, visual_only=visual_only)
    changed = nudge(vlm, every=3)
    manifest = write_patch(vlm, base, tmp_path / "patch", {"method": "vkd"})
    assert len(manifest.changed) == len(changed)
    applied = apply_patch(tmp_path / "patch", base, tmp_path / "out")
    if visual_only:
        whole = VLM.load(base)
        nudge(whole, every=3)
    else:
        whole = vlm
    assert same_weights(VLM.load(tmp_path / "out"), whole)
    assert everything(base) == before
    after = everything(tmp_path / "out")
    assert set(after) == {*before, "README.md", "unsee_lineage.json"}
    assert {name for name in before if after[name] != before[name]} == set(applied.rewritten)
    assert set(applied.copied) == set(before) - set(applied.rewritten)
    for shard in applied.rewritten:
        assert read_header(tmp_path / "out" / shard) == read_header(base / shard)
        with safe_open(tmp_path / "out" / shard, "pt") as file:
            assert file.metadata() == {"format": "pt"}


def test_apply_patch_writes_a_card_that_names_nobody(tiny_folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_folder, base)
    (base / "README.md").write_text("The base's own card.")
    vlm = VLM.load(base)
    changed = nudge(vlm, every=3)
    manifest = write_patch(
        vlm,
        base,
        tmp_path / "patch",
        {
            "method": "vkd",
            "parameters": {"lr": 1e-3},
            "names": {"Ada Berg"},
            "command": "unsee unlearn --forget photos/ada --out runs/berg --set lr=1e-3",
        },
    )
    apply_patch(tmp_path / "patch", base, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers")
    assert f"- tensors changed: {len(changed)} of {len(manifest.base)}\n" in card
    assert manifest.base_sha256 in card
    assert "| `method` | vkd |" in card
    assert "unsee unlearn --forget FORGET --out OUT --set lr=1e-3" in card
    assert "ada" not in card.lower()
    assert "berg" not in card.lower()
    assert str(tmp_path) not in card
    assert (tmp_path / "out" / "README-base.md").read_text() == "The base's own card."


def test_write_patch_lists_what_changed(tiny_folder: Path, tmp_path: Path) -> None:
    vlm = VLM.load(tiny_folder)
    nudge(vlm, "projector")
    command = "unsee unlearn --model models/x --forget photos/ada_berg --set steps=3"
    meta = {"method": "vkd", "parameters": {"w_keep": 5.0}, "command": command}
    written = write_patch(vlm, tiny_folder, tmp_path / "patch", meta)
    assert read_manifest(tmp_path / "patch") == written
    raw = json.loads((tmp_path / "patch" / "manifest.json").read_text("utf-8"))
    files = set(weight_map(tiny_folder))
    assert {t["name"] for t in raw["base"]} == files
    assert {t["name"] for t in raw["changed"]} == {n for n in files if "projector" in n}
    stored = load_file(tmp_path / "patch" / "patch.safetensors")
    assert set(stored) == {t["name"] for t in raw["changed"]}
    for tensor in raw["changed"]:
        assert list(stored[tensor["name"]].shape) == tensor["shape"]
        assert tensor["dtype"] == "F32"
        assert tensor["before"] != tensor["after"]
    for key in ("sha256", "dtype"):
        known = {t["name"] for t in raw["base"] if t[key]}
        assert known == {n for n in files if "language_model" not in n}
    assert all(t["shape"] for t in raw["base"])
    assert (raw["method"], raw["format"]) == ("vkd", 3)
    assert "ada" not in json.dumps(raw["command"])
    assert patch_bytes(tmp_path / "patch") == sum(
        p.stat().st_size for p in (tmp_path / "patch").iterdir()
    )


def test_base_hash_does_not_depend_on_shards(
    tiny_folder: Path, sharded: Path, tmp_path: Path
) -> None:
    hashes = set()
    for index, base in enumerate((tiny_folder, sharded)):
        vlm = VLM.load(base, visual_only=True)
        nudge(vlm)
        hashes.add(write_patch(vlm, base, tmp_path / str(index)).base_sha256)
    assert len(hashes) == 1
    # So a patch made from one layout goes onto the other.
    apply_patch(tmp_path / "0", sharded, tmp_path / "out")


def test_write_patch_uses_the_dtype_of_the_base(tiny_folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "half"
    vlm = VLM.load(tiny_folder, dtype=torch.bfloat16)
    vlm.save(base)
    trained = VLM.load(base, dtype=torch.float32)
    nudge(trained, "projector")
    manifest = write_patch(trained, base, tmp_path / "patch")
    assert {t.dtype for t in manifest.changed} == {"BF16"}
    assert all("multi_modal_projector" in t.name for t in manifest.changed)
    apply_patch(tmp_path / "patch", base, tmp_path / "out")
    trained.model.to(torch.bfloat16)
    assert same_weights(VLM.load(tmp_path / "out"), trained)


def test_write_patch_refuses_an_unchanged_model(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PatchError, match="nothing differs .* there is no patch to write"):
        write_patch(VLM.load(tiny_folder), tiny_folder, tmp_path / "patch")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_atomic_folder_leaves_nothing_when_interrupted(
    tmp_path: Path, error: BaseException
) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.raises((ModelError, KeyboardInterrupt)), atomic_folder(tmp_path / "a/b/c") as made:
        (made / "half").write_text("x")
        raise error
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    with atomic_folder(tmp_path / "kept" / "b") as made:
        (made / "whole").write_text("x")
    assert everything(tmp_path) == {"kept/b/whole": b"x"}


def test_write_patch_refuses_trained_language_weights(tiny_folder: Path, tmp_path: Path) -> None:
    vlm = VLM.load(tiny_folder)
    nudge(vlm, "all")
    with pytest.raises(PatchError, match="language part was trained.*--save model"):
        write_patch(vlm, tiny_folder, tmp_path / "patch")
    assert not list(tmp_path.iterdir())


def test_write_patch_refuses_unknown_meta(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PatchError, match="'author' is unknown"):
        write_patch(VLM.load(tiny_folder), tiny_folder, tmp_path / "p", {"author": "x"})


@pytest.fixture
def patch(tiny_folder: Path, tmp_path: Path) -> Path:
    """A patch of the tiny checkpoint."""
    vlm = VLM.load(tiny_folder, visual_only=True)
    nudge(vlm)
    write_patch(vlm, tiny_folder, tmp_path / "patch")
    return tmp_path / "patch"


def rewritten(source: Path, target: Path, change: dict[str, torch.Tensor | None]) -> Path:
    """A copy of a checkpoint with other tensors; None removes one."""
    shutil.copytree(source, target)
    tensors = load_file(target / "model.safetensors") | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.mark.parametrize("kind", ["value", "shape", "dtype", "missing", "added", "language shape"])
def test_apply_patch_refuses_another_base(
    tiny_folder: Path, patch: Path, tmp_path: Path, kind: str
) -> None:
    name = "vision_tower.encoder.layers.0.mlp.fc1.bias"
    if kind == "language shape":
        name = "language_model.model.norm.weight"
    old = load_file(tiny_folder / "model.safetensors")[name]
    change: dict[str, torch.Tensor | None] = {
        "value": {name: old + 1},
        "shape": {name: old[:-1].clone()},
        "language shape": {name: old[:-1].clone()},
        "dtype": {name: old.half()},
        "missing": {name: None},
        "added": {"vision_tower.extra": old.clone()},
    }[kind]  # type: ignore[assignment]
    other = rewritten(tiny_folder, tmp_path / "other", change)
    with pytest.raises(PatchError, match="is for another base") as caught:
        apply_patch(patch, other, tmp_path / "out")
    if kind == "value":
        with pytest.raises(PatchError, match="is for another base"):
            apply_in_memory(patch, VLM.load(other))
    text = str(caught.value)
    assert next(iter(change)) in text
    assert str(other) in text
    assert read_manifest(patch).base_sha256 in text
    assert "Give the checkpoint that the patch was made from" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "patch"]


def test_apply_in_memory_equals_apply_patch(tiny_folder: Path, patch: Path, tmp_path: Path) -> None:
    before = everything(tiny_folder)
    apply_patch(patch, tiny_folder, tmp_path / "out")
    vlm = VLM.load(tiny_folder)
    plain = vlm.hash()
    apply_in_memory(patch, vlm)
    assert vlm.hash() == VLM.load(tmp_path / "out").hash() != plain
    assert everything(tiny_folder) == before


def test_apply_patch_refuses_a_patched_model(
    tiny_folder: Path, patch: Path, tmp_path: Path
) -> None:
    apply_patch(patch, tiny_folder, tmp_path / "out")
    with pytest.raises(PatchError, match="already"):
        apply_patch(patch, tmp_path / "out", tmp_path / "again")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("no manifest", "is no visual patch: it needs manifest.json"),
        ("no tensors", "is no visual patch"),
        ("broken manifest", "manifest.json is damaged"),
        ("newer format", "has format 99; this version reads up to 3"),
        ("other hash", "was altered: its base hash is off"),
        ("flipped byte", "was altered"),
        ("truncated tensors", "is damaged"),
        ("one tensor less", "list other tensors"),
    ],
)
def test_apply_patch_refuses_damaged_patches(
    tiny_folder: Path, patch: Path, tmp_path: Path, damage: str, words: str
) -> None:
    manifest, tensors = patch / "manifest.json", patch / "patch.safetensors"
    raw = json.loads(manifest.read_text("utf-8"))
    if damage == "no manifest":
        manifest.unlink()
    elif damage == "no tensors":
        tensors.unlink()
    elif damage == "broken manifest":
        manifest.write_text(manifest.read_text("utf-8")[:-40], "utf-8")
    elif damage == "newer format":
        manifest.write_text(json.dumps(raw | {"format": 99}), "utf-8")
    elif damage == "other hash":
        raw["base"][0]["shape"] = [1]
        manifest.write_text(json.dumps(raw), "utf-8")
    elif damage == "flipped byte":
        data = bytearray(tensors.read_bytes())
        data[-1] ^= 1
        tensors.write_bytes(data)
    elif damage == "truncated tensors":
        tensors.write_bytes(tensors.read_bytes()[:-8])
    else:
        stored = load_file(tensors)
        stored.pop(next(iter(stored)))
        save_file(stored, tensors)
    with pytest.raises(PatchError, match=words) as caught:
        apply_patch(patch, tiny_folder, tmp_path / "out")
    assert str(patch) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["patch"]


def test_apply_patch_refuses_a_used_output(tiny_folder: Path, patch: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    with pytest.raises(ModelError, match=r"out is not empty\. Name another with --out"):
        apply_patch(patch, tiny_folder, out)
    assert everything(out) == {"mine.txt": b"kept"}
    with pytest.raises(ModelError, match="is a file"):
        apply_patch(patch, tiny_folder, out / "mine.txt")


def test_apply_patch_refuses_a_missing_model(patch: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="absent.*no such folder"):
        apply_patch(patch, tmp_path / "absent", tmp_path / "out")


def test_apply_patch_leaves_out_weights_in_other_formats(
    tiny_folder: Path, patch: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_folder, base)
    for name in ("pytorch_model.bin", "original.pth", "consolidated.safetensors"):
        (base / name).write_bytes(b"the faces are still in here")
    (base / "docs").mkdir()
    (base / "docs" / "card.md").write_text("text")
    (base / ".cache").mkdir()
    (base / ".cache" / "x").write_text("not the model's")
    applied = apply_patch(patch, base, tmp_path / "out")
    assert applied.left_out == ("consolidated.safetensors", "original.pth", "pytorch_model.bin")
    assert set(everything(tmp_path / "out")) == set(everything(tiny_folder)) | {
        "docs/card.md",
        "README.md",
        "unsee_lineage.json",
    }


def forge(patch: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Replaces a patch's tensors, with every hash recomputed."""
    raw = json.loads((patch / "manifest.json").read_text("utf-8"))
    save_file(tensors, patch / "patch.safetensors")
    raw["changed"] = []
    with (patch / "patch.safetensors").open("rb") as file:
        for name, entry in sorted(read_header(patch / "patch.safetensors").items()):
            after = range_digest(file, entry)
            raw["changed"].append(
                asdict(ChangedTensor(name, entry.dtype, entry.shape, "0" * 64, after))
            )
    (patch / "manifest.json").write_text(json.dumps(raw), "utf-8")


VISUAL = "vision_tower.encoder.layers.0.mlp.fc1.bias"
LANGUAGE = "language_model.model.norm.weight"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("language", "norm.weight, which does not belong to the visual part"),
        ("absent", "vision_tower.extra, which its base does not have"),
        ("shape", r"fc1.bias is F32 \[1\], and F32"),
        ("larger", r"fc1.bias is F32 \[100000\], and F32"),
        ("dtype", "fc1.bias is F16"),
        ("integers", "fc1.bias is I64, and trained weights are"),
        ("infinite", "fc1.bias has values that are not finite"),
        ("none", "it changes no tensor"),
    ],
)
def test_apply_patch_refuses_forged_patches(
    tiny: VLM, tiny_folder: Path, patch: Path, tmp_path: Path, kind: str, words: str
) -> None:
    stored = load_file(tiny_folder / "model.safetensors")
    old = stored[VISUAL]
    forge(
        patch,
        {
            "language": {LANGUAGE: stored[LANGUAGE] + 1},
            "absent": {"vision_tower.extra": old + 1},
            "shape": {VISUAL: torch.ones(1)},
            "larger": {VISUAL: torch.ones(100_000)},
            "dtype": {VISUAL: old.half()},
            "integers": {VISUAL: old.long()},
            "infinite": {VISUAL: old / 0},
            "none": {},
        }[kind],
    )
    before = tiny.hash()
    with pytest.raises(PatchError, match=words):
        apply_patch(patch, tiny_folder, tmp_path / "out")
    with pytest.raises(PatchError, match=words):
        apply_in_memory(patch, tiny)
    assert tiny.hash() == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["5", "null", "[]", '{"format": 2}', "[" * 100_000])
def test_read_manifest_refuses_other_json(patch: Path, text: str) -> None:
    (patch / "manifest.json").write_text(text, "utf-8")
    with pytest.raises(PatchError, match=r"manifest\.json is damaged"):
        read_manifest(patch)


def test_apply_patch_recognises_a_renamed_base(
    tiny_folder: Path, patch: Path, tmp_path: Path
) -> None:
    apply_patch(patch, tiny_folder, tmp_path / "out")
    base = tmp_path / "renamed"
    shutil.copytree(tiny_folder, base)
    stored = load_file(base / "model.safetensors")
    renamed = {n.replace("vision_tower.", "model.vision_tower.", 1): t for n, t in stored.items()}
    save_file(renamed, base / "model.safetensors", metadata={"format": "pt"})
    apply_patch(patch, base, tmp_path / "again")
    assert VLM.load(tmp_path / "again").hash() == VLM.load(tmp_path / "out").hash()


def test_apply_patch_copies_only_what_belongs_to_a_checkpoint(
    tiny_folder: Path, patch: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_folder, base)
    odd = ("rank0.distcp", "weights.npz", "model.safetensors.bak", "all.tar.gz", "log.csv")
    for name in odd:
        (base / name).write_bytes(b"the faces are still in here")
    (tmp_path / "key").write_text("secret")
    (base / "notes.txt").symlink_to(tmp_path / "key")
    applied = apply_patch(patch, base, tmp_path / "out")
    assert applied.left_out == tuple(sorted([*odd, "notes.txt"]))
    (base / "unknown").write_bytes(bytes(10_000_000))
    with pytest.raises(ModelError, match=r"unknown \(10 MB\).*--other-files leave-out"):
        apply_patch(patch, base, tmp_path / "more")
    apply_patch(patch, base, tmp_path / "more", "leave-out")
    (base / "LICENSE").symlink_to(tmp_path / "key")
    with pytest.raises(ModelError, match="LICENSE is a link to a file outside the folder"):
        apply_patch(patch, base, tmp_path / "third", "leave-out")
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("unsee demo --seed 1", "unsee demo --seed 1"),
        ("unsee unlearn --forget a/ada --set lr=1", "unsee unlearn --forget FORGET --set lr=1"),
        ("unsee unlearn --retain=a/bo", "unsee unlearn --retain=RETAIN"),
        ("unsee unlearn --forget pocket:forget", "unsee unlearn --forget pocket:forget"),
        ("unsee run r.yaml forget=photos/ada out='x y'", "unsee run RECIPE forget=FORGET out=OUT"),
    ],
)
def test_redact_names_nobody(command: str, wanted: str) -> None:
    assert redact(command) == wanted


ROWS = 32
BIG, SMALL = "vision_tower.big", "vision_tower.small"


def big_base(folder: Path) -> Path:
    """A checkpoint of three shards, each with one tensor of 32 MiB and a small one."""
    folder.mkdir()
    names: dict[str, str] = {}
    for index in range(3):
        big = torch.full((ROWS, 1 << 18), float(index))
        file = f"model-{index + 1:05d}-of-00003.safetensors"
        tensors = {f"{BIG}.{index}": big, f"{SMALL}.{index}": torch.zeros(4)}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        names |= dict.fromkeys(tensors, file)
    index_file = {"metadata": {}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_file))
    (folder / "config.json").write_text('{"model_type": "llava"}')
    return folder


def big_patch(folder: Path, base: Path, value: float) -> Path:
    """A patch of the big tensors in the first and the last shard."""
    folder.mkdir()
    tensors = []
    for name, file in sorted(weight_map(base).items()):
        entry = read_header(file)[name]
        with file.open("rb") as handle:
            digest = range_digest(handle, entry)
        tensors.append(BaseTensor(name, entry.dtype, entry.shape, digest))
    new = {f"{BIG}.{i}": torch.full((ROWS, 1 << 18), value + i) for i in (0, 2)}
    save_file(new, folder / "patch.safetensors")
    changed = []
    with (folder / "patch.safetensors").open("rb") as handle:
        for name, entry in sorted(read_header(folder / "patch.safetensors").items()):
            before = next(t.sha256 for t in tensors if t.name == name)
            after = range_digest(handle, entry)
            changed.append(ChangedTensor(name, entry.dtype, entry.shape, str(before), after))
    manifest = Manifest(base_hash(tensors), tuple(tensors), tuple(changed))
    (folder / "manifest.json").write_text(json.dumps(asdict(manifest)))
    return folder


APPLY = """
import re, sys
from pathlib import Path
from unsee.artifacts.patch import apply_patch
from unsee.families import family_of

family_of("llava")  # its code is no tensor

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

Path("/proc/self/clear_refs").write_text("5")  # restarts the peak
before = peak()
*patches, base, out, inverse = sys.argv[1:]
apply_patch(patches, base, out, inverse=inverse)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_apply_patch_holds_no_shard_in_memory(tmp_path: Path) -> None:
    base = big_base(tmp_path / "base")
    first = big_patch(tmp_path / "1", base, 3.0)
    apply_patch(first, base, tmp_path / "state")
    second = big_patch(tmp_path / "2", tmp_path / "state", 7.0)
    shutil.rmtree(tmp_path / "state")
    shard = min(p.stat().st_size for p in base.glob("*.safetensors"))
    result = subprocess.run(
        [sys.executable, "-c", APPLY, first, second, base, tmp_path / "out", tmp_path / "inverse"],
        check=True,
        capture_output=True,
        text=True,
    )
    grown = int(result.stdout)
    assert grown < shard / 4, f"{grown:,} bytes for shards of {shard:,}"
    for index, value in ((0, 7.0), (1, 1.0), (2, 9.0)):
        file = tmp_path / "out" / f"model-0000{index + 1}-of-00003.safetensors"
        with safe_open(file, "pt") as handle:
            assert float(handle.get_slice(f"{BIG}.{index}")[-1:, -1:]) == value
            assert float(handle.get_tensor(f"{SMALL}.{index}").sum()) == 0.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 128 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root; the file size limit below stands in for it")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_apply_patch_on_a_full_disk_leaves_nothing(
    tiny_folder: Path, patch: Path, small_disk: Path
) -> None:
    with pytest.raises(ModelError, match=r"bytes are needed and .* are free.*Free some space"):
        apply_patch(patch, tiny_folder, small_disk / "out")
    vlm = VLM.load(tiny_folder)
    nudge(vlm)
    for write in (
        lambda: write_patch(vlm, tiny_folder, small_disk / "patch"),
        lambda: vlm.save(small_disk / "model"),
    ):
        with pytest.raises(ModelError, match=r"cannot be written .*Free some space"):
            write()
    assert not list(small_disk.iterdir())


LIMITED = """
import sys
from pathlib import Path
from unsee.errors import ModelError
from unsee.models.vlm import VLM
from unsee.artifacts.patch import apply_patch, write_patch
patch, base, out = map(Path, sys.argv[1:])
vlm = VLM.load(base)
for parameter in vlm.parameters("visual").values():
    parameter.data.add_(1)
for write in (
    lambda: apply_patch(patch, base, out),
    lambda: write_patch(vlm, base, out),
    lambda: vlm.save(out),
):
    try:
        write()
    except ModelError as error:
        print(error)
"""


def test_apply_patch_on_a_filling_disk_leaves_nothing(
    tiny_folder: Path, patch: Path, tmp_path: Path
) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    place = tmp_path / "place"
    place.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(patch), str(tiny_folder), str(place / "out")],
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    lines = result.stdout.splitlines()
    assert len(lines) == 3, result.stderr
    assert all("out: cannot be written" in line and "Free some space" in line for line in lines)
    assert not list(place.iterdir())
