//! Bytes to structs and back, without I/O.
