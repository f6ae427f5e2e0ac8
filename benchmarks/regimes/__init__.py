"""One search against five fixed ways to fuse, where different data want different kinds of fusion.

    python -m benchmarks.regimes --home ~/regimes --jobs 2

A *cell* is a regime with a number of training pairs; a *draw* of it is a study of its own, made of pooled features of
real data: written and spoken digits. Regimes:

- `independent`: image and audio of the same digit, paired at random; backbones of another task. Given the digit the
  modalities say nothing of each other, so adding up what each says is close to optimal by construction;
- `interaction`: image and audio of any two digits; the target is their sum modulo 10, of which neither alone says
  anything;
- `distractors`: as independent, with ten more layers that are irrelevant, redundant or noisy;
- `three`: as interaction, with a third modality that says a little about the sum by itself.

Each draw is searched, and the search's choice and the fixed methods are trained to the end under the same budget of
parameters, recipes, seeds and data. Nothing but the makers knows which regime a study is of, and every choice is made
by validation. What is done is found again, so the same command goes on where it was stopped.
"""
