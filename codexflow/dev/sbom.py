"""`python -m codexflow.dev.sbom PACKAGES`: the bill of materials of the production image, in CycloneDX.

`make sbom` has a tool list the Python packages with their hashes, and puts the files of others in static/ beside them.
"""

import json
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from codexflow import __version__
from codexflow.env import REPOSITORY

VENDOR = REPOSITORY / "static" / "vendor" / "VENDOR.toml"


def component_of(file: Mapping[str, str]) -> dict[str, Any]:
    """Component of a file as VENDOR.toml describes it. Its hash is that of the file here, which may be changed."""
    component: dict[str, Any] = {
        "bom-ref": file["path"],
        "type": "file",
        "name": file["name"],
        "version": file["version"],
        "licenses": [{"license": {"id": file["licence"]}}],
        "hashes": [{"alg": "SHA-256", "content": file["sha256"]}],
    }
    if "npm" in file:
        package = "/".join(file["npm"].split("/")[: 2 if file["npm"].startswith("@") else 1])
        component["purl"] = f"pkg:npm/{package.replace('@', '%40')}@{file['version']}"
    if "changed" in file:
        component["description"] = file["changed"]
    return component


def bill(packages: Mapping[str, Any], files: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    """Bill of materials of the packages' one, with the product's name and the files."""
    product = {"bom-ref": "codexflow", "type": "application", "name": "CodexFlow", "version": __version__}
    return {
        **packages,
        "metadata": {**packages.get("metadata", {}), "component": product},
        # Others are for tests, which are not in the image.
        "components": [
            *packages["components"],
            *(component_of(each) for each in files if each["path"].startswith("static/")),
        ],
    }


def main() -> int:
    packages = json.loads(Path(sys.argv[1]).read_text())
    files = tomllib.loads(VENDOR.read_text())["file"]
    sys.stdout.write(json.dumps(bill(packages, files), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
