"""Measurements of an exported file: accuracy, latency, and the host they were taken on."""
