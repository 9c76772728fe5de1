//! Typed arguments to intent to commands.
