"""Planner: answers that one call cannot give, in parts. `serve.py` has the whole of it; what decides is pure.

engage.py decides whether a request is planned, plan.py reads the plan, sections.py splits a long input, prompts.py
writes what the models are told, quote.py and purse.py reckon with money, assembly.py joins the parts. calls.py makes
one call, draws.py keeps the request's record and hold, store.py keeps plans for an hour.
"""
