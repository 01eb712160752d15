//! Source to bytecode. That needs no machine: what one thread compiled, all load.

use mlua_sys as ffi;

/// Why a source does not compile: Luau's text, with the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CompileError(pub String);

/// Compiles a source; `name` stands in the places of errors.
///
/// # Errors
/// The source is no Lua.
pub fn compile(source: &[u8], name: &str) -> Result<Vec<u8>, CompileError> {
    // SAFETY: the source outlives the call, and the default options point to nothing.
    let bytecode = unsafe { ffi::luau_compile(source, ffi::lua_CompileOptions::default()) };
    // A first byte of zero says that an error text follows, which begins with the line.
    match bytecode.split_first() {
        Some((0, text)) => {
            let text = String::from_utf8_lossy(text);
            Err(CompileError(format!("{name}{text}")))
        }
        _ => Ok(bytecode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_a_source_is_wrong() {
        assert!(compile(b"return 1", "user_script").is_ok());
        let error = compile(b"\nreturn return", "user_script").unwrap_err();
        assert!(error.0.starts_with("user_script:2: "), "{error}");
    }
}
