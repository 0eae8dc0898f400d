"""Custom resources: from a CustomResourceDefinition to a `Kind` that every mechanism of the server treats like a built-in one.

`structure` says whether a schema is structural, `nodes` compiles it, `prune`, `defaults` and `check` are what is done with objects, `cel`
and its neighbours run the rules; `schema` and `rules` put them behind the seams that kinds have; `definition` makes the kinds, `registrar`
serves them as definitions come and go.
"""
