"""Replays the search in simulated time on a benchmark made from recorded studies; see docs/simulate.md."""
