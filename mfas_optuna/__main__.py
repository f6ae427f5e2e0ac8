"""`python -m mfas_optuna` is the command line."""

from mfas_optuna.cli import main

if __name__ == "__main__":
    main()
