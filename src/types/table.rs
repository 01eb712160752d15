//! An open hash table of pointer-sized elements with stable scan cursors.
