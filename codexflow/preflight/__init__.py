"""Checks of a deployment, before its programs start and whenever an operator asks.

`findings` is pure; `servers` asks PostgreSQL, Redis, LiteLLM and the mail server; `installation` compares the schema
with this release; `run` puts them together for `python -m codexflow.programs` and `manage.py preflight`.
"""
