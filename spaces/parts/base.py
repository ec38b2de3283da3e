"""What every part of a recipe has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """One field of a recipe: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
