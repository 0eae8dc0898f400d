"""API priority and fairness (KEP-1040): no flood of one client takes the server from the others.

`bootstrap` holds the objects every cluster is born with, `flows` finds the flow of a request, `level` seats and queues requests,
`gate` is what the pipeline asks, `lane` lets the loop breathe between lists that take it long.
"""
