"""Files of stored papers for download, invoices as UBL-TR among them."""

import io
import zipfile
from collections.abc import Iterable
from datetime import date
from xml.etree.ElementTree import Element

from django.http import HttpResponse
from django.utils import translation

from billing.models import Paper
from billing.papers.documents import description, sums_of_paper
from billing.papers.invoice import Party
from billing.papers.ubl import UblInvoice, ubl_bytes, ubl_number, ubl_of
from billing.papers.ubl_rules import problems_of


def has_ubl(paper: Paper) -> bool:
    """Return whether the paper can be exported: an invoice whose seller is in Türkiye.

    Credit notes cannot: there, it is the buyer who issues an invoice of return.
    """
    return paper.is_invoice and Party.of(paper.seller).country == "TR"


def ubl_of_paper(paper: Paper, *, profile: str, try_rate: str) -> Element:
    """The invoice as UBL-TR, its texts in Turkish."""
    sums = sums_of_paper(paper)
    with translation.override("tr"):
        descriptions = [description(each) for each in sums.lines]
    return ubl_of(
        UblInvoice(
            number=paper.number,
            issued_at=paper.issued_at,
            profile=profile,
            currency=paper.currency,
            seller=Party.of(paper.seller),
            buyer=Party.of(paper.buyer),
            sums=sums,
            descriptions=descriptions,
            try_rate=try_rate,
        )
    )


def ubl_files(
    papers: Iterable[Paper], *, profile: str, try_rate: str, today: date
) -> tuple[dict[str, bytes], list[str]]:
    """Files by name, and what is wrong with each: one that breaks a rule is no file."""
    files: dict[str, bytes] = {}
    problems: list[str] = []
    for paper in papers:
        root = ubl_of_paper(paper, profile=profile, try_rate=try_rate) if has_ubl(paper) else None
        found = ["no invoice of a seller in Türkiye"] if root is None else problems_of(root, today=today)
        problems += [f"{paper.number}: {each}" for each in found]
        if root is not None and not found:
            files[f"{ubl_number(paper.number)}.xml"] = ubl_bytes(root)
    return files, problems


def zipped(files: dict[str, bytes]) -> bytes:
    """A ZIP of files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, each in files.items():
            archive.writestr(name, each)
    return content.getvalue()


def attachment(content: bytes, content_type: str, name: str) -> HttpResponse:
    """A file to download. It has money and addresses: no cache keeps it."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"}
    return HttpResponse(content, content_type=content_type, headers=headers)
