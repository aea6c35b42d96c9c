"""Hosts that exit with all kinds of things under way: at once, with their own exit code, and without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "worker" / "src"
PACKS = ROOT / "tests" / "packs"
SECONDS_MAX = 60

_HOST = """
import asyncio, sys, threading, time
from comfy_airlock import connect

airlock = connect()
pack = airlock.open(sys.argv[1])
pack.call("Echo")
{body}
sys.exit(7)
"""


@pytest.mark.parametrize(
    "body",
    [
        "",
        (
            "threading.excepthook = lambda _: None;"
            "threading.Thread(target=pack.call, args=['UntilCancelled'], daemon=True).start(); time.sleep(0.2)"
        ),
        "thing, = pack.call('MakeThing'); items, = pack.call('Count', stop=10**6); next(items)",
        "pack.on('told', time.sleep); pack.call('Emit', values=[60]); time.sleep(0.2)",
        "pack.call('CallLater', function=time.sleep, args=[60]); time.sleep(0.2)",
        (
            "loop = asyncio.new_event_loop(); task = loop.create_task(pack.acall('UntilCancelled'));"
            "loop.run_until_complete(asyncio.sleep(0.2)); task._log_destroy_pending = False"
        ),
    ],
    ids=["nothing", "a call", "references and a stream", "a handler", "a call back", "a loop"],
)
def test_host_exits_as_it_wants_whatever_is_under_way(body: str) -> None:
    script = _HOST.format(body=body)
    command = [sys.executable, "-c", script, str(PACKS / "calls")]
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "", "")
