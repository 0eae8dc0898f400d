"""Deployments: moving pods from one template to the next.

`revisions` knows which replica set is which template, `rollout` plans sizes, `status` computes counts and conditions, all pure;
`controller` does the writes.
"""
