//! The sorted-set type.
