//! Errors that reach the client, in Redis's words.

use std::borrow::Cow;

/// What a command's handler returns: the reply is already written, or this error takes its place.
pub type CommandResult = Result<(), ReplyError>;

/// An error reply: its code and text as they go over the wire, without the leading `-`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", String::from_utf8_lossy(.0))]
pub struct ReplyError(Cow<'static, [u8]>);

impl ReplyError {
    /// The key holds another type.
    pub const WRONG_TYPE: Self =
        Self::fixed("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// Options that do not fit together or are not known.
    pub const SYNTAX: Self = Self::fixed("ERR syntax error");
    /// An argument or a value is no 64-bit integer.
    pub const NOT_INTEGER: Self = Self::fixed("ERR value is not an integer or out of range");
    /// An argument or a value is no floating point number.
    pub const NOT_FLOAT: Self = Self::fixed("ERR value is not a valid float");
    /// An integer would leave 64 bits.
    pub const OVERFLOW: Self = Self::fixed("ERR increment or decrement would overflow");
    /// A key that must exist does not.
    pub const NO_SUCH_KEY: Self = Self::fixed("ERR no such key");
    /// An index is beyond the value's end.
    pub const INDEX_OUT_OF_RANGE: Self = Self::fixed("ERR index out of range");
    /// A count or length that may not be negative.
    pub const NOT_POSITIVE: Self = Self::fixed("ERR value is out of range, must be positive");
    /// The memory limit is reached and nothing may be evicted.
    pub const OUT_OF_MEMORY: Self = Self::fixed("OOM command not allowed when used memory > 'maxmemory'.");
    /// The connection has not authenticated.
    pub const NO_AUTH: Self = Self::fixed("NOAUTH Authentication required.");
    /// The result of an arithmetic on floats has no finite value.
    pub const NAN_OR_INFINITY: Self = Self::fixed("ERR increment would produce NaN or Infinity");
    /// A string would become longer than `proto-max-bulk-len`.
    pub const STRING_TOO_LONG: Self =
        Self::fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)");

    /// An error with a fixed text, code first.
    pub const fn fixed(text: &'static str) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }

    /// An error with a text made for the occasion; line breaks in it become spaces on the wire.
    pub fn new(text: impl Into<Vec<u8>>) -> Self {
        Self(Cow::Owned(text.into()))
    }

    /// An error that shows bytes of the client's, whatever they are. Redis prints them as a C string, which ends at a
    /// zero.
    pub fn showing(before: &str, shown: &[u8], after: &str) -> Self {
        let shown = shown.split(|byte| *byte == 0).next().unwrap_or_default();
        Self::new([before.as_bytes(), shown, after.as_bytes()].concat())
    }

    /// `wrong number of arguments` for the named command (lower case, `config|get` for a subcommand).
    pub fn wrong_arity(command: &str) -> Self {
        Self::new(format!("ERR wrong number of arguments for '{command}' command"))
    }

    /// The whole text, code first.
    pub fn text(&self) -> &[u8] {
        &self.0
    }

    /// The code: the text's first word.
    pub fn code(&self) -> &str {
        let word = self.0.split(|byte| *byte == b' ').next().unwrap_or_default();
        std::str::from_utf8(word).unwrap_or("ERR")
    }
}

/// A request that cannot be parsed: it is answered and the connection closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A multi-bulk header with a length that is none or too large.
    #[error("invalid multibulk length")]
    MultibulkLength,
    /// A large multi-bulk header before authentication.
    #[error("unauthenticated multibulk length")]
    UnauthenticatedMultibulk,
    /// A bulk header with a length that is none or too large.
    #[error("invalid bulk length")]
    BulkLength,
    /// A large bulk header before authentication.
    #[error("unauthenticated bulk length")]
    UnauthenticatedBulk,
    /// Something else where a bulk string must begin.
    #[error("expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    /// An inline request without a line end.
    #[error("too big inline request")]
    InlineTooBig,
    /// A multi-bulk header without a line end.
    #[error("too big mbulk count string")]
    MultibulkHeaderTooBig,
    /// A bulk header without a line end.
    #[error("too big bulk count string")]
    BulkHeaderTooBig,
    /// Quotes in an inline request that do not close.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
}

impl From<&ProtocolError> for ReplyError {
    fn from(error: &ProtocolError) -> Self {
        match error {
            // The byte as it came, which need not be part of a text.
            ProtocolError::ExpectedBulk(byte) => {
                Self::new([b"ERR Protocol error: expected '$', got '", &[*byte][..], b"'"].concat())
            }
            other => Self::new(format!("ERR Protocol error: {other}")),
        }
    }
}
