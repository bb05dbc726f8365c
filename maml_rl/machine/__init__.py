"""The machine that a run uses: devices, threads, torchrun's ranks, files, progress."""
