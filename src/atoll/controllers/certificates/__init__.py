"""Certificate requests after they were made: approving those that kubelets make for themselves, signing what is approved, cleaning up; and
what bootstrap tokens sign, and their end.
"""
