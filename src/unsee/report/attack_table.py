"""The table of attacks other than relearning: what every model says before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unsee.records.reader import Run
from unsee.report import wording
from unsee.report.findings import percent

MODELS = ("target", "unlearned", "reference", "retain_only")


@dataclass(frozen=True)
class Row:
    """What one attack does, or one thing that is read off the models.

    Attributes:
        attack: The attack, or the composed ones.
        what: What the numbers are.
        cells: The forgotten people, model by model, "before → after" or what is read.
        retain: The same of everyone else, of the unlearned model.
        n: Questions or samples about the forgotten people.
    """

    attack: str
    what: str
    cells: list[str]
    retain: str
    n: str


def table(run: Run) -> list[Row]:
    """The rows of every attack but relearning alone, in the record's order."""
    rows = []
    for name, entries in (run.summary.attacks or {}).items():
        for entry in entries if isinstance(entries, list) and name != "relearn" else ():
            models = _part(entry, "models")
            own = _part(models, "unlearned")
            if "answers" in own:
                answered = {m: _part(found, "answers") for m, found in models.items()}
                mine = _part(answered.get("unlearned"), "forget")
                rows.append(
                    Row(
                        name.replace("_", " "),
                        _fields(entry),
                        [_moved(_part(answered.get(m), "forget")) for m in MODELS],
                        _moved(_part(answered.get("unlearned"), "retain")),
                        str(mine.get("n", wording.NONE)),
                    )
                )
            for index, reading in enumerate(own.get("readings") or ()):
                cells = []
                for model in MODELS:
                    listed = _part(models, model).get("readings") or []
                    cells.append(_score(listed[index].get("forget")) if index < len(listed) else "")
                rows.append(
                    Row(
                        name.replace("_", " "),
                        f"{reading.get('name', '')}, baseline {_score(reading.get('baseline'))}",
                        [cell or wording.NONE for cell in cells],
                        _score(reading.get("retain")),
                        str(reading.get("n", wording.NONE)),
                    )
                )
    return rows


def _fields(entry: Mapping[str, Any]) -> str:
    """The fields in which entries of one attack usually differ."""
    told = [
        f"{key} {value}"
        for fields in _part(entry, "parameters").values()
        for key, value in fields.items()
        if key in ("bits", "scheme", "epsilon", "share", "modules", "words", "layout")
    ]
    return ", ".join(told)


def _part(found: Any, key: str) -> dict[str, Any]:
    value = found.get(key) if isinstance(found, Mapping) else None
    return dict(value) if isinstance(value, Mapping) else {}


def _moved(found: Mapping[str, Any]) -> str:
    before, after = found.get("before"), found.get("after")
    if before is None or after is None:
        return wording.NONE
    return f"{percent(before).removesuffix(' %')} → {percent(after)}"


def _score(value: Any) -> str:
    return wording.NONE if value is None else f"{value:.2f}"
