"""A spec's nodes as Ray sees them, and the command that starts each."""

from __future__ import annotations

import json
from dataclasses import dataclass

from cluster.render.spec import Bench, ClusterSpec, Machine, Workers

PORT = 6379
DASHBOARD_PORT = 8265


@dataclass(frozen=True, kw_only=True)
class Node:
    """One kind of node: the machine it needs, and what Ray may place on it.

    A head that runs no trials and a bench node have no CPUs for Ray, and every trial asks for some.
    """

    name: str
    machine: Machine
    cpus: int
    gpus: int
    resources: dict[str, int]
    least: int
    most: int
    spot: bool = False

    @property
    def group(self) -> Workers | Bench:
        """The group of the spec that this node is of; the head is of none."""
        assert isinstance(self.machine, (Workers, Bench))
        return self.machine


def head_node(spec: ClusterSpec) -> Node:
    """The head."""
    head = spec.head
    cpus, gpus = (head.cpus, head.gpus) if head.trials else (0, 0)
    return Node(name="head", machine=head, cpus=cpus, gpus=gpus, resources={}, least=1, most=1)


def group_nodes(spec: ClusterSpec) -> list[Node]:
    """The worker groups, then the bench groups, in the spec's order."""
    workers = [
        Node(
            name=group.name,
            machine=group,
            cpus=group.cpus,
            gpus=group.gpus,
            resources={},
            least=group.min,
            most=group.most,
            spot=group.spot,
        )
        for group in spec.workers
    ]
    bench = [
        Node(
            name=group.name,
            machine=group,
            cpus=0,
            gpus=group.gpus,
            resources={f"bench:{group.target}": 1},
            least=group.count,
            most=group.count,
        )
        for group in spec.bench
    ]
    return [*workers, *bench]


def scales(spec: ClusterSpec) -> bool:
    """Whether any group has room to grow or to shrink."""
    return any(node.least < node.most for node in group_nodes(spec))


def ray_start(node: Node, *options: str) -> list[str]:
    """The arguments of ``ray start`` on ``node``, after the options that say where the head is."""
    resources = [f"--resources={json.dumps(node.resources)}"] if node.resources else []
    return ["ray", "start", *options, f"--num-cpus={node.cpus}", f"--num-gpus={node.gpus}", *resources]
