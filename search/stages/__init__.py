"""The steps from the baseline to a file: each takes a model or a file, leaves it untouched, and returns a new one."""
