"""Tries the processor on the data before any training or scoring.

A processor that lacks a setting, a picture that it refuses, a question that is longer than the
model's context: each is found here in a moment, and would otherwise end a run late, or give wrong
scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from unsee.errors import DataError, ModelError, UnseeError, counted, first_line, quoted, shorten
from unsee.models.vlm import TOKENIZER_LOCK, VLM
from unsee.types import Batch, Picture, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator


Size = tuple[int, int]

# Every distinct size of picture up to so many is tried; of more, the extremes and some between.
MOST_SIZES = 64
NEUTRAL: Size = (224, 224)
# Settings of processors without which they write another number of image tokens.
SETTINGS = ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens")


def check_inputs(vlm: VLM, samples: Iterable[Sample], pictures: Iterable[Picture] = ()) -> None:
    """Runs the processor on what is extreme in the data, and the visual part on one picture.

    Args:
        vlm: The model, as it was loaded.
        samples: All samples that will be used.
        pictures: Further pictures.

    Raises:
        ModelError: If the processor fails for an ordinary picture, or writes another number of
            image tokens than the model has features.
        DataError: If it fails for a sample, whose question may also be longer than the context,
            contain a placeholder of pictures, or lack the picture that the model needs.
    """
    samples = list(samples)
    by_size = _by_size([p for s in samples for p in s.pictures], pictures)
    _check_processor(vlm, bool(by_size))
    longest = 0
    for picture in _extremes(by_size):
        longest = max(longest, _check_picture(vlm, picture))
    if not vlm.family.answers_questions and any(s.answer for s in samples):
        _collate(vlm, None)
    if vlm.answers_questions:
        _refuse_text_alone(vlm, samples)
        _check_texts(vlm, samples, longest)


def _refuse_text_alone(vlm: VLM, samples: Sequence[Sample]) -> None:
    """Refuses questions without a picture where the model answers none.

    Raises:
        DataError: If there is one.
    """
    alone = [sample.id for sample in samples if not sample.pictures]
    if alone and not vlm.family.takes_text_alone(vlm.processor):
        raise DataError(
            f"{counted(len(alone), 'sample has', 'samples have')} no picture, first "
            f"{quoted(alone[0])}, and models of type '{vlm.model.config.model_type}' answer no "
            "question without one. Leave out the rows without an image."
        )


def _by_size(*groups: Iterable[Picture]) -> dict[Size, Picture]:
    """The first picture of every size."""
    distinct = {picture.source: picture for group in groups for picture in group}
    by_size: dict[Size, Picture] = {}
    for picture in distinct.values():
        by_size.setdefault(picture.size, picture)
    return by_size


def _extremes(by_size: dict[Size, Picture]) -> list[Picture]:
    """One picture of every size, or of the extreme sizes and some between if there are many."""
    orders: list[Callable[[Size], float]] = [
        lambda size: size[0] / size[1],
        lambda size: size[0] * size[1],
        lambda size: size[0],
        lambda size: size[1],
    ]
    sizes = list(by_size)
    if len(sizes) > MOST_SIZES:
        chosen: dict[Size, None] = {}
        for order in orders:
            ranked = sorted(sizes, key=order)
            step = max(1, len(ranked) * len(orders) // MOST_SIZES)
            chosen |= dict.fromkeys([ranked[0], ranked[-1], *ranked[::step]])
        sizes = list(chosen)
    return [by_size[size] for size in sizes]


def _check_processor(vlm: VLM, shown: bool) -> None:
    """Runs an ordinary picture and question through the processor and the visual part."""
    where = f"model {vlm.source}"
    if vlm.answers_questions and vlm.processor.tokenizer.pad_token_id is None:
        eos = vlm.processor.tokenizer.eos_token or "<pad>"
        raise ModelError(
            f"{where}: the tokenizer has no pad token, which batches need. Add one to "
            f'tokenizer_config.json, such as "pad_token": "{eos}".'
        )
    image = Image.new("RGB", NEUTRAL, (127, 127, 127)) if shown else None
    advice = f"{_missing(vlm)} Download the checkpoint's processor files again."
    if image is None:
        with _named(ModelError, f"{where}: the processor cannot read a question", advice):
            _collate(vlm, None)
        return
    with _named(ModelError, f"{where}: the processor cannot read a picture", advice):
        inputs = vlm.collate_pictures([image])
        written = _image_tokens(vlm, _collate(vlm, image)) if vlm.answers_questions else None
    with _named(ModelError, f"{where}: the visual part cannot read a picture", advice):
        features = vlm.family.count_features(vlm.model, inputs)
    if None not in (written, features) and written != features:
        raise ModelError(
            f"{where}: the processor writes {written} image tokens for a picture, and the model "
            f"has {features} features for it.{_missing(vlm)} Take processor_config.json and "
            "preprocessor_config.json from the checkpoint's publisher."
        )


def _missing(vlm: VLM) -> str:
    """Settings that a processor has no value for, with those of config.json."""
    config = vlm.model.config
    known = {
        "patch_size": getattr(getattr(config, "vision_config", None), "patch_size", None),
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", None),
        "num_additional_image_tokens": 1,
    }
    texts = []
    for name in SETTINGS:
        value = getattr(vlm.processor, name, ...)
        if value is None or (name == SETTINGS[-1] and value == 0):
            shown = f'"{known[name]}"' if isinstance(known[name], str) else known[name]
            texts.append(f'"{name}": {shown}')
    return f" processor_config.json lacks {', '.join(texts)}." if texts else ""


def _check_picture(vlm: VLM, picture: Picture) -> int:
    """The number of image tokens of a picture's size; 0 if no question can be asked."""
    width, height = picture.size
    image = Image.new("RGB", picture.size, (127, 127, 127))
    advice = "Crop it to an ordinary shape, or remove it."
    with _named(
        DataError,
        f"picture {picture.source} ({width} x {height}): refused by the processor",
        advice,
    ):
        if not vlm.answers_questions:
            vlm.collate_pictures([image])
            return 0
        return _image_tokens(vlm, _collate(vlm, image)) or 0


