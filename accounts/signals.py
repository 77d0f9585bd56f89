"""What accounts tell the apps above them."""

from django.dispatch import Signal

# A person, an organization or its plan changed in a way that decides what keys may do. Whoever caches that forgets it.
access_changed = Signal()

# An organization was made. Sent inside the transaction that makes it, with `organization` and `plan` (the plan's slug;
# "" for the default); what a receiver raises undoes the organization.
organization_created = Signal()

# The means of access that somebody made in an organization end: who issues such takes them back. Sent inside the
# transaction with `organization`, `user` (None: everybody's), `actor` and `address`.
access_ended = Signal()
