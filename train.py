"""Train, prune and test from the command line: `python train.py +pruning=sequential_activation`."""

from lightning_prune.cli.train import main

if __name__ == "__main__":
    main()
