"""How many photos of the demo world one core renders in a second: ``python tests/benchmarks/bench_world.py``."""

import sys
import time

from geoloc_core.corpora.world.photo import photos
from geoloc_core.corpora.world.render import render


def main(count: int = 500, size: int = 224) -> None:
    for photo in photos(0, "warm up", 0, 10):
        render(photo, size).jpeg()
    started, used = time.perf_counter(), time.process_time()
    total = sum(len(render(photo, size).jpeg()) for photo in photos(0, "bench", 0, count))
    wall, core = time.perf_counter() - started, time.process_time() - used
    print(f"{count} photos of {size} px, {total / count / 1000:.1f} kB each")
    print(f"{count / core:.0f} photos/s of one core, {count / wall:.0f} photos/s by the clock")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
