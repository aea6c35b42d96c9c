"""Log records are captured once something imports ``logging``, and not before. Each test has a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

RUN = """
import sys
from comfy_airlock.runtime.logs import LogForwarding
from comfy_airlock.wire.errors import Disconnected
sent = []
def emit(name, value):
    sent.append(value)
forwarding = LogForwarding(emit)
"""


def run(script: str) -> str:
    """What a fresh interpreter prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def test_a_worker_starts_without_it() -> None:
    assert run("import sys, comfy_airlock.runtime.main; print('logging' in sys.modules)") == "False\n"


@pytest.mark.parametrize("order", ["forwarding.begin(); import logging", "import logging; forwarding.begin()"])
def test_records_are_taken_whether_it_was_imported_before_or_after(order: str) -> None:
    said = run(
        f"{RUN}\n{order}\nlogging.getLogger('a.b').info('hello %s', 'you'); forwarding.end()\n"
        "print([(each['name'], each['level'], each['message']) for each in sent[0]['records']])\n"
        "print(type(logging.__loader__).__name__, type(logging.__spec__.loader).__name__, logging.root.handlers)\n"
        "print(any('WhenImported' in str(each) for each in sys.meta_path))"
    )
    assert said == "[('a.b', 20, 'hello you')]\nSourceFileLoader SourceFileLoader []\nFalse\n"


def test_text_that_has_no_utf8_is_spelled_out() -> None:
    said = run(
        f"{RUN}\nforwarding.begin(); import logging\n"
        "logging.getLogger('n').error('a file: %s', b'\\xff'.decode(errors='surrogateescape')); forwarding.end()\n"
        "print(sent[0]['records'][0]['message'])"
    )
    assert said == "a file: \\udcff\n"


def test_a_host_that_is_gone_is_nothing_to_the_pack() -> None:
    said = run(
        f"{RUN}\ndef emit(name, value): raise Disconnected('gone')\nforwarding = LogForwarding(emit)\n"
        "forwarding.begin(); import logging\n"
        "for _ in range(3): logging.error('x'); forwarding.end()\nprint('done')"
    )
    assert said == "done\n"


def test_what_sending_logs_is_not_sent() -> None:
    said = run(
        f"{RUN}\ndef emit(name, value): sent.append(value); logging.error('about sending')\n"
        "forwarding = LogForwarding(emit); forwarding.begin(); import logging\n"
        "logging.error('x'); forwarding.end(); print(len(sent))"
    )
    assert said == "1\n"


def test_whoever_logs_does_not_wait_for_a_host_that_takes_nothing_and_what_is_dropped_is_counted() -> None:
    said = run(
        f"{RUN}\nimport threading\nblocked = threading.Event()\n"
        "def emit(name, value): blocked.wait(); sent.append(value)\n"
        "forwarding = LogForwarding(emit); forwarding.begin(); import logging; logging.lastResort = None\n"
        "logger = logging.getLogger('flood')\n"
        "for index in range(5000): logger.info('%d', index)\n"
        "blocked.set(); forwarding.end()\n"
        "dropped = sum(each['dropped'] for each in sent)\n"
        "print(sum(len(each['records']) for each in sent) + dropped, dropped > 3000)"
    )
    assert said == "5000 True\n"
