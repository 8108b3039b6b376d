"""The Grafana dashboard is one that Grafana can import; that its queries find something is in `test_metrics`."""

import json
from itertools import combinations
from typing import Any

from scripts import make_dashboard

FOUND: dict[str, Any] = json.loads(make_dashboard.PAGE.read_text(encoding="utf-8"))
KINDS = {"row", "stat", "table", "timeseries"}


def test_the_file_is_what_it_is_made_from() -> None:
    """docs/grafana/p2pos.json is exactly what `make docs` would write."""
    assert make_dashboard.PAGE.read_text(encoding="utf-8") == make_dashboard.text()


def test_it_has_what_grafana_asks_for() -> None:
    """A uid that its addresses can hold, a title, a schema, a time range, and a source that is chosen when imported."""
    assert FOUND["uid"] == "p2pos-swarm"
    assert FOUND["schemaVersion"] >= 36  # where panels' own sources became objects
    assert FOUND["title"]
    assert set(FOUND["time"]) == {"from", "to"}
    assert "id" not in FOUND  # a number of one Grafana's database
    source, instance = FOUND["templating"]["list"]
    assert (source["name"], source["type"]) == ("datasource", "datasource")
    assert instance["datasource"]["uid"] == "${datasource}"


def test_panels_lie_side_by_side() -> None:
    """Each has a number and a place of its own, within the grid, and no two overlap."""
    panels = FOUND["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(at["x"] >= 0 and at["x"] + at["w"] <= make_dashboard.COLUMNS and at["w"] * at["h"] > 0 for at in places)
    for one, other in combinations(places, 2):
        across = one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
        down = one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"]
        assert not (across and down), (one, other)


def test_every_panel_asks_something_and_says_what() -> None:
    """A title, a description, and queries with names of their own, to the chosen source and nodes."""
    for panel in FOUND["panels"]:
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
