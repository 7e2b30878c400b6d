"""`unsee schema`."""

from __future__ import annotations

import json

import pytest

from support.cli import unsee


@pytest.mark.parametrize(
    ("part", "key"), [("record", "measures"), ("recipe", "method"), ("certificate", "measures")]
)
def test_schema_prints_json_schema_with_descriptions(part: str, key: str) -> None:
    schema = json.loads(unsee("schema", part, "--json-schema"))
    assert schema == unsee("schema", part, "--json")
    assert schema["type"] == "object"
    assert schema["properties"][key]["description"]


def test_schema_refuses_other_parts() -> None:
    assert "record" in unsee("schema", "table", code=2)
