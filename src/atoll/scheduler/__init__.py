"""The scheduler: which node for which pod.

`cache` follows nodes and pods and hands out an immutable `snapshot`; each module of `plugins` holds one rule as pure functions over it;
`framework` asks them in order and chooses; `queue` holds the pods that wait, and brings them back when something changed that could
help them; `preemption` finds victims; `binding` and `scheduler` write.
"""
