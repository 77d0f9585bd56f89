"""Benchmarks: cost of the gateway against a direct call, nginx and LiteLLM on one upstream. See README.md."""
