"""Surface names in `keys.policy`, which may not import routing's table."""

from keys.policy import MANAGEMENT, SURFACES
from routing.surfaces import table


def test_keys_can_be_restricted_to_every_surface_and_to_no_other() -> None:
    assert set(SURFACES) == {surface.name for surface in table.SURFACES} | {MANAGEMENT}
