"""The scheduler: which node for which pod.

`plugins` are pure functions over an immutable snapshot, `framework` asks them in order, `queue` holds the pods that wait, `scheduler`
ties these to the API.
"""
