"""Searches compression recipes for a YOLO model with Ray Tune and Optuna; run as ``python -m search``."""
