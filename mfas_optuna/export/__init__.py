"""The found network as files that need neither this package nor Optuna."""
