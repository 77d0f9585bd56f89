"""What accounts tell the apps above them."""

from django.dispatch import Signal

# A person, an organization or its plan changed in a way that decides what keys may do. Whoever caches that forgets it.
access_changed = Signal()
