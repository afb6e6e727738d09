"""`saccade bench`: a load client that shares its server's cores and does not lie about waiting.

A run's life
1. `options.py` checks what the command line asks for; `images.py` and `workload.py` make every request's bytes.
2. `schedule.py` plans when each is due (`traces.py`: as recorded); `session.py` tells the rest as one story.
3. `coordinator.py` starts client processes on one clock, shows progress (`progress.py`) and collects their rows.
4. `client_process.py` sends what is due (`wakeup.py`) over `connections.py`; `answers.py` reads what came back.
5. `records.py` holds one row per request; `summary.py` makes the `report.py` of it, with `statistics.py`.
6. `text_report.py` and `page.py` show it; `limits.py` decides whether the run fails.

`slo_search.py` chooses the rates that `--find-slo` tries.

The schedule, the statistics, the search, the limits and the reports are pure; only 3 and 4 know processes and sockets.
"""
