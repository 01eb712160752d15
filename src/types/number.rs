//! Parsing and printing numbers exactly as Redis does.
