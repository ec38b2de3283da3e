"""The command: what it prints, what it writes, and that no secret of this machine gets into either."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from hypothesis import given, settings
from typer.testing import CliRunner

from cluster.errors import UserError
from cluster.render.command import Format, render
from cluster.render.formats import FORMATS
from cluster.render.load import parse_spec
from cluster.render.write import write_files
from tests.cluster.specs import CASES, GOLDEN, contents, golden_spec, rendered

app = typer.Typer()
app.command()(render)


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_help_loads_nothing_heavy_and_shows_an_example_that_is_taken() -> None:
    code = "import sys, cluster.render.command; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "typer" in loaded and not {"ray", "torch", "yaml", "pydantic"} & set(loaded)
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    example = re.search(r"Example: python -m cluster render (.*)", shown.output)
    assert example is not None
    typer.main.get_command(app).make_context("render", example[1].split())  # raises for an option that there is not


@pytest.mark.parametrize("kind", Format)
def test_without_any_option_a_small_cluster_is_printed(kind: Format) -> None:
    text = run(kind)
    for name, content in FORMATS[kind](golden_spec("default")).items():
        assert content in text
        assert (f"# ---- {name} ----" in text) == (kind is Format.COMPOSE)


@pytest.mark.parametrize(("case", "kind"), [(case, kinds[0]) for case, kinds in CASES.items() if case != "default"])
def test_a_spec_is_read_and_the_files_are_written(case: str, kind: Format, tmp_path: Path) -> None:
    out = tmp_path / "deploy" / "here"
    written = run(kind, "--spec", GOLDEN / case / "cluster.yaml", "--out", out).splitlines()
    assert sorted(written) == sorted(str(path) for path in out.iterdir())
    if kind is not Format.COMPOSE:
        assert {path.name: path.read_text() for path in out.iterdir()} == FORMATS[kind](golden_spec(case))


def test_the_compose_file_names_the_repository_and_its_dockerfile_from_where_it_is(tmp_path: Path) -> None:
    run(Format.COMPOSE, "--out", tmp_path)
    build = yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"]["head"]["build"]
    assert Path(os.path.normpath(tmp_path / build["context"])) == Path.cwd()
    assert Path(os.path.normpath(Path.cwd() / build["dockerfile"])) == tmp_path / "Dockerfile"


def test_what_was_edited_is_kept_unless_forced(tmp_path: Path) -> None:
    run(Format.SLURM, "--out", tmp_path)
    run(Format.SLURM, "--out", tmp_path)  # the same content is no edit
    (tmp_path / "slurm.sh").write_text("mine")
    with pytest.raises(UserError, match=r"slurm\.sh is there with other content; --force replaces it"):
        run(Format.SLURM, "--out", tmp_path)
    assert (tmp_path / "slurm.sh").read_text() == "mine"
    run(Format.SLURM, "--out", tmp_path, "--force")
    assert (tmp_path / "slurm.sh").read_text() != "mine"


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.write_text

    def full_disk(path: Path, text: str, **options: Any) -> int:
        if "second" in path.name:
            real(path, text[:1], **options)
            raise OSError(28, "No space left on device")
        return real(path, text, **options)

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        write_files({"first": "one", "second": "two"}, tmp_path, force=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        run(Format.SLURM, "--out", tmp_path / "out")


@settings(max_examples=20)
@given(contents())
def test_no_secret_of_this_machine_gets_into_the_output(content: dict[str, Any]) -> None:
    spec = parse_spec(content, where="spec")
    values = {secret.env: secrets.token_hex(16) for secret in spec.secrets} | {"RAY_AUTH_TOKEN": secrets.token_hex(16)}
    token = Path.home() / ".ray" / "auth_token"
    token.parent.mkdir(exist_ok=True)
    before = token.read_text() if token.exists() else None
    old = os.environ.copy()
    try:
        os.environ.update(values)
        token.write_text(values["RAY_AUTH_TOKEN"])
        for kind in Format:
            try:
                text = rendered(spec, kind)
            except UserError:  # a storage that this format does not have
                continue
            assert not [name for name, value in values.items() if value in text]
            assert "RAY_USAGE_STATS_ENABLED" in text and "RAY_USAGE_STATS_ENABLED=1" not in text
    finally:
        os.environ.clear()
        os.environ.update(old)
        token.unlink() if before is None else token.write_text(before)
