"""The programs that run a model on a device, each behind the same small interface.

Nothing here needs more than numpy, PyYAML and the runtime's own packages, so that a runtime may live in an environment
of its own.
"""
