"""The proof of a run: its first steps against those of one process that runs the cell alone.

Rank 0 keeps small samples of its first backwards (``witness``), tells its agent, and
the agent starts a *shadow* (``keeper``): a process that runs the cell from the
same capture as the only rank (``shadow``), with everything held back that could be
seen outside (``held``), keeps samples of the same backwards and compares (``judge``).
"""
