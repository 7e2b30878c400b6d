"""The package's data types: their one-line representations."""

from __future__ import annotations

import torch

from unsee.benchmarks.pocket import Pocket
from unsee.models.vlm import VLM
from unsee.types import Batch, Data, Picture, Sample


def test_picture_repr_shows_source_and_size_but_no_bytes() -> None:
    assert repr(Picture.from_path("photos/1.jpg")) == "Picture('photos/1.jpg')"
    stored = Picture("set.parquet#3", data=b"\x89PNG" * 1000)
    assert repr(stored) == "Picture('set.parquet#3', 4,000 bytes)"


def test_sample_repr_cuts_long_texts() -> None:
    sample = Sample("p3/1", "Why? " * 100, "A baker.", Picture("1.jpg"), concept="Ada Berg")
    assert repr(sample) == (
        "Sample('p3/1', question='Why? Why? Why? Why? Why? Why? Why? Wh...', answer='A baker.', "
        "concept='Ada Berg', task='generation', pictures=1)"
    )


def test_batch_repr_counts_rows_tokens_and_pictures() -> None:
    ids = torch.zeros(2, 7, dtype=torch.long)
    batch = Batch(
        {"input_ids": ids, "pixel_values": torch.zeros(3, 3, 4, 4)}, ids, ("a", "b"), (1, 2)
    )
    assert repr(batch) == "Batch(rows=2, tokens=7, pictures=3, input_ids, pixel_values)"


def test_data_repr_is_one_short_line() -> None:
    assert repr(Data([], [])) == "Data(empty; 0 concepts to forget)"
    data = Pocket().data()
    assert repr(data).startswith(f"Data(forget={len(data.forget)}, retain={len(data.retain)}, ")
    assert len(repr(data)) < 200
    assert "\n" not in repr(data)


def test_vlm_repr_is_one_short_line(tiny: VLM) -> None:
    shown = repr(tiny)
    count = sum(parameter.numel() for parameter in tiny.model.parameters())
    assert shown.startswith("VLM(LlavaForConditionalGeneration, family=llava, parameters=")
    assert f"parameters={count:,}, device=cpu, source='" in shown
    assert "\n" not in shown
