"""What the gateway costs, against a direct call, nginx and LiteLLM on one upstream. `make bench`; see README.md."""
