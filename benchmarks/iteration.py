"""One whole meta-iteration: both rollouts, the inner step and the trust-region step."""

import statistics

from common import arguments, learner_for, peak_rss_mib, report, seconds
from maml_rl.train import meta_iteration


def main() -> None:
    """Medians over the repeats, after one iteration that warms up."""
    chosen = arguments(__doc__)
    learner = learner_for(chosen)
    theta, _ = meta_iteration(learner, learner.initial_params(), 0)
    rows = []
    for iteration in range(1, chosen.repeats + 1):
        result: list[tuple[object, dict[str, float]]] = []
        elapsed = seconds(lambda i=iteration, r=result: r.append(meta_iteration(learner, theta, i)))
        rows.append({"seconds": elapsed} | result[0][1])
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
