"""Jobs and cron jobs: pods that are meant to end.

`indexes` knows completion indexes, `plan` says how many pods should run and when a job is over, `schedule` reads cron expressions, all
pure; `controller`, `cronjob` and `ttl` watch and write.
"""
