//! The global variables that scripts find: those of Lua 5.1 as Redis has them, and nothing that reaches out of the machine.
//!
//! All tables that can be reached are read-only, and a variable that is not there is an error.

use std::ffi::{CStr, c_char, c_int};

use mlua_sys as ffi;
use mlua_sys::lua_State;

use super::api::{self, ApiKind};
use super::stack::{Kind, NativeFunction, Raise, Stack};
use super::{library, random};

/// What stays of Luau's own libraries.
const KEPT: &[(&CStr, &[&str])] = &[
    (
        c"string",
        &[
            "byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "rep", "reverse",
            "sub", "upper",
        ],
    ),
    (c"table", &["concat", "foreach", "foreachi", "getn", "insert", "maxn", "remove", "sort"]),
    (
        c"math",
        &[
            "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod",
            "frexp", "huge", "ldexp", "log", "log10", "max", "min", "modf", "pi", "pow", "rad", "sin",
            "sinh", "sqrt", "tan", "tanh",
        ],
    ),
    (c"coroutine", &["create", "resume", "running", "status", "wrap", "yield"]),
];
/// The globals of Luau that Lua 5.1 does not have, or that print.
const REMOVED: &[&CStr] = &[c"print", c"rawlen", c"typeof", c"_LOADED"];

/// Our own functions, in the libraries or, without a library, among the globals.
const ADDED: &[(Option<&CStr>, &CStr, NativeFunction)] = &[
    (None, c"pcall", api::lua_pcall),
    (None, c"tostring", library::base::tostring),
    (None, c"loadstring", library::base::loadstring),
    (None, c"load", library::base::load),
    (None, c"collectgarbage", library::base::collect_garbage),
    (None, c"__redis__err__handler", api::on_error),
    (Some(c"table"), c"setn", library::base::setn),
    (Some(c"math"), c"random", random::random),
    (Some(c"math"), c"randomseed", random::random_seed),
];
/// Older names.
const ALIASES: &[(&CStr, &CStr, &CStr)] = &[(c"string", c"gmatch", c"gfind"), (c"math", c"fmod", c"mod")];

/// Fills a new state.
///
/// # Safety
/// The state is alive, and nothing runs in it.
pub(super) unsafe fn open(state: *mut lua_State) {
    let libraries: &[(&CStr, unsafe extern "C-unwind" fn(*mut lua_State) -> c_int)] = &[
        (c"", ffi::luaopen_base),
        (c"string", ffi::luaopen_string),
        (c"table", ffi::luaopen_table),
        (c"math", ffi::luaopen_math),
        (c"coroutine", ffi::luaopen_coroutine),
    ];
    for (name, library) in libraries {
        // SAFETY: as Luau opens its libraries itself.
        unsafe {
            ffi::lua_pushcfunction(state, *library);
            ffi::lua_pushstring_(state, name.as_ptr());
            ffi::lua_call(state, 1, 0);
        }
    }
    let mut stack = Stack { state };
    for (name, kept) in KEPT {
        stack.global(name);
        keep(&mut stack, kept);
        stack.pop(1);
    }
    for name in REMOVED {
        stack.push_nil();
        stack.set_global(name);
    }
    for (library, name, function) in ADDED {
        match library {
            Some(library) => stack.global(library),
            None => stack.push_globals(),
        }
        stack.push_function(*function);
        stack.set_field(-2, name);
        stack.pop(1);
    }
    for (library, name, alias) in ALIASES {
        stack.global(library);
        stack.field(-1, name);
        stack.set_field(-2, alias);
        stack.pop(1);
    }
    library::open(&mut stack);
    stack.push_bytes(b"Lua 5.1");
    stack.set_global(c"_VERSION");
    api::push(&mut stack, ApiKind::Script);
    stack.set_global(c"redis");
    stack.push_globals();
    stack.copy(-1);
    stack.set_field(-2, c"_G");
    guard(&mut stack);
    stack.pop(1);
    // The metatable of strings, through which their methods are found.
    stack.push_bytes(b"");
    if stack.metatable(-1) {
        stack.set_readonly(-1, true);
        stack.pop(1);
    }
    stack.pop(1);
    // Else the code would keep the values of globals from when it was loaded (KEYS and ARGV too), and go round our
    // `tostring`.
    // SAFETY: only a flag.
    unsafe { ffi::lua_setsafeenv(state, ffi::LUA_GLOBALSINDEX, 0) };
}

/// Makes an error of each look at a field that is not there, and makes the table and those in it read-only.
fn guard(stack: &mut Stack) {
    stack.push_table(0, 1);
    stack.push_function(nonexistent);
    stack.set_field(-2, c"__index");
    stack.set_readonly(-1, true);
    stack.set_metatable(-2);
    protect(stack);
}

