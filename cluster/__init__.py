"""Launches `python -m search …` somewhere else: on a Ray cluster or Kubernetes; imports neither package."""
