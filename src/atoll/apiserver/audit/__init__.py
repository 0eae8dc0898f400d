"""The audit log: who asked for what, and what came of it, one JSON object a line, as a policy file says (audit.k8s.io/v1).

`policy` decides how much is told of a request, `record` is what is told, `log` is the file. A server without a policy pays one look at an
attribute for each request.
"""
