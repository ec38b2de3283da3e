"""The bill of materials of a bundle, in CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/)."""

from __future__ import annotations

import uuid
from typing import Any

from search.bundle.manifest import MODEL, Manifest, Place

SBOM = "sbom.cdx.json"
# SPDX expressions of the packages that the code of bundles imports, by their own metadata.
LICENCES = {
    "onnxruntime": "MIT",
    "numpy": "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0",
    "pillow": "MIT-CMU",
    "ray": "Apache-2.0",
    "fastapi": "MIT",
    "starlette": "BSD-3-Clause",
    "pydantic": "MIT",
    "prometheus-client": "Apache-2.0 AND BSD-2-Clause",
}
_EDGE = ("onnxruntime", "numpy", "pillow")
NEEDED: dict[Place, tuple[str, ...]] = {"edge": _EDGE, "cloud": tuple(LICENCES)}
MODEL_LICENCE = "AGPL-3.0-only"  # SPDX's name today for what Ultralytics' files call AGPL-3.0


def bill(manifest: Manifest) -> dict[str, Any]:
    """The bundle, its model and the packages that it was tested with; without a time, so that it is stable."""
    packages = [_package(name, version) for name, version in manifest.packages.items()]
    model = _model(manifest)
    bundle = {
        "type": "application",
        "bom-ref": "bundle",
        "name": manifest.name,
        "version": manifest.record,
        "licenses": [{"expression": "AGPL-3.0-or-later"}],
    }
    refs = [part["bom-ref"] for part in packages]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, manifest.model_dump_json())}",
        "version": 1,
        "metadata": {"component": bundle},
        "components": [model, *packages],
        "dependencies": [
            {"ref": "bundle", "dependsOn": [model["bom-ref"], *refs]},
            *({"ref": ref, "dependsOn": []} for ref in [model["bom-ref"], *refs]),
        ],
    }


def _package(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [{"expression": LICENCES[name]}],
    }


def _model(manifest: Manifest) -> dict[str, Any]:
    measured = manifest.measured
    accuracy: dict[str, Any] = {"type": measured.metric, "value": f"{measured.accuracy:.4f}", "slice": "val"}
    if measured.accuracy_ci:
        low, high = measured.accuracy_ci
        accuracy["confidenceInterval"] = {"lowerBound": f"{low:.4f}", "upperBound": f"{high:.4f}"}
    low, high = measured.latency_ratio_ci
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": MODEL,
        "version": manifest.record,
        "hashes": [{"alg": "SHA-256", "content": manifest.sha256}],
        "licenses": [{"license": {"id": MODEL_LICENCE}}],
        "modelCard": {
            "modelParameters": {
                "task": "object detection" if manifest.task == "detect" else "image classification",
                "architectureFamily": "YOLO",
                "inputs": [{"format": "image"}],
                "outputs": [{"format": "boxes" if manifest.task == "detect" else "classes"}],
            },
            "quantitativeAnalysis": {
                "performanceMetrics": [
                    accuracy,
                    {
                        "type": "latency as a share of the FP32 baseline's",
                        "value": f"{measured.latency_ratio:.4f}",
                        "confidenceInterval": {"lowerBound": f"{low:.4f}", "upperBound": f"{high:.4f}"},
                    },
                ]
            },
        },
    }