@contextmanager
def _named(kind: type[UnseeError], claim: str, advice: str) -> Iterator[None]:
    """Turns what a processor raises into an error that names its cause."""
    try:
        yield
    except UnseeError:
        raise
    except Exception as error:
        reason = shorten(first_line(error), 200)
        raise kind(f"{claim} ({reason}). {advice.strip()}") from error


def _collate(vlm: VLM, image: Image.Image | None) -> Batch:
    """An ordinary question about a picture, or about none, as a batch."""
    picture = None if image is None else Picture("ordinary picture")
    images = [] if image is None else [image]
    sample = Sample("ordinary question", "Who is it?", "It is you.", picture)
    with TOKENIZER_LOCK:
        return vlm.family.collate(vlm.processor, [sample], with_answer=True, images=images)


def _image_tokens(vlm: VLM, batch: Batch) -> int | None:
    """The number of image tokens in a batch; None if the configuration names none."""
    token = getattr(vlm.model.config, "image_token_id", None)
    return None if token is None else int((batch.inputs["input_ids"] == token).sum())


def _check_texts(vlm: VLM, samples: Sequence[Sample], image_tokens: int) -> None:
    """Refuses placeholders in questions and answers, and texts longer than the context."""
    placeholders = _placeholders(vlm)
    context = getattr(vlm.model.config.get_text_config(), "max_position_embeddings", None)
    around = len(_rendered(vlm, Sample("", "", "x"))) + 64
    distinct = {(s.question, s.turn, len(s.pictures)): s for s in samples}
    for sample in distinct.values():
        texts = {"question": sample.question, "answer": sample.turn}
        for name, text in texts.items():
            for token in placeholders:
                if token in text:
                    raise DataError(
                        f"{_where(sample)}: its {name} contains {token}, which stands for a "
                        f"picture: {shorten(text, 60)!r}. Remove it from the text; pictures are "
                        "given in the column image."
                    )
        # A token has at least one byte, so most texts need not be tokenized.
        bytes_of_text = sum(len(text.encode("utf-8", "replace")) for text in texts.values())
        pictures = len(sample.pictures) * (image_tokens + 16)
        if context and bytes_of_text + around + pictures > context:
            _check_length(vlm, sample, image_tokens, context)


def _where(sample: Sample) -> str:
    """Words for a sample in messages: its id, which is the row's number in a table, and picture."""
    picture = f" (picture {shorten(sample.picture.source, 120)})" if sample.picture else ""
    return f"sample {sample.id}{picture}"


def _check_length(vlm: VLM, sample: Sample, image_tokens: int, context: int) -> None:
    """Refuses a text that has more tokens than the model reads."""
    with (
        TOKENIZER_LOCK,
        _named(
            DataError, f"{_where(sample)}: refused by the tokenizer", "Remove it, or shorten it."
        ),
    ):
        text = _rendered(vlm, sample)
        ids = vlm.processor.tokenizer(text, verbose=False)["input_ids"]
    token = getattr(vlm.model.config, "image_token_id", None)
    length = len(ids) - ids.count(token) + len(sample.pictures) * image_tokens
    if length > context:
        raise DataError(
            f"{_where(sample)}: question and answer have {length:,} tokens with the picture's, "
            f"and the model reads at most {context:,} (max_position_embeddings in config.json): "
            f"{shorten(sample.question, 60)!r}. Shorten it, or remove its row."
        )


def _rendered(vlm: VLM, sample: Sample) -> str:
    answered = sample if sample.answer else replace(sample, answer="?")
    return vlm.family.text(vlm.processor, answered, with_answer=True)


def _placeholders(vlm: VLM) -> set[str]:
    """The texts that the processor or the model takes for a picture."""
    tokenizer: Any = vlm.processor.tokenizer
    token = getattr(vlm.model.config, "image_token_id", None)
    texts = {
        getattr(vlm.processor, "image_token", None),
        vlm.family.placeholder(vlm.processor),
        tokenizer.convert_ids_to_tokens(token) if token is not None else None,
    }
    return {text for text in texts if isinstance(text, str) and text}
