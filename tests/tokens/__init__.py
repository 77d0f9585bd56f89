"""Tokens a byte: how many tokens published vocabularies make of texts of all kinds.

CI measures the vocabularies that LiteLLM brings along. `make tokens` measures further ones, from packages that
package-lock.json pins and hashes, and prints the table of docs/limits.md.
"""
