"""What a run uses of the machine: devices, threads, torchrun's ranks, files, progress."""
