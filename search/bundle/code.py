"""The files of a bundle that are code: copied as they are, and the same everywhere."""

from __future__ import annotations

from importlib import resources

from search.bundle.manifest import Place

EDGE = ("run.py", "benchmark.py", "model.py", "frames.py", "drawing.py")
CLOUD = ("server.py", "app.py", "guard.py", "pictures.py", "settings.py", "page.html", "load.py", "triton_client.py")
CONTAINER = ("Dockerfile", "Dockerfile.dockerignore")
STEPS = ("detection.py", "classification.py", "answers.py")  # of search/runtimes: the same code measures and runs


def code_files(place: Place) -> dict[str, bytes]:
    """The code of a bundle by the name of its file, as this version has it. One for the cloud has the edge's too."""
    package = resources.files("search")
    sources = [(package / "bundle" / "edge", EDGE), (package / "runtimes", STEPS)]
    if place == "cloud":
        sources.append((package / "bundle" / "cloud", (*CLOUD, *CONTAINER)))
    return {name: (source / name).read_bytes() for source, names in sources for name in names}
