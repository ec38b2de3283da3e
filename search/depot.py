"""Ray's part of the supplies: an actor beside the driver has them, and a trial that does not see the study asks it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.faults import gone, watched
from search.supplies import pack_supplies

# A place is a search.workplace.Workplace, which imports PyTorch; the actor can do without.


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Depot:
    """Reads the supplies when the first machine asks for them; Ray's object store brings them to each."""

    def __init__(self, sources: dict[str, Path], folder: Path, token: str) -> None:
        self._sources, self._folder, self._token = sources, folder, token
        self._packed: tuple[str, Any] | None = None

    def supplies(self) -> tuple[str, Any]:
        """Their digest, and a reference to them in the object store, which this actor owns.

        Raises:
            FaultError: they are too large, or the study folder is gone.
        """
        if self._packed is None:
            with watched([self._folder], self._token):
                packed = pack_supplies(self._sources)
            self._packed = (packed.digest, ray.put(packed))
        return self._packed


@contextmanager
def depot_for(place: Any) -> Generator[None]:
    """Keeps the actor on this node."""
    from search.settle import sources_of

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: Any = Depot.options(name=_name(place), scheduling_strategy=here)
    depot = options.remote(sources_of(place), place.folder, place.token)
    yield
    del depot  # an actor goes with the last handle


def standing(place: Any) -> Any:
    """``place`` as it is on this machine: itself where its folder is seen, else one with the supplies.

    Raises:
        FaultError: the folder is gone, or the supplies are too large to be sent.
    """
    from search.settle import settle

    if place.visible:
        return place
    try:
        depot = ray.get_actor(_name(place))
    except ValueError:  # Ray runs on one machine, for this study alone
        raise gone(place.folder) from None
    try:
        digest, reference = ray.get(depot.supplies.remote())
    except RayTaskError as error:
        raise error.cause from None  # without the traceback of the actor in its text
    return settle(place, digest, lambda: ray.get(reference))


def _name(place: Any) -> str:
    return f"supplies:{place.token}"
