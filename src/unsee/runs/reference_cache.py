"""A cache of results about reference models, which runs of several methods share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from filelock import FileLock

from unsee.data.digests import samples_hash
from unsee.files import hash_folder, write_atomically
from unsee.models.checkpoint import resolve
from unsee.models.devices import pick_device
from unsee.recipes.job import Job
from unsee.records.provenance import provenance

# What says how a model is unlearned or what is written, not what those beside it are asked.
# Samples and models count by their content, and each attack where its results are kept.
_OWN = {
    "kind", "command", "recipe", "model", "patch", "method", "settings", "save", "names",
    "benchmark", "suite", "data", "non_members", "splits", "references", "device", "attacks",
}  # fmt: skip


class ReferenceCache:
    """A folder of JSON values, each in a file of its own that is there whole or not at all.

    A value is found again under the same key and name alone. Of processes that want the same one,
    the first makes it and the others wait. A file that is damaged counts as none.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        """Values in `folder` that depend on `key`."""
        self.folder = folder
        self.key = key

    def get_or_compute(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returned, now or in an earlier run; must be JSON."""
        key = {**self.key, "part": name}
        path = self.folder / f"{_digest(key)}.json"
        found = _read(path, key)
        if found is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                found = _read(path, key)
                if found is None:
                    value = json.loads(json.dumps(make()))
                    found = {"key": key, "sha256": _digest(value), "value": value}
                    write_atomically(path, json.dumps(found))
        return found["value"]


def reference_cache(job: Job, folder: Path) -> ReferenceCache:
    """What a job's references say, and what attacks on them bring back, whatever its method is.

    The key holds what they are asked (every sample and metric), the hashes of their files, and
    what computes: versions, commit, device and threads. The caller names an attack, seed included,
    with what it finds.
    """
    asked = {f.name: getattr(job, f.name) for f in fields(job) if f.name not in _OWN}
    machine = provenance(0, pick_device(job.device))
    key = {
        "asked": hashlib.sha256(json.dumps(asked, default=repr).encode()).hexdigest(),
        "models": {name: hash_folder(resolve(at)) for name, at in job.references.items()},
        "splits": {name: samples_hash(samples) for name, samples in job.splits.items()},
        "attacker": [
            samples_hash(samples)
            for samples in (job.attacker.forget, job.attacker.retain, job.attacker.non_members)
        ],
        "machine": {name: value for name, value in machine.to_dict().items() if name != "seed"},
    }
    return ReferenceCache(folder, key)


def _read(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """The file's content; None where there is no file, or it is not what was written."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(content, dict) and content.keys() == {"key", "sha256", "value"}
    if not whole or content["key"] != key or content["sha256"] != _digest(content["value"]):
        return None
    found: dict[str, Any] = content
    return found


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
