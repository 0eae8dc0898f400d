"""The kubelet's own HTTPS API, which the API server calls: logs, exec, attach, port-forward, pods, stats.

server        routes, and who may call
logs          a container's log, and a mirror pod's file
terminals     exec and attach over WebSocket channels and SPDY/3.1 streams
portforward   the same for connections into a pod's network
"""
