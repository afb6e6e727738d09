"""`saccade bench`: a load client that can share its server's cores and counts all the time that requests wait.

A run's life
1. `options.py` checks what the command line asks for; `images.py` and `workload.py` make every request's bytes.
2. `schedule.py` plans when each is due, or `traces.py` reads it from a recording; `session.py` runs the whole.
3. `coordinator.py` starts client processes on one clock, shows progress (`progress.py`) and collects their rows.
4. `client_process.py` sends requests when they are due (`wakeup.py`) over `connections.py`; `answers.py` reads answers.
5. `records.py` holds one row per request; `summary.py` makes a report (`report.py`) of them, with `statistics.py`.
6. `energy.py` reads meanwhile what the devices say that they consume, where the server is on this machine.
7. `text_report.py` and `page.py` show the report; `limits.py` decides whether the run fails.

`slo_search.py` chooses the rates that `--find-slo` tries; `plan.py` says how many servers carry another rate.

The schedule, the statistics, the search, the limits and the reports are pure; only 3 and 4 use processes and sockets.
"""
