"""The table of cells: each run plainly and by ``%%train``, and what then differs."""
