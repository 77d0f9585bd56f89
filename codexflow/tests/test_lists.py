"""Every copy of a list has all its members; a failing test names the missing ones."""

import re
from collections.abc import Iterable

import pytest
from django.conf import settings
from django.template.loader import render_to_string
from django.test import RequestFactory
from django.utils import translation

from billing.labels import PRICE_CLASSES
from billing.pricing import FrozenRates, Usage, price_lines
from codexflow.catalogue import entries, reasons
from codexflow.catalogue.schema import ALL_STAGES, STAGES, parse
from codexflow.catalogue.surfaces import PATHS, SURFACES
from codexflow.env import REPOSITORY
from codexflow.pages.views import STAGE_TEXTS
from keys import policy
from logs.litellm.mapping import SURFACE_OF_CALL_TYPE
from logs.requests import curl
from logs.requests.forms import RANGE_NAMES
from logs.requests.reasons import LABELS
from logs.usage.periods import RANGES
from routing.inference import evaluation, lexicon
from routing.surfaces import table
from tests.support.demo_data import SHARES
from tests.support.lists import assert_same
from tests.support.pictures import LOOKS

NO_RATES = FrozenRates(input_nanos=0, cached_nanos=0, output_nanos=0)
# Place of the copy -> the copy and the original.
COPIES: dict[str, tuple[Iterable[object], Iterable[object]]] = {
    "routing/inference/lexicon.py: TIE_ORDER": (lexicon.TIE_ORDER, STAGES),
    "codexflow/pages/views.py: STAGE_TEXTS": (STAGE_TEXTS, STAGES),
    "the demo's SHARES": ([stage for stage, _share in SHARES], ALL_STAGES),
    "logs/requests/forms.py: RANGE_NAMES": (RANGE_NAMES, RANGES),
    "billing/labels.py: PRICE_CLASSES": (
        PRICE_CLASSES,
        [*(line.kind for line in price_lines(Usage(), NO_RATES)), *entries.PARTS, *entries.UNITS],
    ),
    "logs/requests/reasons.py: LABELS": (LABELS, [*reasons.REASONS, reasons.PAST_GATEWAY]),
    "routing/surfaces/table.py: SURFACES": ([surface.name for surface in table.SURFACES], SURFACES),
    "logs/requests/curl.py: BODIES": (curl.BODIES, SURFACES),
    "logs/litellm/mapping.py: SURFACE_OF_CALL_TYPE": (SURFACE_OF_CALL_TYPE.values(), SURFACES),
}


@pytest.mark.parametrize("place", COPIES)
def test_a_copy_has_every_member_of_its_list(place: str) -> None:
    assert_same(*COPIES[place], place)


@pytest.mark.parametrize("name", ["keywords", "stems", "verbs"])
def test_inference_has_words_for_every_stage(name: str) -> None:
    config = parse((REPOSITORY / "config" / "models.yaml").read_text(), source="config/models.yaml").inference
    by_stage = config.intent.verbs if name == "verbs" else getattr(config, name)
    filled = [stage for stage, words in by_stage.items() if words]
    assert_same(filled, STAGES, f"config/models.yaml: inference, {name}")


@pytest.mark.parametrize("file", ["labelled.yaml", "held_out.yaml"])
def test_inference_is_measured_with_prompts_for_every_stage(file: str) -> None:
    path = f"routing/inference/prompts/{file}"
    prompts = evaluation.parse((REPOSITORY / path).read_text(), source=path)
    for language in {each.language for each in prompts}:
        found = {each.stage for each in prompts if each.language == language}
        assert_same(found, STAGES, f"{path}: {language}")


@pytest.mark.parametrize(
    "file", ["README.md", "docs/surfaces.md", "docs/clients/README.md", "templates/pages/docs/quickstart.html"]
)
def test_the_documentation_names_every_stage(file: str) -> None:
    found = re.findall(r"\bcfx-(?!auto)([a-z]+)\b", (REPOSITORY / file).read_text())
    assert_same(found, STAGES, f"{file}: models called cfx-*")


LANGUAGES = dict(settings.LANGUAGES)
TRANSLATED = set(LANGUAGES) - {settings.LANGUAGE_CODE}


def folders(where: str) -> set[str]:
    return {path.parent.name for path in REPOSITORY.glob(f"{where}/*/LC_MESSAGES")}


def test_every_language_has_its_texts() -> None:
    assert_same(folders("locale"), TRANSLATED, "locale/")


def test_allauth_texts_are_overridden_in_every_language() -> None:
    assert_same(folders("locale/allauth"), LANGUAGES, "locale/allauth/")


def test_accessibility_is_checked_in_every_language() -> None:
    assert_same({language for _theme, language, _size in LOOKS}, LANGUAGES, "the screenshots' LOOKS")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_offers_all_other_languages(language: str) -> None:
    request = RequestFactory().get("/")
    with translation.override(language):
        shown = render_to_string("partials/_preferences.html", {"LANGUAGE_CODE": language}, request)
    assert_same(
        re.findall(r'name="language" value="([\w-]+)"', shown), set(LANGUAGES) - {language}, "_preferences.html"
    )


def listed_in_api_docs(field: str) -> list[str]:
    """Words that docs/api.md lists in parentheses after a field."""
    found = re.search(rf"`{field}` \(([^)]*)\)", (REPOSITORY / "docs" / "api.md").read_text())
    assert found, field
    return re.findall(r"`(\w+)`", found[1])


def test_the_api_is_documented_with_every_stage_and_surface() -> None:
    assert_same(listed_in_api_docs("allowed_stages"), ALL_STAGES, "docs/api.md: allowed_stages")
    assert_same(listed_in_api_docs("allowed_surfaces"), policy.SURFACES, "docs/api.md: allowed_surfaces")


def test_every_stage_reason_is_documented() -> None:
    text = (REPOSITORY / "docs" / "stages.md").read_text()
    documented = re.findall(r"^\| `([a-z-]+)` \|", text, flags=re.MULTILINE)
    assert_same(documented, reasons.REASONS, "docs/stages.md")


@pytest.mark.parametrize("surface", table.SURFACES, ids=lambda surface: surface.name)
def test_a_surface_is_served_at_its_documented_path(surface: table.Surface) -> None:
    assert surface.path == PATHS[surface.name]
