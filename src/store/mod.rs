//! Chunks: cut, name, look up, pack, index, lease, check.
