"""Where trials fit, node by node, and how the search follows nodes that come and go."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search import ray_study
from search.errors import UserError
from search.placement import bundle, check_teachers, fitting, refusal
from search.ray_study import Room
from search.resources import Resources
from spaces.parse import parse_space


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([{"CPU": 2}], {}, 2),
        ([{"CPU": 2}], {"cpus_per_trial": 0.1}, 20),
        ([{"CPU": 2}] * 4, {"cpus_per_trial": 4}, 0),  # eight CPUs, and none of them together
        ([{"CPU": 3}] * 4, {"cpus_per_trial": 2}, 4),
        ([{"CPU": 8, "GPU": 1}, {"CPU": 8}], {"gpus_per_trial": 0.5}, 2),
        ([{"CPU": 8, "GPU": 2}], {"gpus_per_trial": 0.4}, 4),  # two on each GPU, though five would add up to two
        ([{"CPU": 8, "GPU": 2}], {"gpus_per_trial": 2, "processes_per_trial": 2}, 1),
        ([{"bench:phone": 1}, {"CPU": 4, "bench:phone": 1}], {}, 4),  # a node that only measures has no CPUs
        ([{"CPU": 4, "spot": 1}, {"CPU": 4}], {"custom": {"spot": 1}}, 1),
        ([{"CPU": 4, "spot": 1}, {"CPU": 4}], {"custom": {"spot": 0.5}}, 2),
        ([{"CPU": 4, "accelerator_type:A100": 1}, {"CPU": 4}], {"accelerator_type": "A100"}, 4),
        ([], {}, 0),
    ],
)
def test_trials_are_counted_node_by_node(nodes: list[Any], asked: dict[str, Any], expected: int) -> None:
    assert fitting(nodes, Resources(**asked)) == expected


amounts = st.integers(0, 6)
nodes = st.lists(st.fixed_dictionaries({"CPU": amounts, "GPU": amounts, "spot": amounts}), max_size=4)


@given(
    nodes, st.sampled_from([0.25, 0.5, 1, 2, 3]), st.sampled_from([0, 0.3, 0.5, 1]), st.sampled_from([{}, {"spot": 2}])
)
def test_as_many_fit_as_can_be_placed_one_by_one(
    have: list[dict[str, int]], cpus: float, gpus: float, custom: dict[str, float]
) -> None:
    """Brute force: each trial takes what it needs from the first node that has it, its GPU share from one GPU."""
    resources = Resources(cpus_per_trial=cpus, gpus_per_trial=gpus, custom=custom)
    free = [{**node, "GPU": [1.0] * node["GPU"]} for node in have]
    placed = 0

    def place(node: dict[str, Any]) -> bool:
        card = next((index for index, left in enumerate(node["GPU"]) if left + 1e-9 >= gpus), None)
        if node["CPU"] + 1e-9 < cpus or node["spot"] < custom.get("spot", 0) or (gpus and card is None):
            return False
        node["CPU"] -= cpus
        node["spot"] -= custom.get("spot", 0)
        if gpus:
            node["GPU"][card] -= gpus
        return True

    while any(place(node) for node in free):
        placed += 1
    assert fitting(have, resources) == placed


def test_what_a_trial_asks_for() -> None:
    asked = Resources(cpus_per_trial=2, gpus_per_trial=0.5, accelerator_type="T4", custom={"spot": 1})
    assert bundle(asked) == {"CPU": 2, "GPU": 0.5, "spot": 1, "accelerator_type:T4": 0.001}
    assert bundle(Resources()) == {"CPU": 1}


def test_a_refusal_says_what_the_nodes_have() -> None:
    error = str(refusal([{"CPU": 2, "memory": 9}] * 6, Resources(cpus_per_trial=4)))
    assert "asks for 4 CPU on one node, but the nodes have 2 CPU; 2 CPU; 2 CPU; 2 CPU and 2 more" in error


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"cpus_per_trial": 1.5}, "whole"),
        ({"custom": {"CPU": 1}}, "no custom resource"),
        ({"custom": {"spot": 0}}, "no custom resource"),
        ({"gpus_per_trial": 3, "processes_per_trial": 2}, "a GPU of its own"),
        ({"gpus_per_trial": 0.5, "processes_per_trial": 2}, "a GPU of its own"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Resources(**asked)


def test_a_teacher_on_a_gpu_that_trials_do_not_get_is_refused() -> None:
    def space(device: str) -> Any:
        content = {
            "distill": [{"kind": "logit", "teacher_device": device}],
            "finetune": [{"kind": "train", "epochs": 1}],
        }
        return parse_space(content, name="taught", image_size=64)

    for device, gpus in (("1", 1), ("cuda:2", 2), ("0", 0), ("cuda", 0)):
        with pytest.raises(UserError, match=rf"teacher_device {device} needs resources.gpus_per_trial"):
            check_teachers(space(device), Resources(gpus_per_trial=gpus))
    for device, gpus in (("1", 2), ("cpu", 0), ("cuda:0", 1)):
        check_teachers(space(device), Resources(gpus_per_trial=gpus))


def test_room_follows_the_nodes_and_is_given_up_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    now, have = [0.0], [{"CPU": 2.0}]
    monkeypatch.setattr(ray_study.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(ray_study, "alive_nodes", lambda: list(have))
    room, capped = Room(Resources(), patience=60), Room(Resources(concurrent=3), patience=60)

    def after(seconds: float) -> tuple[int, int]:
        now[0] += seconds
        return room(), capped()

    assert after(0) == (2, 2)
    have.append({"CPU": 4.0})
    assert after(0.5) == (2, 2)  # the cluster is not asked all the time
    assert after(5) == (6, 3)
    have.clear()
    assert after(5) == (0, 0)
    assert after(50) == (0, 0)
    have.append({"CPU": 1.0})
    assert after(5) == (1, 1)
    have.clear()
    assert after(50) == (0, 0)
    with pytest.raises(UserError, match="the nodes have nothing"):
        after(20)
