"""The ASGI application of a gateway that crashes (crashing.py). Importing it changes the process."""

from codexflow.asgi import application
from tests.support.crashing import install

__all__ = ["application"]

install()
