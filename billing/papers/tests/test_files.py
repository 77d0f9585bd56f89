"""PDF files: made by the worker in both languages, once, and kept."""

import subprocess
import sys
from typing import Any

import pytest
import typst
from django.test import Client
from django.urls import reverse

from accounts.models import Organization, User
from billing.models import PaperFile
from billing.papers import files, pdf
from billing.papers.documents import Column, Document, Table
from billing.papers.issue import issue_credit_note
from billing.papers.tests.pdf_text import text_of
from billing.papers.tests.scene import an_invoice, with_seller
from billing.tasks import make_papers
from billing.tests.factories import an_organization
from codexflow.env import REPOSITORY
from codexflow.lib.clock import now
from tests.support.cast import Cast

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def issuing(settings: Any) -> None:
    settings.ENV = with_seller()


@pytest.fixture
def organization() -> Organization:
    return an_organization(plan="free")


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        ("en", ("Invoice", "Seller", "Buyer", "VAT 20%", "20.83 USD", "4.17 USD", "25.00 USD", "Page 1 of 1")),
        ("tr", ("Fatura", "Satıcı", "Alıcı", "KDV %20", "20,83 USD", "4,17 USD", "25,00 USD", "Sayfa 1 / 1")),
    ],
)
def test_the_pdf_has_number_parties_and_total(
    organization: Organization, language: str, texts: tuple[str, ...]
) -> None:
    invoice = an_invoice(organization)
    assert make_papers() == "made 2, mailed 1"
    made = files.file_of(organization, language, paper=invoice)
    assert made is not None
    assert made.content is not None
    shown = text_of(bytes(made.content))
    for text in (*texts, invoice.number, "Örnek Yazılım A.Ş.", "Işık Öğrenme Ltd. Şti.", "17291716060", "4540536920"):
        assert text in shown
    assert make_papers() == "made 0, mailed 0"


def test_typst_is_not_loaded_while_no_paper_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "billing.papers.pdf", None)  # an import of it fails
    assert make_papers() == "made 0, mailed 0"


def test_a_credit_note_names_its_invoice_and_reason(organization: Organization) -> None:
    invoice = an_invoice(organization)
    note = issue_credit_note(invoice, 1_000, reason="#Ğ *unused* $x$")
    make_papers()
    made = files.file_of(organization, "en", paper=note)
    assert made is not None
    shown = text_of(bytes(made.content or b""))
    for text in ("Credit note", note.number, f"{invoice.number}, ", "#Ğ *unused* $x$", "10.00 USD"):
        assert text in shown


def test_the_same_paper_gives_the_same_bytes(organization: Organization) -> None:
    an_invoice(organization)
    make_papers()
    before = [bytes(each.content or b"") for each in PaperFile.objects.order_by("pk")]
    PaperFile.objects.update(content=None, made_at=None)
    make_papers()
    assert [bytes(each.content or b"") for each in PaperFile.objects.order_by("pk")] == before


def test_a_paper_that_cannot_be_made_holds_up_no_other_and_is_given_up(
    organization: Organization, caplog: pytest.LogCaptureFixture
) -> None:
    an_invoice(organization)

    def render(document: Document, *, language: str, **facts: Any) -> bytes:
        if language == "en":
            raise ValueError("broken")
        return b"%PDF"

    assert files.make_waiting(render) == 1
    for _ in range(10):
        assert files.make_waiting(render) == 0
    assert PaperFile.objects.get(language="en").attempts == files.MAX_ATTEMPTS
    assert "papers.pdf_failed" in caplog.text


def test_many_rows_go_on_over_pages() -> None:
    columns = (Column(label="Day"), Column(label="Amount", is_number=True))
    table = Table(title="Usage", columns=columns, rows=[(f"row {n}", f"{n}.00") for n in range(200)])
    document = Document(title="Statement", number="2026-11", facts=(), parties=(), tables=(table,))
    shown = text_of(pdf.render(document, language="en", page_label="Page {page} of {pages}", at=now()))
    assert "row 199" in shown
    assert "Page 2 of " in shown
    # The head of the table is repeated.
    assert shown.count("Amount") > 1


def test_every_letter_is_in_the_fonts_of_the_wheel() -> None:
    letters = "ğüşıöçĞÜŞİÖÇâîû ₺€$ \N{MINUS SIGN}“”’… ąęłżćńóś čďěňřšťůž äßÄ øåæ ñ"
    families = set(typst.Fonts(include_system_fonts=False).families())
    assert "Libertinus Serif" in families
    document = Document(title="A", number="1", facts=(), parties=(), tables=(), notes=[letters])
    shown = text_of(pdf.render(document, language="tr", page_label="", at=now()))
    for each in set(letters) - {" "}:
        assert each in shown, each


@pytest.mark.parametrize("name", ["東京株式会社", "شركة", "ООО «Ромашка»", "Ελλάδα Α.Ε.", "🦊 Ltd."])
def test_any_name_gives_a_pdf(name: str) -> None:
    document = Document(title="A", number="1", facts=[("Name", name)], parties=(), tables=())
    assert pdf.render(document, language="en", page_label="", at=now()).startswith(b"%PDF")


def test_a_page_offers_the_file_once_it_is_made(client: Client, cast: Cast) -> None:
    client.force_login(cast.ada)
    invoice = an_invoice(cast.organization)
    page, file = (reverse(name, args=[cast.slug, invoice.number]) for name in ("paper", "paper-pdf"))
    assert client.get(file).status_code == 404
    waiting = client.get(page).content.decode()
    assert file not in waiting
    assert 'hx-trigger="every 2s"' in waiting
    make_papers()
    polled = client.get(page, headers={"hx-request": "true"}).content.decode()
    assert file in polled
    assert "<html" not in polled
    response = client.get(file)
    assert response["Content-Type"] == "application/pdf"
    assert "Invoice" in text_of(response.content)
    User.objects.filter(pk=cast.ada.pk).update(language="tr")
    client.force_login(User.objects.get(pk=cast.ada.pk))
    assert "Fatura" in text_of(client.get(file).content)
    client.force_login(cast.eve)
    own = cast.eve.organizations.get()
    assert client.get(reverse("paper-pdf", args=[own.slug, invoice.number])).status_code == 404


def test_web_processes_do_not_load_typst() -> None:
    program = "import sys, codexflow.asgi, codexflow.urls; sys.exit('typst' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=False).returncode == 0
