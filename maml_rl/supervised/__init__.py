"""Few-shot regression and classification with the same inner loop."""
