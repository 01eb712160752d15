//! How Luau writes numbers: as Lua 5.1 does, `%.14g`.
//!
//! Luau calls these two functions wherever a number becomes a text (`..`, `string.format`, `table.concat`), by the names
//! they have in C++. Defined here, they take the place of those in its library, from which the linker then takes nothing.
//! A test says so.

use std::ffi::c_char;

use super::stack::number_text;

/// Luau's buffer has room for 48 bytes; neither text is longer than half of that.
unsafe fn write(buffer: *mut c_char, text: &[u8]) -> *mut c_char {
    // SAFETY: the caller's buffer has room.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len());
        let end = buffer.add(text.len());
        *end = 0;
        end
    }
}

/// `char* luai_num2str(char* buf, double n)`: returns the end.
// SAFETY: the name is one that Luau calls, and nobody else defines.
#[unsafe(no_mangle)]
unsafe extern "C" fn _Z12luai_num2strPcd(buffer: *mut c_char, number: f64) -> *mut c_char {
    // SAFETY: Luau gives a buffer for a number's text.
    unsafe { write(buffer, &number_text(number)) }
}

/// `char* luai_int2str(char* buf, int64_t l)`: the same for Luau's integers, which scripts have no way to make.
// SAFETY: the name is one that Luau calls, and nobody else defines.
#[unsafe(no_mangle)]
unsafe extern "C" fn _Z12luai_int2strPcl(buffer: *mut c_char, number: i64) -> *mut c_char {
    // SAFETY: as above.
    unsafe { write(buffer, itoa::Buffer::new().format(number).as_bytes()) }
}

/// Called by whoever makes a machine, so that this file is linked before the library's own functions are looked for.
pub(super) fn link() {
    std::hint::black_box(_Z12luai_num2strPcd as *const ());
    std::hint::black_box(_Z12luai_int2strPcl as *const ());
}
