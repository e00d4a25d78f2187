"""Roles over HTTP: what ``sluice roles`` does, in the gateway's own file and in force at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Running, Start
from tests.upstream import Upstream


async def _roles(sluice: Running) -> dict[str, Any]:
    body = (await sluice.client.get("/admin/roles")).json()
    return {each["role"]: each for each in body["roles"]} | {"undo": body["undo"]}


async def test_a_switch_is_in_force_with_the_answer_and_can_be_taken_back(sluice: Running, up: Upstream) -> None:
    before = await _roles(sluice)
    assert (before["large"]["serves"], before["large"]["variable"], before["undo"]) == ("up/large", "MODEL_LARGE", None)
    answer = await sluice.client.post("/admin/roles", json={"roles": {"large": "up/other", "code": "up/coder"}})
    assert answer.status_code == 200
    assert {(each["variable"], each["after"]) for each in answer.json()["changes"]} == {
        ("MODEL_LARGE", "up/other"),
        ("MODEL_CODE", "up/coder"),
    }
    assert answer.json()["undo"]["changes"] == answer.json()["changes"]
    assert (await sluice.chat("large")).headers["x-sluice-target"] == "up/other"
    assert "MODEL_LARGE=up/other" in sluice.env.read_text()
    undone = await sluice.client.post("/admin/roles/undo")
    assert undone.json()["undo"] is None
    assert (await sluice.chat("large")).headers["x-sluice-target"] == "up/large"
    assert (await _roles(sluice))["large"] == before["large"]
    again = await sluice.client.post("/admin/roles/undo")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "roles_not_changed")


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({}, 400, "'roles' must be an object"),
        ({"roles": {}}, 400, "'roles' must be an object"),
        ({"roles": {"large": 3}}, 400, "roles.large"),
        ({"roles": {"lrge": "up/x"}}, 409, "there is no role 'lrge'"),
        ({"roles": {"large": "nobody/x"}}, 400, "there is no backend 'nobody'"),
        ({"roles": {"large": "up/x\nADMIN_KEY=mine"}}, 409, "one printable line"),
        ({"roles": {"ROLES__X=up/y\nADMIN_KEY": "up/x"}}, 409, "one printable line"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_is_written(
    sluice: Running, body: Any, status: int, told: str
) -> None:
    before = sluice.env.read_text()
    answer = await sluice.client.post("/admin/roles", json=body)
    assert (answer.status_code, told in answer.json()["error"]["message"]) == (status, True), answer.text
    assert sluice.env.read_text() == before


async def test_a_name_that_the_environment_sets_is_refused(
    up: Upstream, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_LARGE", "up/shadow")
    async with start(up=up) as sluice:
        assert (await _roles(sluice))["large"]["shadowed"] is True
        answer = await sluice.client.post("/admin/roles", json={"roles": {"large": "up/other"}})
        assert answer.status_code == 409
        assert "the environment sets MODEL_LARGE" in answer.json()["error"]["message"]


async def test_a_damaged_history_is_told_beside_the_roles(sluice: Running) -> None:
    sluice.env.with_name(".env.previous").write_text("{")
    body = (await sluice.client.get("/admin/roles")).json()
    assert body["undo"] is None
    assert "cannot be read" in body["undo_error"]
    assert body["roles"]
