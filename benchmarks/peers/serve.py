"""What every peer does after it has come up: a run for each line that comes, and the seconds that it took."""

import json
import sys
import time


def serve(run, **about):
    """Prints `about` as one JSON object, then `{"seconds": ...}` of a run of `run()` for every line on stdin."""
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        run()
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
