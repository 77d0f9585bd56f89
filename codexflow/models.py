"""Models of the base layer, imported where Django looks for them."""

from codexflow.catalogue.models import ConfigVersion

__all__ = ["ConfigVersion"]
