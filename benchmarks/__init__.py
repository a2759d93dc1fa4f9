"""What jupyter_train costs, measured side by side with its peers: ``python -m benchmarks --help``.

Every figure is taken in the same run as the peer's, repetitions interleaved, so
that both meet the same load. Nothing here is asserted by a test: read the
ratios, and the interval beside each.
"""
