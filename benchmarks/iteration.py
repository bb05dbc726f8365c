"""One whole meta-iteration: both rollouts, the inner step and the trust-region step."""

import statistics
import time

from common import arguments, learner_for, peak_rss_mib, report
from maml_rl.train import meta_iteration


def main() -> None:
    """Medians over the iterations of a training run, after the first one, which warms up."""
    chosen = arguments(__doc__)
    learner = learner_for(chosen)
    theta, state, rows = learner.initial_params(), {}, []
    for iteration in range(chosen.repeats + 1):
        began = time.perf_counter()
        theta, state, row = meta_iteration(learner, theta, state, iteration)
        rows.append({"seconds": time.perf_counter() - began} | row)
    del rows[0]
    median = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    report(
        {
            "seconds": median["seconds"],
            "sampling_seconds": median["seconds/sampling"],
            "inner_seconds": median["seconds/inner"],
            "outer_seconds": median["seconds/outer"],
            "env_steps": median["env_steps"],
            "steps_per_second": median["env_steps"] / median["seconds"],
            "seconds_per_million_steps": 1e6 * median["seconds"] / median["env_steps"],
            "peak_rss_mib": peak_rss_mib(),
        }
    )
    learner.close()


if __name__ == "__main__":
    main()
