"""Other families than YOLOv8: what is done to them, what it leaves, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.modules import C2PSA, C2f, Conv
from ultralytics.nn.modules.block import Attention
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import ROOT as ULTRALYTICS
from ultralytics.utils import YAML

from search.cache import StageCache
from search.pipeline import Inputs, shape, train, write_leaf
from search.stages.c2f import SplitC2f, SplitC2PSA
from search.stages.distill import logit_loss
from search.stages.export import export_onnx
from search.stages.heads import load_model
from search.stages.prune import opened, prune_channels
from search.stages.psa import NarrowAttention
from search.stages.structure import change_structure
from search.tasks.classify import build as build_classifier
from search.tasks.detect import build
from spaces.combine import recipe_of
from spaces.recipe import ChannelPrune, Export, Scale
from spaces.techniques import Setting
from tests.contract.test_formats import IMAGES, RUN, written
from tests.contract.test_prune import kept, silenced
from tests.contract.test_structure_scale import shapes, silencer
from tests.tiny import CLASSES, OUTPUT, SIZE, answers, noise, onnx_answers, parameters, tiny_model

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = ["v3/yolov3-tiny", "v5/yolov5", "v6/yolov6", "v8/yolov8-ghost", "v8/yolov8-p2", "11/yolo11", "26/yolo26"]
SCOPES: list[Literal["layer", "global"]] = ["layer", "global"]
Family = Callable[[str], DetectionModel]
Smaller = Callable[[str, str], nn.Module]


@pytest.fixture(scope="module")
def family() -> Family:
    """Their models, of YOLOv8n's width: YOLO11's attention has two heads."""
    made: dict[str, DetectionModel] = {}

    def of(name: str) -> DetectionModel:
        if name not in made:
            made[name] = told_apart(tiny_model(family=name, width=0.25))
        return made[name]

    return of


def told_apart(model: Any) -> Any:
    """The model, no two channels of whose norms have the same running mean."""
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean = torch.randperm(norm.num_features) / norm.num_features - 0.5
    return model


@pytest.fixture(scope="module")
def smaller(family: Family) -> Smaller:
    """Models with half of their channels."""
    made: dict[tuple[str, str], nn.Module] = {}

    def prune(name: str, scope: Any) -> nn.Module:
        if (name, scope) not in made:
            part = ChannelPrune(method="l2", ratio=0.5, round_to=4, scope=scope)
            made[name, scope] = prune_channels(family(name), part, image_size=SIZE, batches=[])
        return made[name, scope]

    return prune


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_pruned_model_computes_what_the_whole_one_does_with_the_other_channels_silenced(
    family: Family, smaller: Smaller, name: str, scope: str, tmp_path: Path
) -> None:
    whole, small = family(name), smaller(name, scope)
    assert parameters(small) < 0.4 * parameters(whole)
    with silenced(deepcopy(whole), kept(whole, small)) as masked:
        expected = answers(masked, noise(2))
    found = answers(small, noise(2))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    path = export_onnx(small, Export(), image_size=SIZE, path=tmp_path / "model.onnx")
    np.testing.assert_allclose(onnx_answers(path, noise(2)), found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["11/yolo11-cls", "26/yolo26-cls"])
def test_so_does_a_pruned_classifier(name: str, scope: Any) -> None:
    content: Any = YAML.load(str(ULTRALYTICS / f"cfg/models/{name}.yaml"))
    torch.manual_seed(0)
    whole = told_apart(build_classifier(content | {"scale": "n"}, CLASSES).eval())
    whole.model[-1].linear.weight.data *= 10  # so that classes are not all as likely
    small = prune_channels(whole, ChannelPrune(ratio=0.5, round_to=4, scope=scope), image_size=SIZE, batches=[])
    assert parameters(small) < 0.4 * parameters(whole)
    with silenced(deepcopy(whole), kept(whole, small)) as masked:
        expected = answers(masked, noise(2))
    assert expected.max() > 2 / CLASSES
    np.testing.assert_allclose(answers(small, noise(2)), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("form", ["openvino", "ncnn", "torchscript"])
@pytest.mark.parametrize("name", ["11/yolo11", "26/yolo26"])
def test_other_runtimes_compute_the_same_of_a_pruned_model(
    smaller: Smaller, name: str, form: str, tmp_path: Path
) -> None:
    small = smaller(name, "global")
    path = written(small, form, tmp_path / "folder")
    np.testing.assert_allclose(RUN[form](path), answers(small, IMAGES), rtol=1e-3, atol=1e-3)


def test_of_yolo11_s_attention_only_what_is_around_it_is_pruned(family: Family, smaller: Smaller) -> None:
    (whole,) = (module for module in family("11/yolo11").modules() if isinstance(module, Attention))
    assert (whole.num_heads, whole.head_dim, whole.key_dim) == (2, 64, 32)
    for scope in SCOPES:
        (small,) = (module for module in smaller("11/yolo11", scope).modules() if isinstance(module, Attention))
        assert type(small) is NarrowAttention
        inner = [(layer.in_channels, layer.out_channels) for layer in (small.qkv.conv, small.pe.conv, small.proj.conv)]
        assert inner[0][0] == inner[2][1] < 128  # what is added to its input has as many channels
        assert (inner[0][1], inner[1], inner[2][0]) == (256, (128, 128), 128)


def test_equal_halves_stay_blocks_of_the_family_and_unequal_ones_say_where_to_cut(
    family: Family, smaller: Smaller
) -> None:
    def kinds(model: nn.Module) -> list[type[nn.Module]]:
        return [type(module) for module in model.modules() if isinstance(module, (C2f, C2PSA))]

    assert kinds(smaller("11/yolo11", "layer")) == kinds(family("11/yolo11"))
    uneven = kinds(smaller("11/yolo11", "global"))
    assert len(uneven) == len(kinds(family("11/yolo11"))) and {SplitC2f, SplitC2PSA} & set(uneven)


@torch.no_grad()
def test_narrow_attention_is_ultralytics_own_between_fewer_channels() -> None:
    torch.manual_seed(0)
    whole = Attention(32, num_heads=2, attn_ratio=0.5).eval()
    for norm in (module for module in whole.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.uniform_(-1, 1)  # pyright: ignore[reportOptionalMemberAccess]
    inputs, outputs = torch.tensor([1, 4, 5, 30]), torch.tensor([0, 31])
    narrow = deepcopy(whole)
    narrow.__class__ = NarrowAttention
    x = torch.randn(2, 32, 5, 7)
    assert torch.equal(narrow(x), whole(x))
    narrow.qkv.conv.weight.data = whole.qkv.conv.weight.data[:, inputs]
    narrow.proj.conv.weight.data = whole.proj.conv.weight.data[outputs]
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(narrow.proj.bn, name).data = getattr(whole.proj.bn, name).data[outputs]
    some = torch.zeros_like(x)
    some[:, inputs] = x[:, inputs]
    assert torch.allclose(narrow(x[:, inputs]), whole(some)[:, outputs], atol=1e-5)


def test_a_new_process_reads_what_was_pruned_unequally(smaller: Smaller, tmp_path: Path) -> None:
    small = smaller("11/yolo11", "global")
    torch.save(small, tmp_path / "pruned.pt")
    np.save(tmp_path / "image.npy", noise(1)[0])
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import numpy, torch\n"
        "model = torch.load('pruned.pt', weights_only=False)\n"
        "with torch.no_grad():\n"
        "    numpy.save('found.npy', model(torch.from_numpy(numpy.load('image.npy')))[0].numpy())\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=300)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), answers(small, noise(1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["v5/yolov5", "v8/yolov8-p2", "11/yolo11", "26/yolo26"])
def test_a_scaled_model_has_the_shapes_of_its_family(family: Family, name: str) -> None:
    content: Any = YAML.load(str(ULTRALYTICS / f"cfg/models/{name}.yaml"))
    content |= {"nc": CLASSES, "scale": "n", "scales": {"n": [0.33 * 0.5, 0.25 * 0.75, 1024]}}
    expected = build(content, None)
    scaled = change_structure(family(name), Scale(width=0.75, depth=0.5), seed=0)
    assert shapes(scaled) == shapes(expected)
    assert np.isfinite(answers(scaled, noise(1))).all()


@pytest.mark.parametrize("part", [Scale(width=0.5), Scale(depth=0.5)], ids=["narrower", "shallower"])
@pytest.mark.parametrize("name", ["v3/yolov3-tiny", "v6/yolov6", "v8/yolov8-ghost"])
def test_a_family_without_rules_is_not_scaled(family: Family, name: str, part: Scale) -> None:
    with pytest.raises(ValueError, match="structure: scale knows no way to slice the weights of a "):
        change_structure(family(name), part, seed=0)


@torch.no_grad()
def test_a_narrower_yolo11_computes_what_the_wide_one_does_without_its_last_channels_and_heads(family: Family) -> None:
    wide = family("11/yolo11")
    narrow, masked = change_structure(wide, Scale(width=0.5), seed=0), deepcopy(wide)
    for name, module in masked.named_modules():
        if isinstance(module, Conv):
            own: Any = narrow.get_submodule(name)
            cut = isinstance(masked.get_submodule(name.rpartition(".")[0]), (C2f, C2PSA)) and name.endswith(".cv1")
            module.register_forward_hook(silencer(own.conv.out_channels, 2 if cut else 1))
    np.testing.assert_allclose(answers(masked, noise(2)), answers(narrow, noise(2)), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "techniques", "leaf"),
    [
        ("11/yolo11", ("prune-global", "relu", "distill-both"), ("int8-minmax", "fast-dfl", "compact")),
        ("11/yolo11", ("depthwise", "prune-taylor", "qat-w4"), ("fast-dfl",)),
        ("26/yolo26", ("prune-global", "relu", "distill-both"), ("int8-minmax", "compact")),
        ("v5/yolov5", ("prune-sensitivity", "hardswish", "distill-feature"), ("int8-minmax", "fast-dfl")),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_recipe_trains_exports_and_runs(
    family: Family, name: str, techniques: tuple[str, ...], leaf: tuple[str, ...], data: Path, tmp_path: Path
) -> None:
    torch.save({"model": family(name)}, tmp_path / "baseline.pt")
    inputs = Inputs(baseline=tmp_path / "baseline.pt", data=data, cache=StageCache(tmp_path / "cache"))
    recipe = recipe_of((*techniques, *leaf), Setting(image_size=SIZE, epochs=1, images=str(data.parent), teacher=""))
    before = shape(recipe, inputs)
    trained = train(before, recipe, inputs)
    assert {key: value.shape for key, value in trained.state_dict().items()} == shapes(before)
    changed = [not torch.equal(value, before.state_dict()[key]) for key, value in trained.named_parameters()]
    assert np.mean(changed) > 0.9  # all but the decoder, and what a schedule leaves still
    file = write_leaf(trained, recipe, inputs, folder=tmp_path / "leaf")
    onnx.checker.check_model(str(file))
    found = onnx_answers(file, noise(2))
    assert found.shape == (2, *OUTPUT[1:]) and np.isfinite(found).all()
    if "int8-minmax" not in leaf:  # and 4 bits are there in the trained weights already
        np.testing.assert_allclose(found, answers(trained, noise(2)), rtol=0.05, atol=0.5)


@pytest.mark.parametrize(
    ("name", "block"), [("v9/yolov9t", "ELAN1"), ("12/yolo12", "A2C2f"), ("v10/yolov10n", "SCDown")]
)
def test_a_model_that_cannot_be_followed_is_refused_at_once(name: str, block: str) -> None:
    content: Any = YAML.load(str(ULTRALYTICS / f"cfg/models/{name}.yaml"))
    model = DetectionModel(content | {"scale": "n"}, verbose=False)
    with pytest.raises(ValueError, match=rf"^prune: a {block} cannot be pruned; .*YOLO11 can, others go without"):
        prune_channels(model, ChannelPrune(ratio=0.5), image_size=SIZE, batches=[])


def test_an_opened_model_has_the_gradients_of_the_original(family: Family) -> None:
    """Scores by gradients need those of all that is before and inside of attention."""
    gradients: list[dict[str, Tensor]] = []
    for model in (deepcopy(family("11/yolo11")).requires_grad_(True), opened(family("11/yolo11"))):
        found: Tensor = model(torch.from_numpy(noise(1)[0]))[0]
        found.sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})  # pyright: ignore
    plain, ours = gradients
    halves = ours["model.10.first.conv.weight"], ours["model.10.second.conv.weight"]
    torch.testing.assert_close(torch.cat(halves), plain["model.10.cv1.conv.weight"], rtol=1e-3, atol=1e-3)
    for name in plain.keys() & ours.keys():
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["26/yolo26", "v10/yolov10n"])
def test_of_two_heads_the_one_is_kept_that_ultralytics_exports(name: str, tmp_path: Path) -> None:
    content: Any = YAML.load(str(ULTRALYTICS / f"cfg/models/{name}.yaml"))
    torch.manual_seed(0)
    both = DetectionModel(content | {"nc": CLASSES, "scale": "n"}, verbose=False).eval()
    assert any("one2one" in parameter for parameter, _ in both.named_parameters())
    torch.save({"model": both}, tmp_path / "both.pt")
    one = load_model(tmp_path / "both.pt")
    assert not [parameter for parameter, _ in one.named_parameters() if "one2one" in parameter]
    assert np.array_equal(answers(one, noise(2)), answers(both, noise(2)))
    assert shapes(one) == shapes(build(one.yaml, None))
    both.end2end = True
    torch.save({"model": both.fuse()}, tmp_path / "fused.pt")
    with pytest.raises(ValueError, match="it was fused and has only its one-to-one head left"):
        load_model(tmp_path / "fused.pt")


def test_box_sides_of_one_number_are_taught_by_their_distance() -> None:
    student, teacher = (
        {"scores": torch.zeros(1, 2, 3), "boxes": torch.tensor(sides).repeat(3, 1).T[None]}
        for sides in ([1.0, 2.0, 3.0, 4.0], [1.5, 2.0, 3.0, 6.0])
    )
    by_hand = (0.5 * 0.5**2 + (2.0 - 0.5)) / 4  # squares below 1, lines above
    for temperature in (1.0, 3.0):
        assert float(logit_loss(student, teacher, temperature)) == pytest.approx(by_hand)
    assert float(logit_loss(student, student, 2.0)) == 0
