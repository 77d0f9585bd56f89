"""Templates, styles and translations."""

import hashlib
import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import allauth
import polib
import pytest
import unfold
from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.template.loader import get_template, render_to_string
from django.test import override_settings
from django.utils import translation

from codexflow.env import REPOSITORY
from tests.support.texts import texts

TEMPLATES = sorted((REPOSITORY / "templates").rglob("*.html"))
LONGEST_LINE = 200
TRANSLATED = [code for code, _name in settings.LANGUAGES if code != settings.LANGUAGE_CODE]
CATALOGUE = REPOSITORY / "locale" / "tr" / "LC_MESSAGES" / "django.po"
ALLAUTH_IN_TURKISH = Path(allauth.__file__).parent / "locale" / "tr" / "LC_MESSAGES" / "django.po"
VENDOR = REPOSITORY / "static" / "vendor" / "VENDOR.toml"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_templates_compile_and_comply_with_the_content_security_policy(path: Path) -> None:
    get_template(str(path.relative_to(REPOSITORY / "templates")))
    text = path.read_text()
    assert not re.search(r"\sstyle\s*=", text)
    assert not re.search(r"\son[a-z]+\s*=\s*[\"']", text)
    assert not re.search(r"<style|hx-on|javascript:", text)
    for script in re.findall(r"<script[^>]*>", text):
        # JSON is data: browsers do not run it.
        assert "src=" in script or 'type="application/json"' in script, script
    assert not re.search(r"https?://", re.sub(r"\{#.*?#\}", "", text)), "another host"


