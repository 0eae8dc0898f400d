"""The `atoll` command.

Docker's verbs stand at top level, the cluster's under `cluster`, and the genuine kubectl and docker compose under their own names. All of
it is a client of the two standard faces: what this command can do, an unmodified docker or kubectl can do.

Start-up decides the imports: dispatch is by hand over one table (`commands`), each verb's module is loaded when it is called, and the
quick path (`launch`, `main`, `flags`, `wire`, the verb) needs neither typing, dataclasses, pathlib, argparse nor http.client.
"""
