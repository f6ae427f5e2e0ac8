"""A tabulated benchmark: networks trained beforehand, so that any sampler can be judged on them in seconds.

python -m benchmarks.table build digits       trains every network of a table, on the real data
python -m benchmarks.table replay             lets samplers search the stored tables, and compares them
python -m benchmarks.table card avmnist       says what a stored table is
"""
