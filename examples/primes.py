"""The work of the kind in `knative/kinds/primes`: counts the prime numbers below a limit, which may take hours.

curl -X POST localhost:5000/jobs -d '{"kind": "primes", "input": {"below": 1000000}}'
"""

from math import isqrt

from knative_jobs import Fail, Job

STEP = 1000


def count(job: Job) -> dict[str, int]:
    """Return how many prime numbers are below the limit of the input."""
    match job.input:
        case {"below": int(below)} if below > 0:
            found = 0
            for first in range(0, below, STEP):
                job.progress(first / below, f"{found} up to {first}")  # here a cancelled job stops
                found += sum(map(is_prime, range(first, min(first + STEP, below))))
            return {"primes": found}
    raise Fail('the input looks like {"below": 1000000}')


def is_prime(number: int) -> bool:
    """Tell whether no other number than 1 divides it."""
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))
