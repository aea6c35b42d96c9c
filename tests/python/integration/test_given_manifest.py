"""A manifest that the host gives with the call that opens a pack."""

from __future__ import annotations

import pytest

from comfy_airlock import Airlock, AirlockError
from processes import until

from .conftest import PACKS


def test_a_folder_without_a_manifest_is_a_pack_by_what_its_host_says(airlock: Airlock) -> None:
    folder = PACKS / "plain-pack"
    with pytest.raises(AirlockError, match="no manifest"):
        airlock.open(folder)
    one = airlock.open(folder, manifest={"name": "one", "env": {"WHICH": "one"}})
    two = airlock.open(folder, manifest={"name": "two"})
    assert [one.name, two.name] == ["one", "two"]
    names = {pack["name"] for pack in airlock.status()["packs"]}
    assert {"one", "two"} <= names
    one.close()
    two.close()
    until(lambda: not {"one", "two"} & {pack["name"] for pack in airlock.status()["packs"]})


def test_what_is_wrong_in_it_is_named(airlock: Airlock) -> None:
    with pytest.raises(AirlockError, match=r"its host gave.*dependency.*did you mean dependencies"):
        airlock.open(PACKS / "plain-pack", manifest={"dependency": ["six"]})
