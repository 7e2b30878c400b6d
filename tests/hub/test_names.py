from __future__ import annotations

from pathlib import Path

import pytest

from unsee.artifacts.redaction import hub_id
from unsee.errors import ConfigError
from unsee.hub.names import Repository, find, parse
from unsee.recipes.specs import at_revision, parse_spec


@pytest.mark.parametrize(
    "text, expected",
    [
        ("lab/model", Repository("lab/model")),
        ("lab/model@v1.0", Repository("lab/model", "v1.0")),
        ("hub:lab/model@refs/pr/3", Repository("lab/model", "refs/pr/3")),
        ("lab/model.v2@0123abc", Repository("lab/model.v2", "0123abc")),
        *((text, None) for text in ("model", "/a/b", "./a", "~/a", "a/b/c", "lab/", "a b/c", "")),
        *((text, None) for text in ("lab/model@", "../model", "lab\\model", "lab/model@-x")),
    ],
)
def test_parse_reads_owner_name_and_revision(text: str, expected: Repository | None) -> None:
    assert parse(text) == expected
    if expected is not None:
        assert parse(str(expected)) == expected


def test_find_takes_a_folder_of_that_name_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("lab/model") == Repository("lab/model")
    (tmp_path / "lab" / "model").mkdir(parents=True)
    assert find("lab/model") is None
    assert find("hub:lab/model") == Repository("lab/model")
    with pytest.raises(ConfigError, match="Type hub:OWNER/NAME"):
        find("hub:model")


def test_hub_id_leaves_the_revision_out() -> None:
    assert hub_id("lab/model@v1.0") == hub_id("hub:lab/model") == "lab/model"
    assert hub_id("/photos/ada") is None


def test_at_revision_refuses_two_revisions_and_folders() -> None:
    assert parse_spec("mllmu?revision=v1").revision == "v1"  # type: ignore[union-attr]
    for text in ("mllmu?revision=v2", "mllmu:forget@lab/data@v2", "hub:lab/data@v2"):
        with pytest.raises(ConfigError, match="names the revision v2, and another is given: v1"):
            at_revision(text, "v1")
    for text in ("pocket:forget", "photos"):
        with pytest.raises(ConfigError, match="is not read from the hub"):
            at_revision(text, "v1")
    with pytest.raises(ConfigError, match="revision v1 cannot be read, because it is not on the"):
        parse_spec("pocket?revision=v1").open()  # type: ignore[union-attr]
