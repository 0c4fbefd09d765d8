"""What runs a job: one module for each kind of worker, one contract for all."""
