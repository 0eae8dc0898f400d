"""Plug-ins that see every write before it is stored: some change it, some refuse it.

`chain.py` runs them in upstream's order; each module is one plug-in, the ones upstream enables by default.
"""
