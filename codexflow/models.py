"""Tables of the ground floor, gathered where Django looks for them."""

from codexflow.catalogue.models import ConfigVersion

__all__ = ["ConfigVersion"]
