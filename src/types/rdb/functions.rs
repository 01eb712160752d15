//! Libraries of functions as bytes: what `FUNCTION DUMP` returns and `FUNCTION RESTORE` takes.

use super::read::Reader;
use super::write::Writer;
use super::{Invalid, sealed, unsealed};

/// What stands before each library's source.
pub(super) const LIBRARY: u8 = 245;

/// The payload of libraries, by their sources.
pub fn encode_libraries<'a>(sources: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut writer = Writer::default();
    for source in sources {
        writer.byte(LIBRARY);
        writer.bytes(source);
    }
    sealed(writer.0)
}

/// The sources of the libraries in a payload.
///
/// # Errors
/// What is wrong with it.
pub fn decode_libraries(payload: &[u8]) -> Result<Vec<Vec<u8>>, Invalid> {
    let mut reader = Reader::new(unsealed(payload)?);
    let mut sources = Vec::new();
    while !reader.is_empty() {
        if reader.byte()? != LIBRARY {
            return Err(Invalid::Data);
        }
        sources.push(reader.string()?.into_owned());
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_read_back() {
        for sources in [vec![], vec![&b"#!lua name=a\n"[..], b""], vec![&[7; 70_000]]] {
            let payload = encode_libraries(sources.iter().copied());
            assert_eq!(decode_libraries(&payload).unwrap(), sources);
            let mut damaged = payload.clone();
            damaged[0] ^= 1;
            assert_eq!(decode_libraries(&damaged), Err(Invalid::Footer));
        }
        assert_eq!(decode_libraries(&sealed(vec![0, 1, b'x'])), Err(Invalid::Data));
    }
}
