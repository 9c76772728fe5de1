//! The stopped window: stop, evidence, start.
