"""The controllers of the control plane, one module each.

A controller watches by informers, computes in pure planning functions and writes through the `Client`; `base` has the class they share,
`registry` names them all and runs them: `await run_all(client, config)`.
"""
