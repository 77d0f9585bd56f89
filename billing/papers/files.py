"""PDF files of papers: asked for by pages, made by a worker one by one, kept in the database.

They are small (some 35 KB) and rarely read, and web processes and workers share no folder on several machines.
"""

import logging
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from accounts.models import Organization
from billing.models import Paper, PaperFile
from billing.papers.documents import Document, document_of, statement_document
from billing.papers.selectors import statement_of
from billing.papers.statement import final_at
from codexflow.lib.clock import now

logger = logging.getLogger(__name__)

LANGUAGES = [code for code, _name in settings.LANGUAGES]
# After so many a file is not tried again by itself: the paper itself makes the worker fail.
MAX_ATTEMPTS = 5
BATCH = 20

# Makes a PDF of a document: `billing.papers.pdf.render`.
Render = Callable[..., bytes]


def ask_for_paper(paper: Paper) -> None:
    """Have a paper's PDF made in every language."""
    wanted = [PaperFile(organization_id=paper.organization_id, paper=paper, language=each) for each in LANGUAGES]
    PaperFile.objects.bulk_create(wanted, ignore_conflicts=True)


def ask_for_statement(organization: Organization, month: date, language: str) -> None:
    """Have the PDF of a month's statement made, which must be final: the file is kept."""
    wanted = PaperFile(organization=organization, month=month, language=language)
    PaperFile.objects.bulk_create([wanted], ignore_conflicts=True)


def file_of(organization: Organization, language: str, **what: Any) -> PaperFile | None:
    """The file of `paper` or `month` in a language; None if it was never asked for."""
    return PaperFile.objects.filter(organization=organization, language=language, **what).first()


def make_waiting(render: Render) -> int:
    """Make files that were asked for, each in a transaction of its own. Returns how many. Workers share the work."""
    made = 0
    waiting = PaperFile.objects.filter(made_at=None, attempts__lt=MAX_ATTEMPTS).order_by("attempts", "pk")
    for file_id in list(waiting.values_list("pk", flat=True)[:BATCH]):
        try:
            made += _make(file_id, render)
        except Exception:
            # One that cannot be made must not hold up the others.
            logger.exception("papers.pdf_failed", extra={"file": file_id})
            PaperFile.objects.filter(pk=file_id).update(attempts=F("attempts") + 1)
    return made


def _make(file_id: int, render: Render) -> int:
    with transaction.atomic():
        row = (
            PaperFile.objects.select_for_update(skip_locked=True, of=("self",))
            .select_related("organization", "paper__order", "paper__corrects")
            .filter(pk=file_id, made_at=None)
            .first()
        )
        if row is None:
            return 0  # another worker makes it
        with translation.override(row.language), timezone.override("UTC"):
            document, at = _document_of(row)
            row.content = render(document, language=row.language, at=at, page_label=_("Page {page} of {pages}"))
        row.made_at = now()
        row.save(update_fields=["content", "made_at"])
    return 1


def _document_of(row: PaperFile) -> tuple[Document, datetime]:
    """The document and its time."""
    if row.paper is not None:
        return document_of(row.paper), row.paper.issued_at
    if row.month is None:  # a constraint of the table
        raise ValueError(f"file {row.pk} is of nothing")
    at = final_at(row.month)
    shown = statement_of(row.organization, row.month)
    return statement_document(shown, row.organization.name, is_final=True, at=at), at
