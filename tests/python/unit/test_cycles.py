"""Which stand-ins lie on cycles that nothing else holds, from surveys as they may be."""

from __future__ import annotations

from comfy_airlock.calls.survey import WorkerSurvey
from comfy_airlock.calls.trial_deletion import Holdings
from comfy_airlock.host.cycles import find_cycles

# In all of these the host's objects are 1, 2, …, its stand-ins for the workers' 11, 12, …


def worker(rooted: set[int], reached: dict[int, set[int]]) -> WorkerSurvey:
    return WorkerSurvey(0, 0, rooted, reached)


def test_cycle_that_nothing_holds_is_found() -> None:
    host = Holdings(set(), {(0, 1): {(0, 11)}})
    assert find_cycles(host, [worker(set(), {11: {1}})]) == {(0, 11)}


def test_cycle_behind_what_the_host_holds_is_held() -> None:
    host = Holdings({(0, 12)}, {(0, 1): {(0, 11)}})
    assert find_cycles(host, [worker(set(), {11: {1}, 12: {1}})]) == set()


def test_cycle_behind_what_a_worker_holds_is_held() -> None:
    # The worker holds 1 for good, and that leads to the cycle of 2 and 11.
    host = Holdings(set(), {(0, 1): {(0, 11)}, (0, 2): {(0, 11)}})
    assert find_cycles(host, [worker({1}, {11: {2}})]) == set()
    assert find_cycles(host, [worker(set(), {11: {2}})]) == {(0, 11)}


def test_cycle_over_two_workers_is_found_and_held_by_what_either_holds() -> None:
    host = Holdings(set(), {(0, 1): {(1, 11)}, (1, 1): {(0, 11)}, (1, 2): {(0, 11)}})
    assert find_cycles(host, [worker(set(), {11: {1}}), worker(set(), {11: {1}})]) == {(0, 11), (1, 11)}
    assert find_cycles(host, [worker(set(), {11: {1}}), worker({2}, {11: {1}})]) == set()


def test_what_leads_to_a_cycle_and_what_it_leads_to_are_left_to_die_by_themselves() -> None:
    held = {(0, 1): {(0, 11), (0, 13)}, (0, 2): {(0, 12)}, (0, 3): {(0, 11)}}
    host = Holdings(set(), held)
    assert find_cycles(host, [worker(set(), {11: {1}, 12: {3}, 13: set()})]) == {(0, 11)}


def test_worker_that_tells_of_what_there_is_not_harms_nobody() -> None:
    host = Holdings({(0, 11)}, {(0, 1): {(0, 11)}})
    assert find_cycles(host, [worker({77}, {88: {99}, 11: {99}})]) == set()
