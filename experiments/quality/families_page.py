"""The table of model types of docs/families.md, from the rows of `families.jsonl`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.pages import table
from unsee.errors import counted

OUTCOMES = ("works", "in part", "refused", "not finished", "not made")
OCR = "reads documents (OCR)"
# Types that are no chat models about pictures, and what they are.
OTHER_KINDS = {
    "blip": "captions",
    "deepseek_ocr2": OCR,
    "diffusion_gemma": "writes by diffusion, not from left to right",
    "evolla": "proteins, no pictures",
    "git": "captions",
    "glm_ocr": OCR,
    "got_ocr2": OCR,
    "granite_docling": OCR,
    "instructblipvideo": "videos, no pictures",
    "kosmos-2.5": OCR,
    "lighton_ocr": OCR,
    "minicpm_ocr": OCR,
    "mistral4": "text only",
    "paddleocr_vl": OCR,
    "pi0": "robot policy",
    "pix2struct": OCR,
    "pp_chart2table": OCR,
    "pp_formulanet": OCR,
    "qianfan_ocr": OCR,
    "shieldgemma2": "classifies pictures",
    "udop": OCR,
    "unlimited_ocr": OCR,
    "vision-encoder-decoder": "captions or OCR, of two models",
}


def section(rows: Sequence[Mapping[str, Any]], types: Sequence[str], columns: Sequence[str]) -> str:
    """Returns the table of all types, and how many of them work.

    Args:
        rows: The rows; the last of a type counts.
        types: All types, in the order of the table.
        columns: The steps that have a column.
    """
    last = {row["type"]: row for row in rows}
    tried = [name for name in types if name in last]
    outcomes = {name: outcome(last[name]["steps"], columns) for name in tried}
    lines = []
    for name in tried:
        steps: Mapping[str, str] = last[name]["steps"]
        cells = ["yes" if steps.get(column) == "" else "no" for column in columns]
        failed = next((_cell(told) for told in steps.values() if told), "")
        needs = ", ".join(last[name]["needs"])
        lines.append(
            [f"`{name}`", outcomes[name], *cells, needs, OTHER_KINDS.get(name, ""), failed]
        )
    head = ["type", "outcome", *columns, "needs", "no chat model, but", "the first failure"]
    found = Counter(outcomes.values())
    works, *others = OUTCOMES
    counts = ", ".join(
        [counted(found[works], works, "work"), *(f"{found[name]} {name}" for name in others)]
    )
    versions = ", ".join(sorted({row["transformers"] for row in last.values()}))
    commits = ", ".join(sorted({row["commit"] for row in last.values()}))
    left = len(types) - len(tried)
    return (
        f"Of {len(types)} types: {counts}{f', {left} not tried yet' if left else ''}.\n\n"
        f"{table(head, lines)}\n\nTransformers {versions}; commit {commits}."
    )


def outcome(steps: Mapping[str, str], columns: Sequence[str]) -> str:
    """Says in a word or two what came of a type: one of `OUTCOMES`.

    Args:
        steps: The error of each step that failed, by step; "" of one that worked.
        columns: The steps after the checkpoint is made.
    """
    if steps["made"]:
        return "not made"
    if "time" in steps:
        return "not finished"
    passed = [column for column in columns if not steps[column]]
    if len(passed) == len(columns):
        return "works"
    return "in part" if passed else "refused"


def _cell(text: str, longest: int = 160) -> str:
    """A text that fits a cell of a markdown table."""
    plain = " ".join(text.replace("`", "'").split())
    plain = plain.replace("<", "&lt;").replace(">", "&gt;")
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"
