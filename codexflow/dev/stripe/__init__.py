"""Local Stripe: a stateful stand-in for Stripe's API and its hosted checkout page, for development and tests.

It knows what payments by card need and moves no money. Tests drive it through Stripe's own SDK, and hold its objects
against the SDK's types.
"""
