"""Models that CodexFlow knows without a file: the `models` section of config/models.yaml as shipped. Pure.

Files that were written before the section existed, or that name only some models, take the rest from here.
"""

TEXT = """
claude-sonnet-4.5:
  price: {input: 3, cached_input: 0.30, cache_write: 3.75, cache_write_1h: 6, output: 15}
claude-haiku-3.5:
  price: {input: 0.80, cached_input: 0.08, cache_write: 1, cache_write_1h: 1.60, output: 4}
deepseek-v3:
  price: {input: 0.27, output: 1.10}
gpt-4o-mini:
  price: {input: 0.15, cached_input: 0.075, output: 0.60}
gpt-4o:
  price: {input: 2.50, cached_input: 1.25, output: 10}
gemini-2.5-pro:
  price:
    input: 1.25
    cached_input: 0.125
    output: 10
    tiers: [{above: 200000, input: 2.50, cached_input: 0.25, output: 15}]
gemini-2.0-flash:
  price: {input: 0.10, cached_input: 0.025, audio_input: 0.70, output: 0.40}
text-embedding-3-small:
  price: {input: 0.02, output: 0}
"""
