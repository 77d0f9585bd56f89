"""Demo upstream: an API like a LiteLLM proxy's, without models, with fault injection.

A process of its own (`python -m codexflow.dev.demo_upstream`). It lets a fresh installation answer its first
request without an account anywhere, and lets operators and tests drill every failure an upstream can have.
See `faults.py` for the failures, `tools.py` for when it calls a tool and `server.py` for the routes.
"""
