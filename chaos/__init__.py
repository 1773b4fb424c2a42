"""The proof: the real system on this machine, thousands of jobs, a seeded plan of faults, and a ledger at the end.

`python -m chaos` starts `python -m local` in a folder of its own and lets these loose on it:

    clients      submit, repeat, cancel and retry, and note every answer             clients.py
    work         what the jobs do; it notes each attempt that begins, each effect    work.py
    faults       kills, pauses, cuts and old events, by the plan                     faults.py, system.py
    replicated   with --failover: three Redis and three Sentinels                    replicated.py
    witness      keeps the record of each ended job as it was first seen             witness.py
    ledger       compares all of that with what Redis holds at the end               ledger.py, report.py
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
