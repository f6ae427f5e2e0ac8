"""Algorithm 1 as an Optuna sampler: steps, temperature, proposals, surrogate."""
