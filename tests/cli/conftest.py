"""Samples with answers, as tables on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
