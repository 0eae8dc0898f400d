"""One rule a module. A rule that filters has `prepare(pod, snapshot)`, which looks at the pod once and answers the test for each node,
or None when the pod does not concern it. A rule that scores has `score(pod, nodes, snapshot)`, from 0 to 100 for each node. Both are
pure.
"""
