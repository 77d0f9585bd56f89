"""CodexFlow: metered, stage-aware access to LLMs."""

__version__ = "0.1.0"
