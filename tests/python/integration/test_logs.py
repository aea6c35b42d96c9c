"""What a pack logs reaches the host's loggers, with level and name, and its log file, whatever it does with logging."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_airlock import Airlock, Pack, connect
from comfy_airlock.wire.errors import BadRequest
from processes import until

from .conftest import PACKS


class Seen(logging.Handler):
    """The records that this process's loggers have handled."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def said(self) -> list[tuple[str, str, str]]:
        return [(each.levelname, each.name, each.getMessage()) for each in self.records]


@pytest.fixture
def seen() -> Iterator[Seen]:
    handler, root = Seen(), logging.root
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def connected() -> Iterator[Airlock]:
    """A server of the test's own, whose pack has configured nothing yet."""
    with connect() as airlock:
        yield airlock


@pytest.fixture
def pack(connected: Airlock) -> Pack:
    return connected.open(PACKS / "probe")


def log_file(airlock: Airlock) -> str:
    return Path(airlock.status()["packs"][0]["workers"][0]["log"]).read_text()


def test_records_keep_level_name_message_and_where_they_are_from(pack: Pack, connected: Airlock, seen: Seen) -> None:
    pid = pack.describe()["pid"]
    pack.call("Log", how="levels")
    until(lambda: len(seen.records) >= 3)
    assert seen.said() == [
        ("INFO", "probe.nodes", "info 7"),
        ("ERROR", "probe.nodes", "error"),
        ("WARNING", "probe.quiet", "warning"),
    ]
    record: Any = seen.records[0]
    assert (record.pack, record.pid, record.process) == ("probe", pid, pid)
    assert (record.filename, record.funcName, record.threadName) == ("nodes.py", "run", "MainThread")
    until(lambda: "WARNING probe.quiet: warning" in log_file(connected))
    assert f"Z {pid} INFO probe.nodes: info 7\n" in log_file(connected)


def test_the_hosts_levels_decide(pack: Pack, seen: Seen) -> None:
    logging.getLogger("probe.nodes").setLevel(logging.CRITICAL)
    try:
        pack.call("Log", how="levels")
        until(lambda: bool(seen.records))
        assert [name for _, name, _ in seen.said()] == ["probe.quiet"]
    finally:
        logging.getLogger("probe.nodes").setLevel(logging.NOTSET)


def test_an_exception_comes_with_its_traceback(pack: Pack, seen: Seen) -> None:
    pack.call("Log", how="exception")
    until(lambda: bool(seen.records))
    shown = logging.Formatter().format(seen.records[0])
    assert shown.startswith("it failed\nTraceback (most recent call last):")
    assert shown.endswith("KeyError: 'as asked'")


def test_a_pack_that_configures_logging_gets_what_it_expects(pack: Pack, connected: Airlock, seen: Seen) -> None:
    assert pack.call("Log", how="own configuration") == (1,)
    until(lambda: bool(seen.records))
    assert seen.said() == [("DEBUG", "probe.nodes", "configured")]
    until(lambda: "MINE configured" in log_file(connected))
    assert log_file(connected).count("configured") == 1


def test_a_logger_that_does_not_propagate_is_heard_too(pack: Pack, seen: Seen) -> None:
    pack.call("Log", how="apart")
    until(lambda: bool(seen.records))
    assert seen.said() == [("WARNING", "probe.nodes", "kept apart")]


def test_a_record_that_cannot_be_formatted_is_told_of_in_the_file(pack: Pack, connected: Airlock, seen: Seen) -> None:
    pack.call("Log", how="wrong arguments")
    until(lambda: "--- Logging error ---" in log_file(connected))
    assert seen.said() == []


def test_a_forked_child_logs_to_the_file_alone(pack: Pack, connected: Airlock, seen: Seen) -> None:
    pack.call("Log", how="fork")
    until(lambda: bool(seen.records))
    assert seen.said() == [("WARNING", "probe.nodes", "of the parent")]
    until(lambda: "of a child" in log_file(connected))


def test_a_flood_loses_nothing_in_the_file_and_is_counted_here(pack: Pack, connected: Airlock, seen: Seen) -> None:
    count = 5_000
    pack.call("Log", how="flood", count=count)

    def handled() -> int:
        ours = [each for each in seen.records if each.name in ("probe.nodes", "probe.quiet")]
        dropped = [each.args for each in seen.records if each.name == "comfy_airlock"]
        return len(ours) + sum(args[1] for args in dropped if isinstance(args, tuple) and isinstance(args[1], int))

    # What was dropped last is told with the record that comes next, which may be dropped itself.
    more = 0

    def all_is_told() -> bool:
        nonlocal more
        pack.call("Log", how="levels")
        more += 3
        time.sleep(0.05)
        return handled() == count + more and seen.said()[-1][1] == "probe.quiet"

    until(all_is_told)
    written = Path(connected.status()["packs"][0]["workers"][0]["log"])
    files = [written, *written.parent.glob(f"{written.name}.*")]
    until(lambda: sum(each.read_text().count("INFO probe.nodes: ") for each in files) >= count)


def test_event_names_of_airlocks_own_are_refused(pack: Pack) -> None:
    with pytest.raises(BadRequest, match="reserved"):
        pack.emit("airlock.log", {})
    with pytest.raises(BadRequest, match="reserved"):
        pack.on("airlock.log", print)
