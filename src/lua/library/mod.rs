//! The libraries that Redis adds to Lua: `bit`, `cjson`, `cmsgpack` and `struct`.

pub mod base;
mod bit;
pub mod cjson;
mod cjson_read;
mod cmsgpack;
mod structs;

use std::ffi::CStr;

use super::stack::{NativeFunction, Stack};

/// Makes the libraries global.
pub(super) fn open(stack: &mut Stack) {
    make(stack, c"bit", bit::FUNCTIONS);
    make(stack, c"struct", structs::FUNCTIONS);
    make(stack, c"cmsgpack", cmsgpack::FUNCTIONS);
    stack.global(c"cmsgpack");
    for (name, text) in [(c"_NAME", "cmsgpack"), (c"_VERSION", "lua-cmsgpack 0.4.0")] {
        stack.push_bytes(text.as_bytes());
        stack.set_field(-2, name);
    }
    stack.pop(1);
    make(stack, c"cjson", cjson::FUNCTIONS);
    stack.global(c"cjson");
    stack.push_null();
    stack.set_field(-2, c"null");
    for (name, text) in [(c"_NAME", "cjson"), (c"_VERSION", "2.1.0")] {
        stack.push_bytes(text.as_bytes());
        stack.set_field(-2, name);
    }
    stack.pop(1);
}

fn make(stack: &mut Stack, name: &CStr, functions: &[(&CStr, NativeFunction)]) {
    stack.push_table(0, functions.len());
    for (name, function) in functions {
        stack.push_function(*function);
        stack.set_field(-2, name);
    }
    stack.set_global(name);
}
