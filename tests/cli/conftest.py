"""Samples with answers, as tables on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from unsee.benchmarks import BENCHMARKS
from unsee.types import Data


@pytest.fixture(scope="module")
def tables(data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The forget and the retain samples as JSONL."""
    folder = tmp_path_factory.mktemp("tables")
    paths = (folder / "forget.jsonl", folder / "retain.jsonl")
    for path, samples in zip(paths, (data.forget, data.retain), strict=True):
        rows = [
            {
                "image": s.picture.source if s.picture is not None else None,
                "question": s.question,
                "answer": s.answer,
                "concept": s.concept,
                "task": s.task,
                "choices": list(s.choices),
            }
            for s in samples
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Photographs of two of pocket's people to forget, and of four to keep."""
    pocket = BENCHMARKS.get("pocket").open()
    root = tmp_path_factory.mktemp("photographs")
    for side, most in (("forget", 2), ("retain", 4)):
        people: dict[str, Path] = {}
        for sample in pocket.load(side):
            if sample.concept and sample.picture is not None and sample.picture.path is not None:
                people.setdefault(sample.concept, sample.picture.path.parent)
        for name, folder in sorted(people.items())[:most]:
            (root / side / name).mkdir(parents=True)
            for picture in sorted(folder.glob("*.png"))[:5]:
                shutil.copy(picture, root / side / name)
    return {"forget": root / "forget", "retain": root / "retain"}
