//! Whole-cluster stories: the harness.
