"""edgetrt as a whole, from its command line, beside what it is to be measured against.

Every measurement is a module with a function `measure`; `python -m benchmarks.ratios` runs them.
"""
