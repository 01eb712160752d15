//! Parsing and printing numbers exactly as Redis does.
//!
//! A value that goes through here and back must come out as the same bytes Redis would answer, so
//! each function names the Redis rule it follows. Bounds that belong to a command (score limits,
//! "not an integer or out of range") are that command's business, and so are error texts.

mod bignum;
mod float_format;
mod float_parse;
mod grisu;
mod integer;
mod long_double;
mod rounding;

pub use float_format::{FloatBuf, format_f64, format_fixed, format_general, format_shortest};
pub use float_parse::{parse_f64, parse_f64_lenient};
pub use integer::{parse_cursor, parse_i64, parse_u64, parse_u64_lenient};
pub use long_double::{LongDouble, LongDoubleError};
