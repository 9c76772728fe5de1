//! Pure transforms and their inverses.
