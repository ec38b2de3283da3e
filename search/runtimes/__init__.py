"""The programs that run a model on a device, each behind the same small interface.

Nothing here needs more than numpy and the runtime's own package, so that a runtime may live in an environment of its
own.
"""
