"""What the gateway costs, against a direct call, nginx and LiteLLM on the same upstream. `make bench`; see README.md."""
