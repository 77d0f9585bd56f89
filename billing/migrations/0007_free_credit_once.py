"""Keyed hashes of the mailboxes that were granted free credit, so that none is granted again after a deletion.

The hashes are made as in `billing.mailbox`.
"""

import hashlib
import hmac
import unicodedata

from django.conf import settings
from django.db import migrations, models

import codexflow.lib.clock

OPENING = "opening"


def mailbox_of(address):
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", address).casefold())
    folded = "".join(c for c in folded if unicodedata.category(c) not in ("Cf", "Cc") and not c.isspace())
    local, _, domain = folded.rpartition("@")
    domain = domain.rstrip(".")
    try:
        domain = domain.encode("idna").decode()
    except UnicodeError:
        pass
    domain = {"googlemail.com": "gmail.com"}.get(domain, domain)
    local = local.strip('"')
    name = local.partition("+")[0] or local
    if domain == "gmail.com":
        name = name.replace(".", "") or name
    return f"{name}@{domain}"


def digest(address):
    key = hmac.digest(settings.ENV.hash_salt.encode(), b"billing.free_credit:", hashlib.sha256)
    return hmac.digest(key, mailbox_of(address).encode(), hashlib.sha256)


def remember_granted(apps, schema_editor):
    """Batched and restartable: what is there already is skipped."""
    User = apps.get_model("accounts", "User")
    EmailAddress = apps.get_model("account", "EmailAddress")
    LedgerEntry = apps.get_model("billing", "LedgerEntry")
    FreeCredit = apps.get_model("billing", "FreeCredit")
    granted = LedgerEntry.objects.filter(reference=OPENING).values("organization__created_by")
    users = User.objects.filter(pk__in=granted)
    verified = EmailAddress.objects.filter(user__in=users, verified=True)
    for addresses in (users.values_list("email", flat=True), verified.values_list("email", flat=True)):
        rows = []
        for address in addresses.iterator(chunk_size=1_000):
            rows.append(FreeCredit(digest=digest(address)))
            if len(rows) == 1_000:
                FreeCredit.objects.bulk_create(rows, ignore_conflicts=True)
                rows = []
        FreeCredit.objects.bulk_create(rows, ignore_conflicts=True)


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0006_account_for_every_organization"),
        ("account", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="FreeCredit",
            fields=[
                ("digest", models.BinaryField(editable=False, max_length=32, primary_key=True, serialize=False)),
                ("granted_at", models.DateTimeField(default=codexflow.lib.clock.now, editable=False)),
            ],
            options={"verbose_name": "free credit", "verbose_name_plural": "free credits"},
        ),
        migrations.RunPython(remember_granted, migrations.RunPython.noop),
    ]
