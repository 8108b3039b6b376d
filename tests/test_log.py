import json
import sys
from io import StringIO

import pytest

from p2pos import log


@pytest.fixture(autouse=True)
def afterwards():
    """Leave logging as other tests expect it."""
    yield
    log.configure()


def test_json_lines_have_level_event_component_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    """One object per line on standard error, with what was said as fields, in any script."""
    log.configure(as_json=True)
    log.get("node").info("serving", place="集市")
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["event"], line["component"], line["place"]) == ("info", "serving", "node", "集市")
    assert line["timestamp"].endswith("Z")


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    """At `warning`, information is left out."""
    log.configure(level="warning")
    log.get("node").info("quiet")
    log.get("node").warning("loud")
    out = capsys.readouterr()
    assert "quiet" not in out.err
    assert "loud" in out.err
    assert out.out == ""


def test_a_logger_follows_a_redirected_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger that was used before standard error was replaced and closed writes to the new one."""
    logger = log.get("node")
    for _ in range(2):
        stream = StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        log.configure()
        logger.info("said")
        assert "said" in stream.getvalue()
        stream.close()
