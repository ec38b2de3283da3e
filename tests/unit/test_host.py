import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from search.measure import host
from search.measure.host import HostInfo, describe_int8, has_fast_int8, host_info, parse_cpuinfo
from search.runtimes.session import Runtime

X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8480+
stepping\t: 8
flags\t\t: fpu sse2 avx avx2 avx512f avx512_vnni avx_vnni amx_int8
power management:

processor\t: 1
vendor_id\t: GenuineIntel
model name\t: another core
flags\t\t: fpu
"""
ARM_SERVER = """\
processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm asimdhp cpuid asimddp sve i8mm
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd40
CPU revision\t: 1
"""
RASPBERRY_PI_4 = """\
processor\t: 0
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd08

Hardware\t: BCM2835
Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""


def test_x86_cpuinfo() -> None:
    cpu = parse_cpuinfo(X86)
    assert cpu.name == "Intel(R) Xeon(R) Platinum 8480+"
    assert cpu.signature == "GenuineIntel 6 143 8"
    assert cpu.instruction_sets == ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


def test_arm_cpuinfo() -> None:
    server = parse_cpuinfo(ARM_SERVER)
    assert (server.name, server.signature) == ("", "0x41 0xd40 1")
    assert set(server.instruction_sets) == {"neon", "dotprod", "i8mm"}
    board = parse_cpuinfo(RASPBERRY_PI_4)
    assert (board.name, board.instruction_sets) == ("Raspberry Pi 4 Model B Rev 1.4", ("neon",))


def test_a_text_that_says_nothing_gives_empty_facts() -> None:
    cpu = parse_cpuinfo("")
    assert (cpu.name, cpu.signature, cpu.instruction_sets) == ("", "", ())


@pytest.mark.parametrize(
    ("sets", "fast", "words"),
    [
        (("avx2", "avx512_vnni"), True, "fast here: avx512_vnni"),
        (("neon", "dotprod"), True, "fast here: dotprod"),
        (("avx2",), False, "without VNNI"),
        (("neon",), False, "without dot-product"),
        ((), False, "does not say"),
    ],
)
def test_int8_in_words(sets: tuple[str, ...], fast: bool, words: str) -> None:
    assert has_fast_int8(sets) is fast
    assert words in describe_int8(sets)


def test_the_facts_are_this_machines() -> None:
    info = host_info()
    assert info.logical_cores == os.cpu_count()
    assert 1 <= info.usable_cores <= info.logical_cores
    assert info.python == platform.python_version()
    assert platform.machine() in info.os
    assert info.cpu
    assert {name: info.packages[name] for name in host.PACKAGES} == {n: metadata.version(n) for n in host.PACKAGES}
    assert info.packages == {name: metadata.version(name) for name in info.packages}
    if Path("/proc/meminfo").is_file():
        total_kib = int(Path("/proc/meminfo").read_text(encoding="utf-8").split()[1])
        assert info.memory_gib is not None
        assert 0 < info.memory_gib <= total_kib / 2**20 + 0.01


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux pins a process")
def test_usable_cores_are_the_ones_this_process_is_pinned_to() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        pinned = host_info()
    finally:
        os.sched_setaffinity(0, before)
    assert pinned.usable_cores == 1
    assert pinned.id == host_info().id  # the same machine, whoever asks


def test_json_round_trip() -> None:
    info = host_info()
    assert HostInfo(**json.loads(json.dumps(asdict(info)))) == info


def test_the_id_changes_with_what_latency_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake_version(package: str) -> str | None:
        return "0.0.1" if package == changed else real(package)

    real: Any = host.version_of
    changed = ""
    monkeypatch.setattr(host, "version_of", fake_version)
    original = host_info().id
    changed = "optuna"
    assert host_info().id == original
    for package, runtime in (("onnxruntime", Runtime()), ("torch", Runtime(name="torchscript"))):
        changed = ""
        before = host_info(runtime)
        changed = package
        assert host_info(runtime).id != before.id
        assert host_info(runtime).packages[package] == "0.0.1"
    assert host_info().id == host_info(Runtime()).id == original  # another runtime's version is no matter


def test_an_environment_of_its_own_is_a_part_of_the_id() -> None:
    ids = {host_info(Runtime(provider="openvino", environment=(f"onnxruntime-openvino=={v}",))).id for v in (1, 2)}
    assert len(ids | {host_info().id}) == 3


@pytest.mark.parametrize("package", ["openvino", "ncnn"])
def test_every_runtime_that_is_installed_is_reported(package: str) -> None:
    pytest.importorskip(package)
    assert host_info().packages[package] == metadata.version(package)


def test_importing_and_describing_loads_no_heavy_package() -> None:
    code = (
        "import sys, search.measure.host as host; host.host_info(); "
        "print([name for name in ('torch', 'ray', 'ultralytics', 'onnxruntime', 'numpy') if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
