"""Long campaigns of faults on a real kernel and a local cluster: ``python -m benchmarks soak``.

``interrupts``, ``kills``, ``ends`` and ``cycles`` each do one campaign and say what
happened, trial by trial; ``claims`` judges that, and ``page`` writes ``docs/soak.md``.
"""
