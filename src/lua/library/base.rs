//! What Lua 5.1 has in its base library and Luau does not, or has otherwise.

use std::ffi::CString;

use mlua_sys as ffi;

use super::super::globals::load_source;
use super::super::stack::{Kind, Raise, Stack, number_text};

/// `tostring`: numbers as Lua 5.1 prints them.
pub fn tostring(stack: &mut Stack) -> Result<usize, Raise> {
    match stack.kind(1) {
        Kind::None => return Err(Stack::bad_argument(1, "tostring", "value expected")),
        Kind::Number => {
            let text = number_text(stack.number(1).unwrap_or_default());
            stack.push_bytes(&text);
        }
        // SAFETY: pushes one text.
        _ => drop(unsafe { ffi::luaL_tolstring_(stack.state, 1, std::ptr::null_mut()) }),
    }
    Ok(1)
}

/// `loadstring(source [, name])`
pub fn loadstring(stack: &mut Stack) -> Result<usize, Raise> {
    let source = stack.check_text(1, "loadstring")?;
    let name = stack.text(2).unwrap_or_else(|| source.clone());
    finish_load(stack, &source, name)
}

/// `load(function [, name])`: the function returns the source piece by piece.
pub fn load(stack: &mut Stack) -> Result<usize, Raise> {
    if stack.kind(1) != Kind::Function {
        return Err(Stack::bad_argument(1, "load", "function expected"));
    }
    let mut source = Vec::new();
    loop {
        stack.copy(1);
        if !stack.call(0, Some(1)) {
            return Err(Raise::Top);
        }
        let piece = stack.text(-1);
        stack.pop(1);
        match piece {
            Some(piece) if !piece.is_empty() => source.extend_from_slice(&piece),
            _ => break,
        }
    }
    let name = stack.text(2).unwrap_or_else(|| b"=(load)".to_vec());
    finish_load(stack, &source, name)
}

fn finish_load(stack: &mut Stack, source: &[u8], name: Vec<u8>) -> Result<usize, Raise> {
    let name: Vec<u8> = name.into_iter().take_while(|byte| *byte != 0).collect();
    let name = CString::new(name).unwrap_or_default();
    if source.first() == Some(&0x1B) {
        stack.push_nil();
        stack.push_bytes(b"attempt to load chunk with wrong mode");
        return Ok(2);
    }
    if load_source(stack, source, &name) {
        return Ok(1);
    }
    stack.push_nil();
    stack.insert(-2);
    Ok(2)
}

/// `collectgarbage`: collecting and counting; how the collector works is not for scripts to choose.
pub fn collect_garbage(stack: &mut Stack) -> Result<usize, Raise> {
    let option = stack.text(1).unwrap_or_else(|| b"collect".to_vec());
    let result = match option.as_slice() {
        b"collect" => {
            // SAFETY: collecting is allowed at any time.
            unsafe { ffi::lua_gc(stack.state, ffi::LUA_GCCOLLECT, 0) };
            0.0
        }
        b"count" => super::super::machine::shared(stack).memory.used() as f64 / 1024.0,
        b"step" | b"stop" | b"restart" | b"setpause" | b"setstepmul" => 0.0,
        other => {
            let text = format!("invalid option '{}'", String::from_utf8_lossy(other));
            return Err(Stack::bad_argument(1, "collectgarbage", &text));
        }
    };
    stack.push_number(result);
    Ok(1)
}

/// `table.setn`, which Lua 5.1 has only to refuse it.
pub fn setn(_: &mut Stack) -> Result<usize, Raise> {
    Err("'setn' is obsolete".into())
}
