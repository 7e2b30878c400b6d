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
from unsee.files import hash_folder, json_digest, write_atomically
from unsee.models.checkpoint import resolve
from unsee.models.devices import pick_device
from unsee.recipes.job import Job
from unsee.records.provenance import provenance

# Fields of a job that do not change what references are asked, or that are part of the key in
# another form: samples and models by their content, attacks with the name of each result.
_NOT_IN_KEY = frozenset(
    "kind command recipe model patches method settings save names benchmark suite data "
    "non_members splits references device attacks equivalence_margin attack_margin "
    "min_headroom redact salt redactor key".split()
)


class ReferenceCache:
    """A folder of JSON values, each in a file of its own that is written atomically.

    A value is read only under the same key and name. If several processes need the same value, the
    first computes it and the others wait. Damaged files are computed again.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        """Values in `folder` that depend on `key`."""
        self.folder = folder
        self.key = key

    def get_or_compute(self, name: str, make: Callable[[], Any]) -> Any:
        """Returns a JSON value from the cache, or makes and keeps it."""
        key = {**self.key, "part": name}
        path = self.folder / f"{json_digest(key)}.json"
        content = _read(path, key)
        if content is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                content = _read(path, key)
                if content is None:
                    value = json.loads(json.dumps(make()))
                    content = {"key": key, "sha256": json_digest(value), "value": value}
                    write_atomically(path, json.dumps(content))
        return content["value"]


def reference_cache(job: Job, folder: Path) -> ReferenceCache:
    """Returns the cache of a job's references: their answers, and the outcomes of attacks on them.

    The key holds everything that those depend on: all samples and metrics, the hashes of the
    references' files, and versions, commit, device and threads. It does not depend on the method.
    The caller adds the attack, seed included, to the name of a result.
    """
    asked = {f.name: getattr(job, f.name) for f in fields(job) if f.name not in _NOT_IN_KEY}
    machine = provenance(0, pick_device(job.device))
    key = {
        "asked": hashlib.sha256(json.dumps(asked, default=repr).encode()).hexdigest(),
        "models": {name: hash_folder(resolve(at)) for name, at in job.references.items()},
        "splits": {name: samples_hash(samples) for name, samples in job.splits.items()},
        "attacker": [
            samples_hash(samples)
            for samples in (job.attacker.forget, job.attacker.retain, job.attacker.non_members)
        ],
        # The target of a method is the model with these on it.
        **({"patches": [hash_folder(patch) for patch in job.patches]} if job.patches else {}),
        "machine": {name: value for name, value in machine.to_dict().items() if name != "seed"},
    }
    return ReferenceCache(folder, key)


def _read(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns a file's content; None if there is no file, or it is damaged or of another key."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(content, dict) and content.keys() == {"key", "sha256", "value"}
    if not whole or content["key"] != key or content["sha256"] != json_digest(content["value"]):
        return None
    found: dict[str, Any] = content
    return found
