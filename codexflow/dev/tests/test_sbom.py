"""The bill of materials."""

import tomllib

from codexflow.dev.sbom import VENDOR, bill, component_of


def test_every_file_of_others_is_a_component_with_its_licence_and_hash() -> None:
    listed = tomllib.loads(VENDOR.read_text())["file"]
    made = bill({"specVersion": "1.6", "components": [{"name": "django"}]}, listed)
    files = [each for each in listed if each["path"].startswith("static/")]
    assert 0 < len(files) < len(listed)
    assert [each["name"] for each in made["components"]] == ["django", *(file["name"] for file in files)]
    assert {each["hashes"][0]["content"] for each in made["components"][1:]} == {file["sha256"] for file in files}
    assert made["metadata"]["component"]["name"] == "CodexFlow"


def test_a_package_of_a_scope_is_named_whole() -> None:
    file = {
        "name": "Inter",
        "version": "1",
        "npm": "@font/inter/files/a.woff2",
        "licence": "OFL-1.1",
        "path": "a",
        "sha256": "0",
    }
    assert component_of(file)["purl"] == "pkg:npm/%40font/inter@1"
