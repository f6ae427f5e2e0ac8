"""mfas-optuna: finds the best way to fuse trained networks, as an Optuna study."""
