"""The ways to write a float ONNX file in fewer bits, one a file; `search/stages/quantize.py` has their table."""
