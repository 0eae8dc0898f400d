"""Which pods stand behind a service: EndpointSlices, which proxy and DNS read, and the older Endpoints.

`backends` says what one pod contributes; `slices` and `subsets` shape that for the two resources, all pure; `controller` watches and
writes.
"""
