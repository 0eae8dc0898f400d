"""What can be done to resources: one module a verb, the same for every kind."""
