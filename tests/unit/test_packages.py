import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["cluster", "search", "spaces"])
def test_package_is_imported_from_this_repository(name: str) -> None:
    """Other people's packages on PyPI have these names too."""
    package = importlib.import_module(name)
    assert package.__file__ is not None
    assert Path(package.__file__).resolve() == ROOT / name / "__init__.py"
