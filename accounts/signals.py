"""Signals from accounts to the apps above it."""

from django.dispatch import Signal

# A user, an organization or its plan changed in a way that affects what keys may do: receivers drop what they remember
# of the organization with `organization_id`, or of all where it is None.
access_changed = Signal()

# An organization was made. Sent inside the transaction that makes it, with `organization` and `plan` (the plan's slug;
# "" for the default); what a receiver raises undoes the organization.
organization_created = Signal()

# Access that a user created in an organization has ended: receivers revoke what they issued, such as keys. Sent inside
# the transaction with `organization`, `user` (None: all users), `actor` and `address`.
access_ended = Signal()
