"""What can be set of the service: as options of ``server.py``, or in the environment as ``BUNDLE_<NAME>``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

PREFIX = "BUNDLE_"


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the service listens, how much it does at once, and what it refuses."""

    host: str = _setting("127.0.0.1", "address to listen on; 0.0.0.0 for all of this machine")
    port: int = _setting(8000, "port to listen on")
    replicas: int = _setting(1, "copies of the model, each in a process of its own")
    threads: int = _setting(0, "CPU threads of each copy; 0 is as it was measured")
    batch: int = _setting(8, "pictures that a copy runs at once, at most")
    wait_ms: float = _setting(0.0, "longest time that a picture waits for others to be run with, in ms")
    ongoing: int = _setting(16, "requests that a copy has at once, at most")
    queued: int = _setting(64, "requests that wait for a copy, at most; more are refused with 503")
    megabytes: float = _setting(10.0, "largest body of a request")
    megapixels: float = _setting(25.0, "largest picture")
    seconds: float = _setting(30.0, "longest time for a request")
    grace: float = _setting(30.0, "longest time that a stop waits for requests that were begun, in s")

    def __post_init__(self) -> None:
        positive = ("port", "replicas", "batch", "ongoing", "queued", "megabytes", "megapixels", "seconds")
        for name in (*positive, "threads", "wait_ms", "grace"):
            value = getattr(self, name)
            if not 0 <= value < 1e6 or (name in positive and not value):
                raise ValueError(f"{name} of {value:g} makes no sense")
        if self.batch > self.ongoing:
            raise ValueError(f"a batch of {self.batch} cannot be filled with {self.ongoing} ongoing requests at most")

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """What the environment says; the rest as by default. Raises ValueError."""
        given = {item.name: environment.get(PREFIX + item.name.upper()) for item in fields(cls)}
        kinds = {item.name: type(item.default) for item in fields(cls) if item.default is not MISSING}
        return cls(**{name: kinds[name](text) for name, text in given.items() if text is not None})

    def written(self) -> dict[str, str]:
        """The environment that ``read`` reads this from."""
        return {PREFIX + name.upper(): str(value) for name, value in asdict(self).items()}


def from_command_line(
    description: str, environment: Mapping[str, str], arguments: Sequence[str] | None = None
) -> Settings:
    """What the command line says, then the environment; exits with code 2 if that makes no sense."""
    parser = argparse.ArgumentParser(description=description)
    try:
        before = Settings.read(environment)
        for item in fields(Settings):
            parser.add_argument(
                f"--{item.name.replace('_', '-')}",
                type=type(item.default),
                default=getattr(before, item.name),
                help=f"{item.metadata['help']} [default: %(default)s]",
            )
        return Settings(**vars(parser.parse_args(arguments)))
    except ValueError as error:
        parser.error(str(error))
