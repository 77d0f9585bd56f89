from typing import Any

from django.core.management.base import BaseCommand, CommandError
from typing_extensions import override

from billing.ledger_audit import audit_ledger, store_audit
from codexflow.lib.clock import now


class Command(BaseCommand):
    help = "Prove that balances, sources and daily sums follow from the ledger's entries. Exit code 1 if one does not."

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        findings = audit_ledger()
        store_audit(findings, now=now())
        for finding in findings:
            self.stdout.write(str(finding))
        if findings:
            raise CommandError(f"{len(findings)} sums do not follow from the ledger.")
        self.stdout.write("Every balance, source and daily sum follows from the ledger.")
