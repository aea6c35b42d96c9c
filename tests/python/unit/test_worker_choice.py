"""Which worker takes a call: the cases that the TypeScript twin reads, too."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_airlock.host.worker_choice import ChoiceRequest, WorkerChoice
from vectors import load

SCENARIOS: list[dict[str, Any]] = load("worker-choice.json")


@pytest.mark.parametrize("scenario", [pytest.param(each, id=each["name"]) for each in SCENARIOS])
def test_every_step_is_as_the_vectors_say(scenario: dict[str, Any]) -> None:
    choice = WorkerChoice(scenario["workers"], scenario.get("fresh", False), frozenset(scenario.get("sticky", ())))
    for number, step in enumerate(scenario["steps"]):
        where = f"step {number}: {step}"
        if "take" in step:
            request = ChoiceRequest(step["take"], step.get("owners", ()), step.get("within"))
            assert choice.take(request) == step["slot"], where
        elif "begin" in step:
            choice.begin(step["begin"])
        elif "end" in step:
            choice.end(step["end"], step.get("died", False))
        elif "worker_ended" in step:
            choice.worker_ended(step["worker_ended"])
        elif "retire" in step:
            assert choice.retire(step["retire"]) is step["may"], where
        else:
            choice.retired(step["retired"])
