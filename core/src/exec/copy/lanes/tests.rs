//! Pipes of one end and the other, in one process.
