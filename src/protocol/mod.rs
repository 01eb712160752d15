//! The Redis protocol: requests in, replies out, and the texts of errors.

mod arguments;
mod error;
mod repetition;
mod reply;
mod request;

pub use arguments::{Args, OwnedArgs, Span};
pub use error::{CommandResult, ProtocolError, ReplyError};
pub use repetition::{Previous, Repetition};
pub use reply::{Deferred, Protocol, Reply};
pub use request::{Limits, RequestParser};
