"""Stateful sets: pods with names, in order, each with volumes of its own.

`identity` makes pods and claims by ordinal, `plan` says the next step, both pure; `controller` watches and writes.
"""
