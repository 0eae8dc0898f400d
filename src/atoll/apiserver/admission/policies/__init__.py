"""ValidatingAdmissionPolicy and MutatingAdmissionPolicy (KEP-3488, KEP-3962): CEL in the place of webhooks.

`source` rewrites what the CEL library has no words for, `language` compiles and evaluates, `compiled` keeps each policy's programs,
`bindings` tells where and with which parameters a policy holds, `validating` and `mutating` are what admission calls.
"""
