"""Models that CodexFlow knows without a file: the `models` section of config/models.yaml as shipped. Pure.

Files that were written before the section existed, or that name only some models, take the rest from here.
"""

TEXT = """
claude-sonnet-5.5:
  price: {input: 2, cached_input: 0.10, cache_write: 2.50, cache_write_1h: 4, output: 10}
  context: 1000000
  max_output: 128000
  takes: [reasoning, images, tools]
  silence: 300
claude-haiku-5.5:
  price:
    input: 0.10
    cached_input: 0.01
    cache_write: 0.125
    cache_write_1h: 0.20
    output: 0.50
    tiers: [{above: 100000, input: 0.50, cached_input: 0.05, cache_write: 0.625, cache_write_1h: 1, output: 2.50}]
  context: 1000000
  max_output: 128000
  takes: [reasoning, images, tools]
  silence: 180
claude-haiku-4.5:
  price: {input: 1, cached_input: 0.10, cache_write: 1.25, cache_write_1h: 2, output: 5}
  context: 200000
  max_output: 64000
  takes: [temperature, reasoning, images, tools]
  silence: 60
gpt-6.1-sol:
  price:
    input: 2
    cached_input: 0.10
    cache_write: 2.50
    output: 10
    tiers: [{above: 272000, input: 4, cached_input: 0.20, cache_write: 5, output: 15}]
  context: 922000
  max_output: 128000
  takes: [reasoning, images, tools]
  silence: 300
gpt-6-luna:
  price:
    input: 0.10
    cached_input: 0.01
    cache_write: 0.125
    output: 0.50
    tiers: [{above: 272000, input: 0.20, cached_input: 0.02, cache_write: 0.25, output: 0.75}]
  context: 922000
  max_output: 128000
  takes: [reasoning, images, tools]
  silence: 180
deepseek-v4.1-flash:
  price: {input: 0.30, cached_input: 0.006, output: 1.20}
  context: 1000000
  max_output: 393216
  takes: [temperature, reasoning, images, tools]
  silence: 180
gemini-3.8-flash:
  price: {input: 1.50, cached_input: 0.15, output: 7.50}
  context: 1048576
  max_output: 65536
  takes: [reasoning, images, tools]
  silence: 180
gemini-3.5-flash-lite:
  price: {input: 0.30, cached_input: 0.03, output: 2.50}
  context: 1048576
  max_output: 65536
  takes: [reasoning, images, tools]
  silence: 60
text-embedding-3-small:
  price: {input: 0.02, output: 0}
  context: 8191
  takes: []
claude-sonnet-4.5:
  price: {input: 3, cached_input: 0.30, cache_write: 3.75, cache_write_1h: 6, output: 15}
  context: 200000
  max_output: 64000
  retires: 2026-11-30
  replaced: 2026-11-28
  successor: claude-sonnet-5.5
claude-haiku-3.5:
  price: {input: 0.80, cached_input: 0.08, cache_write: 1, cache_write_1h: 1.60, output: 4}
  context: 200000
  max_output: 8192
  takes: [temperature, images, tools]
  retires: 2026-02-19
  successor: claude-haiku-5.5
deepseek-v3:
  price: {input: 0.27, cached_input: 0.07, output: 1.10}
  context: 128000
  max_output: 8192
  takes: [temperature, tools]
  retires: 2026-07-24
  successor: deepseek-v4.1-flash
gpt-4o-mini:
  price: {input: 0.15, cached_input: 0.075, output: 0.60}
  context: 128000
  max_output: 16384
  takes: [temperature, images, tools]
  retires: 2027-01-14
  replaced: 2026-11-28
  successor: gpt-6-luna
gpt-4o:
  price: {input: 2.50, cached_input: 1.25, output: 10}
  context: 128000
  max_output: 16384
  takes: [temperature, images, tools]
  retires: 2027-01-14
  replaced: 2026-11-28
  successor: gpt-6.1-sol
gemini-2.5-pro:
  price:
    input: 1.25
    cached_input: 0.125
    output: 10
    tiers: [{above: 200000, input: 2.50, cached_input: 0.25, output: 15}]
  context: 1048576
  max_output: 65535
  retires: 2026-12-01
  replaced: 2026-11-28
  successor: gemini-3.8-flash
gemini-2.0-flash:
  price: {input: 0.10, cached_input: 0.025, audio_input: 0.70, output: 0.40}
  context: 1048576
  max_output: 8192
  takes: [temperature, images, tools]
  retires: 2026-06-01
  successor: gemini-3.5-flash-lite
"""
