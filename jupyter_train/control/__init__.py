"""Where runs are decided: the pure machine and placement, the controller beside the scheduler, and the way to it."""
