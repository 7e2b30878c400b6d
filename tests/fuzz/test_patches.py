"""Forged and damaged patches: applied as what they say, or refused by the law of support/fuzz.py.

A short run by default; `UNSEE_FUZZ=500 pytest tests/fuzz/test_patches.py` makes a long one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.fuzz import cases, check_refusal, command, snapshot
from unsee.artifacts.manifest import MANIFEST, TENSORS, BaseTensor, base_hash, range_digest
from unsee.artifacts.patch import write_patch
from unsee.models.checkpoint import read_header
from unsee.models.vlm import VLM
from unsee.types import Data

CASES = cases(30)
Rng = random.Random
Json = dict[str, Any]

NAMES = [
    "../../escape", "/etc/passwd", "a/../../b", "", ".", "..", "x" * 20_000, "a\x00b", "\x1b[2Jx",
    "\ud800", "__metadata__", "lm_head.weight", "language_model.model.norm.weight",
    "vision_tower.extra", "multi_modal_projector.linear_1.weight.", "\u202ename", "a\nb",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, 0, -1, 1, 2, 3, 10**9, 10**30, 1.5, float("nan"), "", "x", "F32", "BF16", "I64",
    "x" * 100_000, "0" * 64, "Z" * 64, [], {}, [[]], [None], ["x"], {"a": {}}, "\ud800", "\x1b[2J",
    [0], [-1], [2**48], [10**9, 10**9], ["1"], [1.5], "../x",
]  # fmt: skip


def read(patch: Path) -> Json:
    """The manifest."""
    value: Json = json.loads((patch / MANIFEST).read_text("utf-8"))
    return value


def write(patch: Path, raw: Any) -> None:
    """Replaces the manifest."""
    (patch / MANIFEST).write_text(json.dumps(raw), "utf-8")


def rehash(patch: Path, raw: Json) -> None:
    """Makes the manifest list the patch's tensors, every hash recomputed."""
    before = {t["name"]: t["sha256"] for t in raw["base"]}
    path = patch / TENSORS
    with path.open("rb") as file:
        raw["changed"] = [
            {
                "name": name,
                "dtype": entry.dtype,
                "shape": entry.shape,
                "before": before.get(name) or "0" * 64,
                "after": range_digest(file, entry),
            }
            for name, entry in sorted(read_header(path).items())
        ]
    write(patch, raw)


def forge_tensors(patch: Path, rng: Rng) -> None:
    """Other tensors than training makes, with hashes that fit."""
    raw, tensors = read(patch), load_file(patch / TENSORS)
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(sorted(tensors) or ["x"])
        old = tensors.get(name, torch.zeros(2, 2))
        kind = rng.randrange(9)
        if kind == 0:
            tensors[rng.choice([n for n in NAMES if n not in ("\ud800", "__metadata__")])] = old + 1
        elif kind == 1:
            language = [t["name"] for t in raw["base"] if t["sha256"] is None]
            picked = rng.choice(language)
            shape = next(t["shape"] for t in raw["base"] if t["name"] == picked)
            tensors[picked] = torch.zeros(shape)
        elif kind == 2:
            tensors[name] = torch.ones(rng.choice([(), (0,), (1,), (3, 5), (200_000,)]))
        elif kind == 3:
            dtype = rng.choice([torch.float16, torch.bfloat16, torch.float64, torch.int64])
            tensors[name] = old.to(dtype)
        elif kind == 4:
            damaged = old.clone().flatten()
            damaged[rng.randrange(len(damaged))] = rng.choice([float("nan"), float("inf")])
            tensors[name] = damaged.reshape(old.shape)
        elif kind == 5:
            tensors = {}
        elif kind == 6:
            tensors.pop(name, None)
        elif kind == 7:
            tensors[name] = old.t().contiguous() if old.ndim == 2 else old.reshape(1, -1)
        else:
            tensors[name] = old * 2
    save_file(tensors, patch / TENSORS)
    rehash(patch, raw)


def forge_manifest(patch: Path, rng: Rng) -> None:
    """Other values in the manifest; in half of the cases its base hash fits again."""
    raw = read(patch)
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(6)
        if kind == 0:
            raw[rng.choice([*raw, "extra"])] = rng.choice(VALUES)
        elif kind == 1:
            raw.pop(rng.choice(list(raw)), None)
        elif isinstance(raw.get("changed"), list) and isinstance(raw.get("base"), list):
            rows = raw[rng.choice(["changed", "base"])]
            row = rng.choice(rows) if rows else None
            if kind == 2 and isinstance(row, dict):
                row[rng.choice([*row, "extra"])] = rng.choice(VALUES)
            elif kind == 3 and isinstance(row, dict):
                row["name"] = rng.choice(NAMES)
            elif kind == 4 and rows:
                rows.append(row)
            elif rows:
                rows[rng.randrange(len(rows))] = rng.choice(VALUES)
    if rng.random() < 0.5:
        with contextlib.suppress(TypeError, KeyError, AttributeError, UnicodeError):
            raw["base_sha256"] = base_hash(BaseTensor(**row) for row in raw["base"])
    write(patch, raw)


