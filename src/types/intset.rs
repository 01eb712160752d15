//! A sorted array of integers: the smallest encoding of a set.
