//! Reading arguments: the checks that many commands share, with Redis's errors.

use crate::clock;
use crate::protocol::{Args, ReplyError};
use crate::types::number::{LongDouble, parse_f64, parse_f64_lenient, parse_i64};

/// An integer.
///
/// # Errors
/// That it is none.
#[inline]
pub fn integer(argument: &[u8]) -> Result<i64, ReplyError> {
    parse_i64(argument).ok_or(ReplyError::NOT_INTEGER)
}

/// An integer within bounds.
///
/// # Errors
/// `error`, if it is none or beyond them.
pub fn integer_in(
    argument: &[u8],
    bounds: std::ops::RangeInclusive<i64>,
    error: &'static str,
) -> Result<i64, ReplyError> {
    parse_i64(argument).filter(|value| bounds.contains(value)).ok_or(ReplyError::fixed(error))
}

/// A count that may not be negative.
///
/// # Errors
/// That it is no integer, or negative.
pub fn positive(argument: &[u8]) -> Result<i64, ReplyError> {
    integer_in(argument, 0..=i64::MAX, "ERR value is out of range, must be positive")
}

/// A floating point number.
///
/// # Errors
/// That it is none.
pub fn float(argument: &[u8]) -> Result<f64, ReplyError> {
    parse_f64(argument).filter(|value| !value.is_nan()).ok_or(ReplyError::NOT_FLOAT)
}

/// A timeout in seconds, as blocking commands take it: milliseconds, `None` for none.
///
/// # Errors
/// That it is no number, negative, or beyond all bounds.
pub fn timeout(argument: &[u8]) -> Result<Option<u64>, ReplyError> {
    // Redis reads a long double: what leaves the range of doubles is a number all the same.
    let seconds = LongDouble::parse(argument)
        .and(parse_f64_lenient(argument))
        .or_else(|| parse_f64(argument).filter(|value| value.is_infinite()))
        .ok_or(ReplyError::fixed("ERR timeout is not a float or out of range"))?;
    let is_tiny = seconds == 0.0 && seconds.is_sign_positive() && parse_f64(argument).is_none();
    let millis = if is_tiny { 1.0 } else { (seconds * 1000.0).ceil() };
    if millis > i64::MAX as f64 {
        return Err(TIMEOUT_OUT_OF_RANGE);
    }
    bounded_timeout(millis as i64)
}

/// A timeout in milliseconds: the same.
///
/// # Errors
/// That it is no integer, negative, or beyond all bounds.
pub fn timeout_ms(argument: &[u8]) -> Result<Option<u64>, ReplyError> {
    let error = ReplyError::fixed("ERR timeout is not an integer or out of range");
    bounded_timeout(parse_i64(argument).ok_or(error)?)
}

const TIMEOUT_OUT_OF_RANGE: ReplyError = ReplyError::fixed("ERR timeout is out of range");

fn bounded_timeout(millis: i64) -> Result<Option<u64>, ReplyError> {
    let millis = u64::try_from(millis).map_err(|_| ReplyError::fixed("ERR timeout is negative"))?;
    if millis > i64::MAX as u64 - clock::wall_ms() {
        return Err(TIMEOUT_OUT_OF_RANGE);
    }
    Ok((millis > 0).then_some(millis))
}

/// A database's number.
///
/// # Errors
/// That it is none, or that there is no such database.
pub fn database(argument: &[u8], databases: usize) -> Result<usize, ReplyError> {
    const INT: &str = "ERR value is out of range, value must between -2147483648 and 2147483647";
    let index = i32::try_from(integer(argument)?).map_err(|_| ReplyError::fixed(INT))?;
    usize::try_from(index)
        .ok()
        .filter(|index| *index < databases)
        .ok_or(ReplyError::fixed("ERR DB index is out of range"))
}

/// How many random elements are wanted, negative if the same may come again; `pairs` takes two replies for each.
///
/// # Errors
/// That it is no integer, or beyond all bounds.
pub fn random_count(argument: &[u8], pairs: bool) -> Result<i64, ReplyError> {
    const LONG: &str =
        "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807";
    let count = integer(argument)?;
    if count == i64::MIN {
        return Err(ReplyError::fixed(LONG));
    }
    if pairs && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(ReplyError::fixed("ERR value is out of range"));
    }
    Ok(count)
}

/// The arguments of one option, one by one.
pub struct Options<'a> {
    args: Args<'a>,
    next: usize,
}

impl<'a> Options<'a> {
    /// The options from argument `first` on.
    pub fn new(args: Args<'a>, first: usize) -> Self {
        Self { args, next: first }
    }

    /// Whether the next argument is this word; it is taken if so.
    #[inline]
    pub fn take(&mut self, word: &str) -> bool {
        let found = self.args.is(self.next, word);
        self.next += usize::from(found);
        found
    }

    /// Whether the next argument is this word and at least `count` arguments follow; it is taken if so.
    #[inline]
    pub fn take_with(&mut self, word: &str, count: usize) -> bool {
        self.remaining() > count && self.take(word)
    }

    /// The next argument.
    ///
    /// # Errors
    /// A syntax error, if there is none.
    #[inline]
    pub fn value(&mut self) -> Result<&'a [u8], ReplyError> {
        let value = self.args.get(self.next).ok_or(ReplyError::SYNTAX)?;
        self.next += 1;
        Ok(value)
    }

    /// How many arguments are left.
    pub fn remaining(&self) -> usize {
        self.args.len().saturating_sub(self.next)
    }

    /// Whether none is left.
    pub fn is_done(&self) -> bool {
        self.remaining() == 0
    }
}
