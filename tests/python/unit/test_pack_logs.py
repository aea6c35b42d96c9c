"""Whatever a worker sends as log records, the host logs it or passes it over."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from comfy_airlock.host.pack_logs import PackLogs

RECORD = {"name": "a.b", "level": 30, "message": "m", "created": 1.5, "path": "/p/x.py", "line": 7, "pid": 42}


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        {},
        {"records": None, "dropped": "many"},
        {"records": [None, 7, {}]},
        {"records": [{**RECORD, "name": 7}, {**RECORD, "level": "30"}, {**RECORD, "message": b"m"}]},
    ],
)
def test_what_is_no_record_is_passed_over(event: Any, caplog: pytest.LogCaptureFixture) -> None:
    PackLogs("probe").handle(event)
    assert caplog.records == []


def test_fields_of_the_wrong_type_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    odd = {**RECORD, "created": "now", "path": 5, "line": "x", "pid": None, "exception": 3, "function": [], "thread": 1}
    PackLogs("probe").handle({"records": [odd, RECORD], "dropped": 0})
    assert [each.getMessage() for each in caplog.records] == ["m", "m"]
    assert (caplog.records[1].created, caplog.records[1].filename, caplog.records[1].lineno) == (1.5, "x.py", 7)


def test_a_message_is_not_formatted_again(caplog: pytest.LogCaptureFixture) -> None:
    PackLogs("probe").handle({"records": [{**RECORD, "message": "100% of %s"}]})
    assert caplog.records[0].getMessage() == "100% of %s"


def test_a_pack_can_bring_so_many_loggers_and_no_more() -> None:
    logs = PackLogs("probe")
    # Whose name stands in for those that are one too many.
    logging.getLogger("comfy_airlock")
    before = len(logging.root.manager.loggerDict)
    logs.handle({"records": [{**RECORD, "name": f"flood{index}"} for index in range(5000)]})
    logs.handle({"records": [{**RECORD, "name": "n" * 10_000}]})
    assert len(logging.root.manager.loggerDict) - before <= 1024


def test_what_was_dropped_is_told(caplog: pytest.LogCaptureFixture) -> None:
    PackLogs("probe").handle({"records": [], "dropped": 3})
    assert caplog.messages == ["pack probe: 3 log records were dropped on their way here; its log file has them"]
