"""The cache of results about reference models: computed once, checked when read."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unsee.attacks.quantize import Quantize
from unsee.attacks.relearn import Relearn
from unsee.data.digests import samples_hash
from unsee.methods.manu import MANU
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.recipes.job import Job
from unsee.runs.reference_cache import ReferenceCache, reference_cache
from unsee.runs.run import run
from unsee.types import Data, Picture, Sample


def never() -> Any:
    pytest.fail("made twice")


def test_reference_cache_computes_a_value_once_for_each_key_and_name(tmp_path: Path) -> None:
    made = ReferenceCache(tmp_path / "new" / "folder", {"metrics": ["bleu"]})
    value = {"a": (0.1 + 0.2, None, float("inf")), "ü": []}
    assert made.get_or_compute("x", lambda: value) == {
        "a": [0.1 + 0.2, None, float("inf")],
        "ü": [],
    }
    again = ReferenceCache(made.folder, {"metrics": ["bleu"]})
    assert again.get_or_compute("x", never) == made.get_or_compute("x", never)
    assert again.get_or_compute("y", lambda: 2) == 2
    assert ReferenceCache(made.folder, {"metrics": ["cloze"]}).get_or_compute("x", lambda: 3) == 3
    # None is a value as well.
    assert again.get_or_compute("z", lambda: None) is None
    assert again.get_or_compute("z", never) is None


@pytest.mark.parametrize("harm", ["{", "\udcff", "[]", "value", "key", "copied"])
def test_reference_cache_recomputes_damaged_values(tmp_path: Path, harm: str) -> None:
    cache = ReferenceCache(tmp_path, {"seed": 0})
    cache.get_or_compute("x", lambda: {"score": 0.5})
    (path,) = tmp_path.glob("*.json")
    whole = path.read_bytes()
    content = json.loads(whole)
    if harm == "value":
        content["value"]["score"] = 0.6
        path.write_text(json.dumps(content))
    elif harm == "key":
        content["key"]["seed"] = 1
        path.write_text(json.dumps(content))
    elif harm == "copied":
        cache.get_or_compute("y", lambda: {"score": 0.7})
        (other,) = set(tmp_path.glob("*.json")) - {path}
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(harm.encode("utf-8", "surrogateescape"))
    assert cache.get_or_compute("x", lambda: {"score": 0.5}) == {"score": 0.5}
    assert path.read_bytes() == whole


def test_reference_cache_keeps_nothing_of_a_failure(tmp_path: Path) -> None:
    def fails() -> Any:
        raise ValueError("no")

    cache = ReferenceCache(tmp_path, {})
    with pytest.raises(ValueError, match="no"):
        cache.get_or_compute("x", fails)
    assert not list(tmp_path.glob("*.json"))
    assert cache.get_or_compute("x", lambda: 1) == 1


def test_reference_cache_waits_for_a_value_in_progress(tmp_path: Path) -> None:
    begun, go_on, found = threading.Event(), threading.Event(), list[int]()

    def slow() -> int:
        begun.set()
        assert go_on.wait(30)
        return 1

    first = threading.Thread(
        target=lambda: found.append(ReferenceCache(tmp_path, {}).get_or_compute("x", slow))
    )
    second = threading.Thread(
        target=lambda: found.append(ReferenceCache(tmp_path, {}).get_or_compute("x", never))
    )
    first.start()
    assert begun.wait(30)
    second.start()
    second.join(0.2)
    assert second.is_alive() and not found
    go_on.set()
    first.join()
    second.join()
    assert found == [1, 1]


def test_samples_hash_covers_every_field(tmp_path: Path) -> None:
    sample = Sample("1", "who?", "Ada", Picture("a.png", data=_png(0)), perturbed=("Bo",))
    known = {samples_hash([sample])}
    for change in (
        {"question": "what?"},
        {"perturbed": ("Cy",)},
        {"group": "g"},
        {"picture": None},
        {"picture": Picture("b.png", data=_png(0))},
        {"picture": Picture("a.png", data=_png(1))},
    ):
        known.add(samples_hash([Sample(**{**sample.__dict__, **change})]))
    assert len(known) == 7
    assert samples_hash([Sample(**sample.__dict__)]) in known


def _png(shade: int) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_run_asks_references_once_and_records_the_same(
    tiny_folder: Path, data: Data, tmp_path: Path
) -> None:
    """A record made from the cache is the one made without; a second method asks nothing anew."""
    other = VLM.load(tiny_folder)
    for parameter in other.parameters("visual").values():
        parameter.data.mul_(1.1)
    other.save(tmp_path / "other")
    job = Job(
        kind="run",
        command="unsee run",
        recipe="# unsee run\n",
        model=tiny_folder,
        data=data,
        splits={"forget_holdout": data.forget, "retain_holdout": data.retain},
        method=MANU(prune=0.05),
        attacks=[(Relearn(share=1.0, steps=1, modules="all"),), (Quantize(bits=3),)],
        references={
            "target": tiny_folder,
            "reference": tmp_path / "other",
            "retain_only": tiny_folder,
        },
        forgetting=("forget_holdout",),
        save="model",
        max_new_tokens=3,
    )
    cache = tmp_path / "beside"

    def made(name: str, job: Job, cache: Path | None) -> tuple[dict[str, Any], str]:
        result = run(job, tmp_path / name, Bar(None), cache)
        assert result is not None
        found = result.summary.to_dict()
        for entry in found["attacks"]["quantize"]:
            assert all(model.pop("seconds") > 0 for model in entry["models"].values())
        return found, (tmp_path / name / "scores.jsonl").read_text()

    def stored() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in cache.glob("*.json")}

    alone, filled = made("alone", job, None), made("filled", job, cache)
    parts = stored()
    # Scores of three models; before and after both attacks, one of which spares the target.
    assert len(parts) == 3 + 2 * 2 + 2 * 3
    assert filled[1] == alone[1]
    for key in ("measures", "target", "reference", "retain_only", "attacks", "gallery"):
        assert filled[0][key] == alone[0][key] is not None, key
    pruned = made("pruned", replace(job, method=MANU(prune=0.5)), cache)
    assert stored() == parts
    for key in ("target", "reference", "retain_only"):
        assert pruned[0][key] == alone[0][key], key
    assert pruned[0]["measures"] != alone[0]["measures"]
    for name in ("relearn", "quantize"):
        (mine,), (theirs,) = pruned[0]["attacks"][name], alone[0]["attacks"][name]
        where = "curves" if name == "relearn" else "models"
        assert mine[where]["reference"] == theirs[where]["reference"]
    # Another seed is another attack where one draws, and that alone is made.
    again = Relearn(share=1.0, steps=1, modules="all", seed=1)
    made("seed", replace(job, attacks=[(again,), (Quantize(bits=3),)]), cache)
    assert len(stored()) == len(parts) + 2
    # Other weights in the same place are another model.
    key = reference_cache(job, cache).key
    shutil.copy(tiny_folder / "model.safetensors", tmp_path / "other")
    assert reference_cache(job, cache).key != key
