"""Grafana can import the dashboards; that their queries find something is in `test_metrics` and `test_relayer_http`."""

import json
from itertools import combinations
from typing import Any

import pytest

from scripts import make_dashboard
from scripts.make_dashboard import RELAYERS, SWARM, Dashboard

KINDS = {"row", "stat", "table", "timeseries"}


@pytest.fixture(params=[SWARM, RELAYERS], ids=lambda one: one.uid)
def one(request: pytest.FixtureRequest) -> Dashboard:
    found: Dashboard = request.param
    return found


@pytest.fixture
def page(one: Dashboard) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(one.page.read_text(encoding="utf-8"))
    return found


def test_the_file_is_what_it_is_made_from(one: Dashboard) -> None:
    """The file is exactly what `make docs` would write."""
    assert one.page.read_text(encoding="utf-8") == make_dashboard.text(one)


def test_it_has_what_grafana_asks_for(one: Dashboard, page: dict[str, Any]) -> None:
    """A uid that its addresses can hold, a title, a schema, a time range, and a source that is chosen when imported."""
    assert page["uid"] == one.uid
    assert page["schemaVersion"] >= 36  # where panels' own sources became objects
    assert page["title"]
    assert set(page["time"]) == {"from", "to"}
    assert "id" not in page  # a number of one Grafana's database
    source, instance = page["templating"]["list"]
    assert (source["name"], source["type"]) == ("datasource", "datasource")
    assert instance["datasource"]["uid"] == "${datasource}"


def test_panels_lie_side_by_side(page: dict[str, Any]) -> None:
    """Each has a number and a place of its own, within the grid, and no two overlap."""
    panels = page["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(at["x"] >= 0 and at["x"] + at["w"] <= make_dashboard.COLUMNS and at["w"] * at["h"] > 0 for at in places)
    for one, other in combinations(places, 2):
        across = one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
        down = one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"]
        assert not (across and down), (one, other)


def test_every_panel_asks_something_and_says_what(page: dict[str, Any]) -> None:
    """A title, a description, and queries with names of their own, to the chosen source and nodes."""
    for panel in page["panels"]:
        assert panel["type"] in KINDS
        assert panel["title"]
        if panel["type"] == "row":
            continue
        assert panel["description"]
        names = [target["refId"] for target in panel["targets"]]
        assert names
        assert len(set(names)) == len(names)
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert 'instance=~"$instance"' in target["expr"]
            assert target["expr"].count("(") == target["expr"].count(")")
