"""PodSecurity: the Pod Security Standards (privileged, baseline, restricted) as a namespace's labels ask for them (KEP-2579).

`policy` reads the labels, `baseline` and `restricted` hold the checks, `evaluate` runs those of a level at a version, `plugin` is what
admission calls.
"""
