"""Codes of a few bits as tensors of an ONNX file, and the constant nodes that turn them back into 8-bit integers.

8, 4 and 2 bits are types of ONNX. 3 bits and 1 bit are kept as bit planes in bytes, which a function in the file
takes apart. ONNX Runtime folds all of these nodes when it loads the file, so they cost nothing when it runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

DOMAIN = "packed"  # of the functions below
TYPES = {8: TensorProto.INT8, 4: TensorProto.INT4, 2: TensorProto.INT2}
OPSETS = {8: 17, 4: 21, 3: 17, 2: 25, 1: 17}  # that the storage needs

# A plane holds one bit of each code, eight codes a byte, the first in the highest bit; the highest plane comes first.
UNPACK = """
<domain: "{domain}", opset_import: ["": {opset}]>
unpack{bits} (planes, shape) => (codes) {{
  left = Constant <value = uint8[8] {{0, 1, 2, 3, 4, 5, 6, 7}}> ()
  right = Constant <value = uint8 {{7}}> ()
  places = Constant <value = int32[{bits}, 1, 1] {{{places}}}> ()
  two = Constant <value = int32 {{2}}> ()
  top = Constant <value = int32 {{{top}}}> ()
  first = Constant <value = int64[1] {{0}}> ()
  last = Constant <value = int64[1] {{-1}}> ()
  bytes = Unsqueeze (planes, last)
  raised = BitShift <direction = "LEFT"> (bytes, left)
  bits = BitShift <direction = "RIGHT"> (raised, right)
  whole = Cast <to = 6> (bits)
  placed = Mul (whole, places)
  levels = ReduceSum <keepdims = 0> (placed, first)
  doubled = Mul (levels, two)
  odd = Sub (doubled, top)
  flat = Reshape (odd, last)
  count = ReduceProd <keepdims = 1> (shape)
  used = Slice (flat, first, count)
  shaped = Reshape (used, shape)
  codes = Cast <to = 3> (shaped)
}}
"""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor of codes as it is in the file, and the nodes that give it as int8 or a type cast from."""

    tensors: tuple[onnx.TensorProto, ...]
    nodes: tuple[onnx.NodeProto, ...]
    output: str  # name of the tensor with the codes: int8, or a narrower integer for 4 and 2 bits


def stored_codes(codes: np.ndarray, bits: int, name: str) -> Stored:
    """``codes`` of any shape, from the grid of ``bits``, in ``bits`` bits each; tensors are called after ``name``."""
    if bits in TYPES:
        return Stored(tensors=(_native(codes, bits, f"{name}_codes"),), nodes=(), output=f"{name}_codes")
    planes, shape, output = f"{name}_planes", f"{name}_shape", f"{name}_codes"
    levels = ((codes.ravel().astype(np.int16) + 2**bits - 1) // 2).astype(np.uint8)
    packed = np.stack([np.packbits(levels >> place & 1) for place in reversed(range(bits))])
    return Stored(
        tensors=(
            numpy_helper.from_array(packed, planes),
            numpy_helper.from_array(np.array(codes.shape, np.int64), shape),
        ),
        nodes=(helper.make_node(f"unpack{bits}", [planes, shape], [output], domain=DOMAIN),),
        output=output,
    )


def add_unpacker(model: onnx.ModelProto, bits: int, opset: int) -> None:
    """Adds the function that takes ``bits`` bits apart; ONNX's own types need none."""
    if bits not in TYPES:
        places = ", ".join(str(2**place) for place in reversed(range(bits)))
        text = UNPACK.format(domain=DOMAIN, opset=opset, bits=bits, places=places, top=2**bits - 1)
        add_function(model, text)


def add_function(model: onnx.ModelProto, text: str) -> None:
    """Adds the function in ``text`` (ONNX's textual form) and its domain to ``model``."""
    model.functions.append(parser.parse_function(text))
    if DOMAIN not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _native(codes: np.ndarray, bits: int, name: str) -> onnx.TensorProto:
    """A tensor of one of ONNX's own integer types, its bytes packed as ONNX says: the first code lowest."""
    each = 8 // bits
    fields = codes.ravel().view(np.uint8) & (2**bits - 1)
    fields = np.pad(fields, (0, -len(fields) % each)).reshape(-1, each)
    packed = sum(fields[:, index] << np.uint8(bits * index) for index in range(each))
    assert isinstance(packed, np.ndarray)
    return helper.make_tensor(name, TYPES[bits], codes.shape, packed.astype(np.uint8).tobytes(), raw=True)
