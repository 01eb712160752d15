//! Which keys the database concerns, and how: rules compiled from `[[database.rules]]`.
//!
//! The first rule that matches a key wins. A key that no rule matches costs a look at the rules' prefixes.

mod pattern;

pub use pattern::{Captures, Pattern};

/// How the database takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Rows are loaded at a miss, never written.
    ReadThrough,
    /// A write is answered once the database committed it.
    WriteThrough,
    /// A write is answered once the journal has it.
    WriteBehind,
}