/// Makes the table on top read-only, and the tables in it.
fn protect(stack: &mut Stack) {
    if stack.is_readonly(-1) {
        return;
    }
    stack.set_readonly(-1, true);
    stack.push_nil();
    while stack.next(-2) {
        if stack.kind(-1) == Kind::Table {
            protect(stack);
        }
        stack.pop(1);
    }
}

/// Removes all but these fields of the table on top.
fn keep(stack: &mut Stack, kept: &[&str]) {
    let mut others = Vec::new();
    stack.push_nil();
    while stack.next(-2) {
        stack.pop(1);
        if let Some(name) = stack.bytes(-1)
            && !kept.iter().any(|kept| kept.as_bytes() == name)
        {
            others.push(name.to_vec());
        }
    }
    for name in others {
        stack.push_bytes(&name);
        stack.push_nil();
        stack.set_entry(-3);
    }
}

fn nonexistent(stack: &mut Stack) -> Result<usize, Raise> {
    let name = stack.text(2).ok_or("Second argument to luaProtectedTableError must be a string or number")?;
    Err(format!(
        "Script attempted to access nonexistent global variable '{}'",
        String::from_utf8_lossy(&name)
    )
    .into())
}

/// The names under which the registry keeps what libraries see.
const RUNNING: &CStr = c"globals of functions";
const LOADING: &CStr = c"globals of libraries that are loaded";
const SWITCH: &CStr = c"metatable of the globals of libraries";

/// Makes the globals of libraries, in which functions see those of scripts with another `redis`, and the code of a library,
/// while it is loaded, nothing but a way to register functions. Returns a reference.
pub(super) fn make_library_globals(stack: &mut Stack) -> c_int {
    stack.push_table(0, 40);
    stack.push_globals();
    stack.push_nil();
    while stack.next(-2) {
        stack.copy(-2);
        stack.insert(-2);
        // Now the globals, the key, the key and the value lie over the new table.
        stack.set_entry(-5);
    }
    stack.pop(1);
    stack.copy(-1);
    stack.set_field(-2, c"_G");
    api::push(stack, ApiKind::Function);
    stack.set_field(-2, c"redis");
    guard(stack);
    register(stack, RUNNING);

    stack.push_table(0, 1);
    api::push(stack, ApiKind::Loading);
    guard(stack);
    stack.set_field(-2, c"redis");
    guard(stack);
    register(stack, LOADING);

    stack.push_table(0, 0);
    stack.push_table(0, 1);
    stack.copy(-1);
    register(stack, SWITCH);
    stack.set_metatable(-2);
    stack.set_readonly(-1, true);
    set_loading(stack, false);
    // SAFETY: one table is on top.
    let reference = unsafe { ffi::lua_ref(stack.state, -1) };
    stack.pop(1);
    reference
}

/// Takes the top into the registry.
fn register(stack: &mut Stack, name: &CStr) {
    // SAFETY: one value is on top.
    unsafe { ffi::lua_rawsetfield(stack.state, ffi::LUA_REGISTRYINDEX, name.as_ptr()) };
}

/// Pushes what is in the registry.
fn registered(stack: &mut Stack, name: &CStr) {
    // SAFETY: pushes one value.
    unsafe { ffi::lua_rawgetfield(stack.state, ffi::LUA_REGISTRYINDEX, name.as_ptr()) };
}

/// Has the globals of libraries be those of code that is loaded, or of functions that run.
pub(super) fn set_loading(stack: &mut Stack, is_loading: bool) {
    registered(stack, SWITCH);
    stack.set_readonly(-1, false);
    registered(stack, if is_loading { LOADING } else { RUNNING });
    stack.set_field(-2, c"__index");
    stack.set_readonly(-1, true);
    stack.pop(1);
}

/// Pushes what the last call left.
pub(super) fn push_result(stack: &mut Stack) {
    registered(stack, super::machine::RESULT);
}

/// Pushes the function that a source makes, or an error's text; says which.
pub(super) fn load_source(stack: &mut Stack, source: &[u8], name: &CStr) -> bool {
    match super::compile(source, &shown(name)) {
        Err(error) => {
            stack.push_bytes(error.0.as_bytes());
            false
        }
        // SAFETY: the bytecode is of this Luau's compiler.
        Ok(code) => unsafe {
            let data = code.as_ptr().cast::<c_char>();
            ffi::luau_load(stack.state, name.as_ptr(), data, code.len(), 0) == 0
        },
    }
}

/// A source's name as error texts have it.
fn shown(name: &CStr) -> String {
    let text = name.to_string_lossy();
    match text.strip_prefix(['@', '=']) {
        Some(name) => name.to_owned(),
        None => format!("[string \"{}\"]", text.lines().next().unwrap_or_default()),
    }
}
