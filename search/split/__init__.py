"""Model parallel: an ONNX file as a chain of smaller ones, and a pipeline of processes that runs it."""
