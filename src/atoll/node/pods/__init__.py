"""Pods on this node: one worker a pod brings what is to what should be.

model     what a pod's containers are, read from the engine's own records
plan      desired and actual to actions: pure
worker    performs the actions of one pod, tells its status, ends it
kubelet   all workers: by watch, by the engine's events, and adopted after a restart
status    the pod's status as the API shows it: pure
spec, env, fields, security               a container of a pod as the engine's create body
sandbox   the pod's network namespace and its files
pulls     images, by pull policy and back-off
ending    hooks, signals, grace
"""
