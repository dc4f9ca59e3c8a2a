"""What it costs, each figure beside the floor that it is compared with, in one run: ``make bench``.

Machines differ and are noisy, so nothing here is a test and no figure stands alone: candidate and floor take turns,
and what counts is the ratio of their medians. ``python -m tests.bench [name …]`` prints JSON, and a table on standard
error.
"""
