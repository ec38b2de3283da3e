"""Cluster specs for the tests: those with golden files, and a strategy that draws any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from cluster.render.command import Format
from cluster.render.formats import FORMATS
from cluster.render.load import load_spec
from cluster.render.spec import ClusterSpec

GOLDEN = Path(__file__).parent / "golden"
KUBERNETES = (Format.RAYCLUSTER, Format.RAYJOB)
CASES: dict[str, tuple[Format, ...]] = {
    "default": tuple(Format),
    "gke": KUBERNETES,
    "claim": KUBERNETES,
    "aws": (Format.RAY_UP,),
    "gcp": (Format.RAY_UP,),
    "on-premise": (Format.RAY_UP,),
    "slurm": (Format.SLURM,),
    "compose": (Format.COMPOSE,),
}


def golden_spec(case: str) -> ClusterSpec:
    return load_spec(GOLDEN / case / "cluster.yaml")


def flags(words: list[str]) -> dict[str, str]:
    """The ``--name=value`` among the words of a command."""
    return {name: value for name, _, value in (word.partition("=") for word in words) if name.startswith("--")}


def rendered(spec: ClusterSpec, kind: Format) -> str:
    """All of a format's files in one text."""
    return "\n".join(FORMATS[kind](spec).values())


_names = st.from_regex(r"[a-z]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True).filter(
    lambda name: name not in {"head", "study"}
)
_memory = st.builds("{}{}".format, st.integers(1, 64), st.sampled_from(["Gi", "Ti"]))
_labels = st.from_regex(r"([a-z0-9]{1,8}\.io/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,20}[A-Za-z0-9])?", fullmatch=True)
_values = st.from_regex(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,20}[A-Za-z0-9])?)?", fullmatch=True)
_env_names = st.from_regex(r"[A-Z]([A-Z0-9_]{0,8})", fullmatch=True).map(lambda name: f"X{name}")
_env_texts = st.text("abz019 .,:/=+@_-", max_size=12)
_machine = {"cpus": st.integers(1, 64), "memory": _memory, "instance": st.just("big.1")}
_selectors = st.dictionaries(_labels, _values, max_size=2)
_tolerations = st.lists(
    st.fixed_dictionaries(
        {"key": _labels}, optional={"value": _values, "effect": st.sampled_from(["NoSchedule", "NoExecute"])}
    ),
    max_size=2,
)


@st.composite
def _workers(draw: st.DrawFn, name: str) -> dict[str, Any]:
    least = draw(st.integers(0, 3))
    group = draw(st.fixed_dictionaries({**_machine, "gpus": st.integers(0, 8), "spot": st.booleans()}))
    bounds = {"min": least, "max": draw(st.integers(max(1, least), 4))}
    return {**group, **bounds, "name": name, "node_selector": draw(_selectors), "tolerations": draw(_tolerations)}


@st.composite
def _bench(draw: st.DrawFn, name: str) -> dict[str, Any]:
    fields = {**_machine, "gpus": st.integers(0, 2), "count": st.integers(1, 3), "alone": st.booleans()}
    target = draw(st.from_regex(r"[a-z0-9]([-a-z0-9._]{0,10}[a-z0-9])?", fullmatch=True))
    return {**draw(st.fixed_dictionaries(fields)), "name": name, "target": target}


_storage = st.sampled_from(
    [
        None,
        {"kind": "folder", "path": "/data/a.b"},
        {"kind": "nfs", "server": "nas.lab", "path": "/x"},
        {"kind": "volume", "claim": "mine"},
        {"kind": "volume", "size": "5Gi", "storage_class": "fast", "access": "ReadWriteOnce"},
        {"kind": "bucket", "url": "s3://bucket/a/b"},
    ]
)


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    """The content of a spec that every format takes, but for the storage that some do not have."""
    names = draw(st.lists(_names, min_size=2, max_size=5, unique=True))
    cut = draw(st.integers(1, len(names)))
    workers = [draw(_workers(name)) for name in names[:cut]]
    bench = [draw(_bench(name)) for name in names[cut:]]
    for number, group in enumerate([*workers, *bench]):
        nodes = group["max"] if "max" in group else group["count"]
        group["hosts"] = [f"10.0.{number}.{host}" for host in range(nodes)]
    variables = draw(st.lists(_env_names, max_size=4, unique=True))
    provider = draw(st.sampled_from(["aws", "gcp", "on-premise"]))
    return {
        "name": draw(_names),
        "head": draw(st.fixed_dictionaries({**_machine, "trials": st.booleans()})),
        "workers": workers,
        "bench": bench,
        "storage": draw(_storage),
        "study": {"name": "s-1", "file": draw(st.sampled_from(["/opt/study.yaml"]))},
        "auth": {"token": draw(st.booleans())},
        "env": {name: draw(_env_texts) for name in variables[::2]},
        "secrets": [{"env": name, "secret": "vault", "key": name, "file": f"~/s/{name}"} for name in variables[1::2]],
        "kubernetes": {"spot": draw(st.sampled_from(["gke", "eks", "aks", "karpenter"]))},
        "launcher": {"provider": provider, "project": "p-1", "head_host": "10.1.0.0", "machine_image": "mine"},
    }
