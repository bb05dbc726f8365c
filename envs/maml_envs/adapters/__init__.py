"""Other people's environments as ours, and ours as gymnasium's."""
