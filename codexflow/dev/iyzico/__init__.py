"""Local iyzico: a stateful stand-in for iyzico's API and its hosted checkout form, for development and tests.

It knows what payments by card need and moves no money. It is written by iyzico's documentation and its published
packages; unlike the local Stripe it cannot be compared with types of an SDK, which has none.
"""
