"""Numbers of Hypothesis examples, scaled by the profile in use."""

from hypothesis import settings

STANDARD = 100  # of the profile "codexflow"; "nightly" has ten times as many


def examples(count: int) -> int:
    """Scale a test's own `max_examples` by the profile: `@settings(max_examples=examples(40))`."""
    return count * settings().max_examples // STANDARD
