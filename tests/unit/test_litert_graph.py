"""Which operators of a LiteRT graph stay in float, on a small graph that is written down here."""

from __future__ import annotations

import pytest

from search.stages.litert_convert import Operator, Settings, first_operators, float_operators, last_operators

HEAD = "head.Detect_1/"
# A stem, a block with a way around it, and a head of two branches: boxes as distributions, scores.
GRAPH = [
    Operator("TRANSPOSE", "input;", {0}, {1}),
    Operator("CONV_2D", "net/Conv_0/stem;", {1, 100}, {2}),
    Operator("DEPTHWISE_CONV_2D", "net/Conv_0/block;;net/head.Detect_1/shared constant;", {2, 101}, {3}),
    Operator("ADD", "net/Conv_0;", {2, 3}, {4}),
    Operator("CONV_2D", "net/head.Detect_1/cv2_0;", {4, 102}, {5}),
    Operator("CONV_2D", "net/head.Detect_1/cv2_1;", {5, 103}, {6}),
    Operator("CONV_2D", "net/head.Detect_1/cv3;", {4, 104}, {7}),
    Operator("SOFTMAX", "net/head.Detect_1/DFL_dfl;", {6}, {8}),
    Operator("CONV_2D", "net/head.Detect_1/DFL_dfl/conv;", {8, 105}, {9}),
    Operator("LOGISTIC", "net/head.Detect_1;", {7}, {10}),
    Operator("CONCATENATION", "output;", {9, 10}, {11}),
]
DECODE = {8, 9, 10, 11}
CLASSIFIER = [
    Operator("CONV_2D", "stem;", {0, 100}, {1}),
    Operator("MEAN", "pool;", {1}, {2}),
    Operator("FULLY_CONNECTED", "linear;", {2, 101}, {3}),
    Operator("SOFTMAX", "output;", {3}, {4}),
]


def made(operators: list[Operator]) -> set[int]:
    return {tensor for operator in operators for tensor in operator.outputs}


@pytest.mark.parametrize(
    ("keep", "more"),
    [("none", set[int]()), ("output", {6, 7}), ("ends", {2, 6, 7}), ("head", {5, 6, 7})],
)
def test_float_are_the_decoder_and_what_is_asked_for(keep: str, more: set[int]) -> None:
    settings = Settings(kind="static", keep=keep, head=HEAD)  # pyright: ignore[reportArgumentType]
    assert made(float_operators(GRAPH, settings)) == DECODE | more


def test_the_ends_are_those_with_no_other_before_or_after() -> None:
    assert made(first_operators(GRAPH)) == {2}
    assert made(last_operators(GRAPH)) == {6, 7}


def test_a_classifier_s_last_layer_is_trained() -> None:
    assert made(float_operators(CLASSIFIER, Settings(kind="static"))) == {4}
    assert made(last_operators(CLASSIFIER)) == {3}