def forge_header(patch: Path, rng: Rng) -> None:
    """Other bytes in the header of the tensors' file."""
    path = patch / TENSORS
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    kind = rng.randrange(8)
    if kind == 0:
        path.write_bytes(struct.pack("<Q", rng.choice([0, 1, 10**9, 2**40, 2**63, 2**64 - 1])))
        with path.open("ab") as file:
            file.write(content[8:])
        return
    if kind == 1:
        path.write_bytes(content[: rng.randrange(len(content))])
        return
    if kind == 2:
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(min(len(damaged), 8 + length))] = rng.randrange(256)
        path.write_bytes(damaged)
        return
    if kind == 3:
        text = rng.choice(["[" * 100_000, "{}", "5", "null", '"x"', "\\ud800", "{" * 50_000])
    elif kind == 4:
        names = [n for n in header if n != "__metadata__"]
        first, second = rng.choice(names), rng.choice(names)
        text = json.dumps(header)[:-1] + f',"{first}":{json.dumps(header[second])}}}'
    else:
        entry = header[rng.choice([n for n in header if n != "__metadata__"])]
        entry[rng.choice(["dtype", "shape", "data_offsets", "extra"])] = rng.choice(
            [*VALUES, [0, 0], [5, 1], [0, 10**12], [-4, 4], [0, 8]]
        )
        text = json.dumps(header)
    raw = text.encode("utf-8", "replace")
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + body)


def forge_files(patch: Path, rng: Rng) -> None:
    """Other things where the two files should be."""
    path = patch / rng.choice([MANIFEST, TENSORS])
    content = path.read_bytes()
    path.unlink()
    kind = rng.randrange(9)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(rng.choice([Path("/dev/zero"), Path("/dev/null"), path, patch / "none"]))
    elif kind == 3:
        path.write_bytes(b"")
    elif kind == 4:
        path.write_bytes(content[: rng.randrange(len(content))])
    elif kind == 5:
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
    elif kind == 6:
        path.write_text(rng.choice(["[" * 100_000, "5", "null", '{"format": 2}', "\x00", "{"]))
    elif kind == 7:
        path.write_bytes(content + rng.randbytes(rng.choice([1, 8, 1000])))


def forge_folder(patch: Path, rng: Rng) -> None:
    """Another thing where the folder should be."""
    shutil.rmtree(patch)
    kind = rng.randrange(5)
    if kind == 0:
        os.mkfifo(patch)
    elif kind == 1:
        patch.write_text("x")
    elif kind == 2:
        patch.symlink_to(rng.choice([patch, Path("/dev/zero"), Path("/proc/self")]))
    elif kind == 3:
        patch.mkdir()


FORGERS: list[Callable[[Path, Rng], None]] = [
    forge_tensors,
    forge_tensors,
    forge_manifest,
    forge_manifest,
    forge_header,
    forge_files,
    forge_folder,
]


@pytest.fixture(scope="module")
def patch(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patch of the tiny checkpoint."""
    vlm = VLM.load(tiny_folder)
    with torch.no_grad():
        for parameter in list(vlm.parameters("visual").values())[::4]:
            parameter.add_(0.01)
    folder = tmp_path_factory.mktemp("fuzz") / "patch"
    write_patch(vlm, tiny_folder, folder, {"method": "vkd", "command": "unsee unlearn"})
    return folder


@pytest.fixture
def table(data: Data, tmp_path: Path) -> Path:
    """One question on a picture."""
    picture = data.forget_pictures[0]
    picture.open().save(tmp_path / "a.png")
    row = {"image": "a.png", "question": "Who is this person ?", "answer": "Ada Berg"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row | {"concept": "Ada Berg"}))
    return tmp_path / "t.jsonl"


def remove(path: Path) -> None:
    """Removes a folder, or whatever stands in its place, if anything does."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_applied(out: Path, base: Path) -> None:
    """A patch that was applied leaves a checkpoint whose language part is the base's."""
    before, after = load_file(base / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].shape == tensor.shape and after[name].dtype == tensor.dtype, name
        assert bool(after[name].isfinite().all()), name
        if name.startswith(("language_model", "lm_head", "model.language_model")):
            assert torch.equal(after[name], tensor), name


def test_apply_and_evaluate_random_forged_patches(
    patch: Path, table: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    rng, home = random.Random(0), tmp_path / "home"
    base = snapshot(tiny_folder)
    home.mkdir()
    for case in range(CASES):
        folder, out = home / f"patch-{case}", home / "out"
        shutil.copytree(patch, folder)
        forger = rng.choice(FORGERS)
        forger(folder, rng)
        before = snapshot(home)
        code, message = command("apply", folder, "--model", tiny_folder, "--out", out)
        check_refusal(code, message, folder.name, MANIFEST, TENSORS)
        if code == 0:
            check_applied(out, tiny_folder)
            shutil.rmtree(out)
        assert snapshot(home) == before, (case, forger.__name__)
        if case % 10 == 0 and code:
            arguments = ("--model", tiny_folder, "--patch", folder, "--data", table)
            code, message = command("evaluate", *arguments, "--out", out, "--device", "cpu")
            check_refusal(code, message, folder.name, MANIFEST, TENSORS)
            assert code == 2, (case, forger.__name__)
            assert snapshot(home) == before, (case, forger.__name__)
        assert snapshot(tiny_folder) == base
        remove(folder)


def test_apply_valid_patch_is_accepted_by_the_law(
    patch: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """The checks above can tell: an untouched patch is applied, and changes the visual part."""
    code, message = command("apply", patch, "--model", tiny_folder, "--out", tmp_path / "out")
    check_refusal(code, message)
    assert code == 0
    check_applied(tmp_path / "out", tiny_folder)
    before, after = (load_file(f / "model.safetensors") for f in (tiny_folder, tmp_path / "out"))
    assert any(not torch.equal(before[n], after[n]) for n in before)
