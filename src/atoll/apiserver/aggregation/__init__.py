"""API groups that other servers serve: APIService objects name them, requests are passed on to them (kube-aggregator, KEP-263).

`registered` keeps an APIService for each group version served here; `remote` is one served elsewhere; `health` says whether it can be
reached; `aggregator` holds them together.
"""
