"""Daemon sets: one pod on every node that will have it.

`placement` says which nodes those are and makes the pod for one, `plan` what to create and delete, both pure; `controller` watches and
writes.
"""
