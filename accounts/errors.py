"""Errors of accounts, with messages for the page."""


class Refused(Exception):
    """A rule of accounts forbids the action. The text is translated and meant for a page."""
