"""Samples as a user's table."""

from __future__ import annotations

import json
from pathlib import Path

from unsee.types import Sample


def table(path: Path, samples: list[Sample]) -> Path:
    rows = [
        {
            "image": s.picture.source if s.picture is not None else None,
            "question": s.question,
            "answer": s.answer,
            "concept": s.concept,
        }
        for s in samples
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
