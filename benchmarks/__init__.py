"""What the program costs: each module measures one thing and prints it. They are no tests.

`python -m benchmarks` runs those that take minutes; each also runs alone.
"""
