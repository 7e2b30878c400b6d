"""Rows with a conversation, as LLaVA, ShareGPT and chat data sets have them, as questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unsee.errors import DataError, quoted

COLUMNS = ("conversations", "messages")

PLACEHOLDER = "<image>"

_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "model": "assistant", "bot": "assistant", "chatgpt": "assistant", "system": "system",
}  # fmt: skip


def questions(row: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    """Returns a row for each question of a conversation, and whether a system message is left out.

    Args:
        row: A row with "conversations" (`[{"from": "human", "value": ...}, ...]`) or "messages"
            (`[{"role": "user", "content": ...}, ...]`); one without is returned as it is.

    Returns:
        Rows with "question", "answer" and the other columns; a placeholder of a picture at the
        beginning or end of a question is removed. Several questions get the ids ID/1, ID/2, ...

    Raises:
        DataError: If the messages are not questions and answers in turn.
    """
    column = next((name for name in COLUMNS if row.get(name) is not None), None)
    if column is None:
        return [dict(row)], False
    if row.get("question") or row.get("answer"):
        raise DataError(f"has both question or answer and {column}. Give one of them.")
    images: list[Any] = []
    turns = [
        _turn(message, f"{column}[{i}]", images) for i, message in enumerate(_list(row, column))
    ]
    spoken = [turn for turn in turns if turn[0] != "system"]
    roles = [role for role, _ in spoken]
    if not spoken or roles != ["user", "assistant"] * (len(roles) // 2):
        raise DataError(
            f"{column} has the roles {quoted(roles)}; it must be a question of the user and an "
            "answer of the assistant in turn."
        )
    rest = {key: value for key, value in row.items() if key not in COLUMNS}
    if images:
        if any(rest.get(name) for name in ("image", "images")):
            raise DataError(f"has pictures in {column} and in another column. Give one of them.")
        rest["image"] = images
    rows = []
    for number, start in enumerate(range(0, len(spoken), 2), start=1):
        pair = {"question": _without_placeholder(spoken[start][1]), "answer": spoken[start + 1][1]}
        if len(spoken) > 2 and rest.get("id") not in (None, ""):
            pair["id"] = f"{rest['id']}/{number}"
        rows.append({**rest, **pair})
    return rows, len(spoken) < len(turns)


def _list(row: Mapping[str, Any], column: str) -> Sequence[Any]:
    value = row[column]
    if not isinstance(value, list):
        raise DataError(f"{column} is {quoted(value)}; it must be a list of messages.")
    return value


def _turn(message: Any, place: str, images: list[Any]) -> tuple[str, str]:
    """The role and the text of a message; pictures inside it are added to `images`."""
    if not isinstance(message, Mapping):
        raise DataError(f"{place} is {quoted(message)}; it must be an object.")
    role = message.get("role", message.get("from"))
    content = message.get("content", message.get("value"))
    if not isinstance(role, str) or role not in _ROLES:
        raise DataError(
            f"{place} has the role {quoted(role)}. Allowed: user, assistant, system (or human, gpt)"
            "."
        )
    if isinstance(content, str):
        return _ROLES[role], content
    if not isinstance(content, list):
        raise DataError(f"{place} has the content {quoted(content)}; it must be text or a list.")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("image", "image_url"):
            names = ("image", "path", "url", "image_url", "base64")
            value = next((part[name] for name in names if part.get(name)), None)
            if kind == "image_url" and isinstance(value, Mapping):
                value = value.get("url")
            if value is not None:
                images.append(value)
        else:
            raise DataError(f"{place} holds {quoted(part)}; only text and images are read.")
    return _ROLES[role], "\n".join(texts)


def _without_placeholder(text: str) -> str:
    text = text.strip()
    while text.startswith(PLACEHOLDER):
        text = text.removeprefix(PLACEHOLDER).lstrip()
    while text.endswith(PLACEHOLDER):
        text = text.removesuffix(PLACEHOLDER).rstrip()
    return text
