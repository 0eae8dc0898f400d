"""Persistent volumes: `binder` marries claims and volumes, `local_path` makes volumes as directories, `protection` keeps what is in use."""
