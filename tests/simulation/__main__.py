import sys, logging, gc
logging.disable(logging.CRITICAL)
from tests.simulation.worker import installed
from tests.simulation.run import simulate
with installed():
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        r = simulate(seed, print if len(sys.argv) > 3 else None)
        print(seed, r.problems[:3], r.events, r.batches, r.decisions, r.crashes, f"{r.simulated_s:.1f}s sim", r.switches, f"{r.seconds*1000:.0f} ms", dict(r.outcomes))
