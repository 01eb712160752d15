//! HyperLogLog, as Redis stores and counts it.
