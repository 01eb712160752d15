//! Bit operations on byte strings.
