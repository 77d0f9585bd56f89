"""Mails about invoices and credit notes, sent by a worker."""

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import translation

from accounts import mail
from accounts.selectors import billing_managers
from billing.models import Paper, PaperMail
from billing.papers.invoice import Party
from codexflow.lib.addresses import site_url
from codexflow.lib.clock import now
from codexflow.templatetags.show import money

# Older ones have waited for a mail server that was not there: nobody expects them any more.
WORTH_SENDING = timedelta(days=1)
BATCH = 20


def send_waiting() -> int:
    """Mail those who manage billing about papers issued since the last time. Returns the number of papers.

    Each is taken from the queue first: a worker that dies then leaves a mail unsent, and none is sent twice.
    """
    sent = 0
    for paper_id in list(PaperMail.objects.order_by("pk").values_list("pk", flat=True)[:BATCH]):
        with transaction.atomic():
            if not PaperMail.objects.filter(pk=paper_id).delete()[0]:
                continue  # another worker sends it
        paper = Paper.objects.select_related("organization").get(pk=paper_id)
        is_able = settings.ENV.mail is not None or not settings.ENV.is_production
        if is_able and paper.issued_at > now() - WORTH_SENDING:
            _send(paper)
            sent += 1
    return sent


def _send(paper: Paper) -> None:
    people = {person.email: person.language for person in billing_managers(paper.organization)}
    # The address of the billing details is nobody's account: it is written to in the language of the first of them.
    email = Party.of(paper.buyer).email.lower()
    if email and email not in people:
        people[email] = next(iter(people.values()), settings.LANGUAGE_CODE)
    for address, language in people.items():
        with translation.override(language):
            total = money(paper.total_cents, paper.currency)
        mail.send(
            "paper",
            address,
            language=language,
            organization=paper.organization.name,
            number=paper.number,
            is_invoice=paper.is_invoice,
            total=total,
            link=f"{site_url(settings.ENV)}/o/{paper.organization.slug}/billing/invoices/{paper.number}/",
        )
