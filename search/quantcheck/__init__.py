"""What goes wrong when a model is quantized, found in the file and said in words, with what to do about it.

``fused``: layers that the runtime computes in float. ``collapse``: the layers that an accuracy was lost in. ``device``:
the processor, and latencies that are known. ``size``: bytes that should not be there. ``diagnose`` runs them on a file,
``member`` on a record of a study. docs/int8.md has examples.
"""
