"""Types of machines of AWS and GCP that hold what a node needs."""

from __future__ import annotations

from typing import Literal

from cluster.errors import UserError
from cluster.render.spec import Machine
from cluster.render.values import mebibytes

Cloud = Literal["aws", "gcp"]

# General-purpose families with 4 GiB for each virtual CPU: virtual CPUs to the name's last part.
_M5 = {
    2: "large",
    4: "xlarge",
    8: "2xlarge",
    16: "4xlarge",
    32: "8xlarge",
    48: "12xlarge",
    64: "16xlarge",
    96: "24xlarge",
}
_N2 = (2, 4, 8, 16, 32, 48, 64, 80)
_GIB_PER_CPU = 4
_SIZES: dict[Cloud, dict[int, str]] = {
    "aws": {cpus: f"m5.{size}" for cpus, size in _M5.items()},
    "gcp": {cpus: f"n2-standard-{cpus}" for cpus in _N2},
}


def instance_type(cloud: Cloud, name: str, machine: Machine) -> str:
    """The machine's own ``instance``, or the smallest general-purpose one that holds its CPUs and memory.

    Raises:
        UserError: it needs GPUs, of which there are many kinds, or more than these families have.
    """
    if machine.instance:
        return machine.instance
    if machine.gpus:
        example = "g5.xlarge" if cloud == "aws" else "g2-standard-4"
        raise UserError(f"{name}: name the instance type that has its GPUs, such as `instance: {example}`")
    for cpus, instance in _SIZES[cloud].items():
        if cpus >= machine.cpus and cpus * _GIB_PER_CPU * 1024 >= mebibytes(machine.memory):
            return instance
    raise UserError(
        f"{name}: no {cloud} type known here has {machine.cpus} CPUs and {machine.memory}; name one as `instance`"
    )
