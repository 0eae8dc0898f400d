"""The audit log: who asked for what, and what came of it, one JSON object a line, as a policy file says (audit.k8s.io/v1).

`policy` decides how much is told of a request, `record` is what is told, `log` is the file. A server without a policy pays one look at an
attribute for each request.

Told is what comes over the wire. Controllers, scheduler and roles of the control plane's own process call the API without a request and are
not told of: upstream's come over the wire and have lines under their own names. What they were asked to do has its line.
"""
