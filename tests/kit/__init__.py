"""What the tests of several layers need: what a test may not leave behind, and looking at processes."""
