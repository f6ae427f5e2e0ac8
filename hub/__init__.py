"""Makes the OptunaHub package `samplers/mfas` from the modules of mfas_optuna (docs/decisions/0019-optunahub.md)."""
