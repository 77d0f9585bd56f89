"""What accounts refuse, in words for the person who asked."""


class Refused(Exception):
    """A rule of the house says no. The text is translated and meant for a page."""