def test_no_line_of_a_template_is_longer_than_a_screen() -> None:
    long = [
        f"{path.relative_to(REPOSITORY)}:{number} has {len(line)} characters"
        for suffix in ("html", "txt")
        for path in sorted((REPOSITORY / "templates").rglob(f"*.{suffix}"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > LONGEST_LINE
    ]
    assert not long, "\n".join(long)


def test_every_component_is_on_the_page_of_components() -> None:
    text = (REPOSITORY / "templates" / "dev" / "components.html").read_text()
    for path in (REPOSITORY / "templates" / "cotton").glob("*.html"):
        assert f"<c-{path.stem}" in text, path.stem


def translations(language: str) -> Any:
    return polib.pofile(str(REPOSITORY / "locale" / language / "LC_MESSAGES" / "django.po"))


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_translation_is_complete(language: str) -> None:
    catalogue = translations(language)
    assert not catalogue.untranslated_entries()
    assert not catalogue.fuzzy_entries()
    assert not catalogue.obsolete_entries()
    for entry in catalogue:
        names = set(re.findall(r"%\(\w+\)s|\{\w+\}", entry.msgid))
        for text in [entry.msgstr, *entry.msgstr_plural.values()]:
            if text:
                assert set(re.findall(r"%\(\w+\)s|\{\w+\}", text)) >= names, entry.msgid


CATALOGUES = sorted((REPOSITORY / "locale").rglob("*.po"))


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_the_compiled_translations_are_up_to_date(path: Path) -> None:
    compiled = polib.mofile(str(path.with_suffix(".mo")))
    messages = {entry.msgid: entry.msgstr or entry.msgstr_plural for entry in compiled}
    assert messages == {entry.msgid: entry.msgstr or entry.msgstr_plural for entry in polib.pofile(str(path))}


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_translation_has_exactly_the_messages_of_the_code(language: str) -> None:
    catalogue = {entry.msgid for entry in translations(language)}
    used = texts()
    missing = [f"{path.relative_to(REPOSITORY)}: {text!r}" for text, path in used.items() if text not in catalogue]
    assert not missing, "not translated (make messages):\n" + "\n".join(missing)
    unused = sorted(catalogue - set(used))
    assert not unused, "translated, but used nowhere (make messages):\n" + "\n".join(unused)


def test_no_style_capitalizes_text() -> None:
    """In Turkish `i` and `I` are different letters, which CSS and str.upper ignore."""
    for path in [*TEMPLATES, REPOSITORY / "frontend" / "app.css"]:
        assert not re.search(r"\|(upper|lower|title|capfirst)\b|\buppercase\b|\bcapitalize\b", path.read_text()), (
            path.name
        )


MAILS = sorted(
    {str(path.relative_to(folder)).removesuffix("_subject.txt")
     for folder in (Path(allauth.__file__).parent / "templates", REPOSITORY / "templates")
     for path in folder.glob("*/email/*_subject.txt")}
)  # fmt: skip
OURS = sorted(
    f"emails/{path.name.removesuffix('-subject.txt')}"
    for path in (REPOSITORY / "templates" / "emails").glob("*-subject.txt")
)
FACTS = {
    "organization": "Analytical Engines", "by": "ada@example.org", "email": "ben@example.org", "user": None,
    "link": "https://x.example/y", "ends_at": datetime(2026, 11, 28, tzinfo=UTC), "code": "ABC-DEF", "ip": "192.0.2.1",
    "current_site": {"name": "x.example", "domain": "x.example"}, "from_email": "a@x.example",
    "timestamp": datetime(2026, 11, 28, 9, 30, tzinfo=UTC), "user_agent": "curl/8.5",
    "provider": "GitHub", "percent": 80, "plan": "Pro", "limit_nanos": 5_000_000_000, "used_nanos": 4_100_000_000,
    "next_plan": "Pro", "amount_nanos": 49_000_000_000, "url": "https://x.example/o/a/billing/",
    "webhook": "https://x.example/hook", "tag": "",
    "number": "CFX-2026-000001", "total": "25.00 USD", "is_invoice": True,
    "last4": "4242", "charged_at": datetime(2026, 11, 25, tzinfo=UTC), "next_at": datetime(2026, 11, 26, tzinfo=UTC),
    "needs_authentication": True, "is_open": True, "stopped": "declined",
    "key": "ci", "prefix": "cfx_1a2b3c4d", "place": "https://x.example/repo",
    "to_email": "b@x.example", "deleted_email": "c@x.example",
}  # fmt: skip


@pytest.mark.parametrize("language", TRANSLATED)
@pytest.mark.parametrize("name", [*MAILS, *OURS])
def test_every_mail_is_written_in_every_language(name: str, language: str) -> None:
    subject, body = ("-subject.txt", "-body.txt") if name.startswith("emails/") else ("_subject.txt", "_message.txt")
    for part in (subject, body):
        with translation.override("en"):
            english = render_to_string(f"{name}{part}", FACTS)
        with translation.override(language):
            translated = render_to_string(f"{name}{part}", FACTS)
        assert english.strip()
        same = set(sentences(english)) & set(sentences(translated))
        assert not same, same


def sentences(text: str) -> list[str]:
    """Lines of at least three words, without URLs and lists of facts."""
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if len(line.split()) > 2 and "://" not in line and not line.startswith("- ")]


def test_no_turkish_model_name_begins_with_a_dotted_i() -> None:
    """Django capitalizes model names with str.capitalize, which turns i into I."""
    for entry in polib.pofile(str(CATALOGUE)):
        assert not (entry.msgid[:1].islower() and entry.msgstr.startswith("i")) or entry.msgid in NEVER_CAPITALIZED


NEVER_CAPITALIZED = {
    "model named in the request",
    "asked for %(model)s",
    "client disconnected",
    "first token after %(ttft)s",
}


@pytest.mark.parametrize("language", dict(settings.LANGUAGES))
def test_every_allauth_translation_is_still_used_by_allauth(language: str) -> None:
    theirs = {entry.msgid for entry in polib.pofile(str(ALLAUTH_IN_TURKISH))}
    path = REPOSITORY / "locale" / "allauth" / language / "LC_MESSAGES" / "django.po"
    for entry in polib.pofile(str(path)):
        assert entry.msgid in theirs, entry.msgid
        names = set(re.findall(r"%\(\w+\)s|%d|\{\w+\}", entry.msgid))
        for text in [entry.msgstr, *entry.msgstr_plural.values()]:
            assert not text or set(re.findall(r"%\(\w+\)s|%d|\{\w+\}", text)) == names, entry.msgid


def test_what_operators_read_of_the_librarys_tables_is_translated() -> None:
    folder = Path(unfold.__file__).parent
    source = "".join(path.read_text() for suffix in ("html", "py") for path in folder.rglob(f"*.{suffix}"))
    ours = polib.pofile(str(REPOSITORY / "locale" / "unfold" / "tr" / "LC_MESSAGES" / "django.po"))
    for entry in ours:
        assert entry.translated(), entry.msgid
        assert re.search(rf"['\"]{re.escape(entry.msgid)}['\"]", source), f"{entry.msgid}: used nowhere"
    with translation.override("tr"):
        for needed in ("Type to search", "Select all rows", "Apply Filters", "Reset filters", "Run"):
            assert translation.gettext(needed) != needed


def test_password_is_translated_consistently() -> None:
    with translation.override("tr"):
        for entry in polib.pofile(str(ALLAUTH_IN_TURKISH)):
            assert "ifre" not in translation.gettext(entry.msgid), entry.msgid


def test_allauth_messages_are_translated() -> None:
    assert apps.is_installed("allauth")
    theirs = {entry.msgid for entry in polib.pofile(str(ALLAUTH_IN_TURKISH)) if entry.translated()}
    ours = {entry.msgid for entry in polib.pofile(str(CATALOGUE))}
    for needed in ("Sign In", "Sign Up", "Sessions", "Two-Factor Authentication", "Enter Email Verification Code"):
        assert needed in theirs | ours, needed


def test_vendored_files_match_their_checksums() -> None:
    listed = tomllib.loads(VENDOR.read_text())["file"]
    for each in listed:
        path = REPOSITORY / each["path"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == each["sha256"], each["path"]
        assert (REPOSITORY / each["licence_file"]).is_file()
    folders = (
        REPOSITORY / "static" / "vendor",
        REPOSITORY / "static" / "fonts",
        REPOSITORY / "tests" / "support" / "vendor",
    )
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    there = {path for path in files if path.suffix in (".js", ".json", ".woff2")}
    assert there == {REPOSITORY / each["path"] for each in listed}


def test_every_static_file_has_a_hashed_name_in_production(tmp_path: Path) -> None:
    storage = "whitenoise.storage.CompressedManifestStaticFilesStorage"
    changed = {**settings.STORAGES, "staticfiles": {"BACKEND": storage}}
    with override_settings(STATIC_ROOT=str(tmp_path), STORAGES=changed):
        call_command("collectstatic", "--noinput", verbosity=0)
    hashed = {path.name for path in tmp_path.rglob("app.*.css")}
    assert hashed
    names = {name for path in TEMPLATES for name in re.findall(r"\{% static '([^']+)' %\}", path.read_text())}
    assert names
    for name in names:
        assert finders.find(name), name


def test_theme_colours_are_in_the_built_css() -> None:
    built = (REPOSITORY / "static" / "css" / "app.css").read_text()
    for word in ("[data-theme=dark]", "prefers-color-scheme:dark", "--series-1", ".kpi", ".drawer", "inter-turkish"):
        assert word in built, word
    assert len(built) < 90_000  # some 14 KB on the wire
