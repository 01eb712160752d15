//! The stack of a Lua state: the safe face of Luau's C interface.
//!
//! A function that Lua calls gets a [`Stack`] with its arguments and leaves its results on top. Pushing may raise a Lua
//! error (no memory), which unwinds through Rust frames and runs their destructors. Indices are Lua's: from 1 on, or
//! negative from the top.

use std::ffi::{CStr, c_int};
use std::ptr;

use mlua_sys as ffi;
use mlua_sys::lua_State;

/// A function that Lua can call: returns how many results it left on the stack.
pub type NativeFunction = fn(&mut Stack) -> Result<usize, Raise>;

/// An error to raise in Lua.
pub enum Raise {
    /// A text; the place of the caller is put before it.
    Text(Vec<u8>),
    /// Whatever is on top of the stack.
    Top,
}

impl From<&str> for Raise {
    fn from(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }
}

impl From<String> for Raise {
    fn from(text: String) -> Self {
        Self::Text(text.into_bytes())
    }
}

/// The types of Lua that scripts see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Beyond the top of the stack.
    None,
    /// `nil`
    Nil,
    /// `true` or `false`
    Boolean,
    /// A bare pointer (`cjson.null`).
    Pointer,
    /// A number.
    Number,
    /// A string.
    String,
    /// A table.
    Table,
    /// A function.
    Function,
    /// Anything else.
    Other,
}

/// The stack of a running Lua function.
pub struct Stack {
    pub(super) state: *mut lua_State,
}

macro_rules! raw {
    ($(#[$doc:meta])* $name:ident(&mut self $(, $argument:ident: $type:ty)*), $state:ident => $call:expr) => {
        $(#[$doc])*
        pub fn $name(&mut self $(, $argument: $type)*) {
            let $state = self.state;
            // SAFETY: the state is alive as long as this borrow, and the caller keeps to indices that are there.
            unsafe {
                $call;
            }
        }
    };
}

impl Stack {
    raw!(/// Removes so many values from the top.
        pop(&mut self, count: usize), state => { ffi::lua_settop(state, -(count as c_int) - 1) });
    raw!(/// Keeps so many values from the bottom.
        truncate(&mut self, count: usize), state => { ffi::lua_settop(state, count as c_int) });
    raw!(/// Pushes a copy of the value at an index.
        copy(&mut self, index: i32), state => { ffi::lua_pushvalue(state, index) });
    raw!(/// Removes the value at an index.
        remove(&mut self, index: i32), state => { ffi::lua_remove(state, index) });
    raw!(/// Moves the top under the value at an index.
        insert(&mut self, index: i32), state => { ffi::lua_insert(state, index) });
    raw!(/// Pushes `nil`.
        push_nil(&mut self), state => { ffi::lua_pushnil(state) });
    raw!(/// Pushes a boolean.
        push_boolean(&mut self, value: bool), state => { ffi::lua_pushboolean(state, value.into()) });
    raw!(/// Pushes a number.
        push_number(&mut self, value: f64), state => { ffi::lua_pushnumber(state, value) });
    raw!(/// Pushes the null pointer, which stands for JSON's null.
        push_null(&mut self), state => { ffi::lua_pushlightuserdata(state, ptr::null_mut()) });
    raw!(/// Pushes a string.
    push_bytes(&mut self, bytes: &[u8]), state => {
        ffi::lua_pushlstring_(state, bytes.as_ptr().cast(), bytes.len())
    });
    raw!(/// Pushes an empty table with room for so many elements and fields.
    push_table(&mut self, elements: usize, fields: usize), state => {
        // What does not come true grows as it is filled.
        ffi::lua_createtable(state, elements.min(1 << 16) as c_int, fields.min(1 << 16) as c_int)
    });
    raw!(/// Takes the top as the element of a table at an index.
    set_element(&mut self, table: i32, element: usize), state => {
        ffi::lua_rawseti_(state, table, element as c_int)
    });
    raw!(/// Takes a key and the value above it as an entry of a table.
        set_entry(&mut self, table: i32), state => { ffi::lua_rawset(state, table) });
    raw!(/// Takes the top as the field of a table.
    set_field(&mut self, table: i32, name: &CStr), state => {
        ffi::lua_rawsetfield(state, table, name.as_ptr())
    });
    raw!(/// Pushes the element of a table.
    element(&mut self, table: i32, element: usize), state => {
        ffi::lua_rawgeti_(state, table, element as c_int);
    });
    raw!(/// Pushes the field of a table, without metamethods.
    field(&mut self, table: i32, name: &CStr), state => {
        ffi::lua_rawgetfield(state, table, name.as_ptr());
    });
    raw!(/// Pushes a global variable, without metamethods.
    global(&mut self, name: &CStr), state => {
        ffi::lua_rawgetfield(state, ffi::LUA_GLOBALSINDEX, name.as_ptr());
    });
    raw!(/// Takes the top as a global variable.
    set_global(&mut self, name: &CStr), state => {
        ffi::lua_rawsetfield(state, ffi::LUA_GLOBALSINDEX, name.as_ptr());
    });
    raw!(/// Pushes the table of global variables.
        push_globals(&mut self), state => { ffi::lua_pushvalue(state, ffi::LUA_GLOBALSINDEX) });
    raw!(/// Takes the top as the metatable of the table at an index.
    set_metatable(&mut self, table: i32), state => {
        ffi::lua_setmetatable(state, table);
    });
    raw!(/// Allows changes of the table at an index, or forbids them.
    set_readonly(&mut self, table: i32, readonly: bool), state => {
        ffi::lua_setreadonly(state, table, readonly.into())
    });

    /// How many values there are: a function's arguments, when it begins.
    pub fn len(&self) -> usize {
        // SAFETY: the state is alive as long as this borrow.
        unsafe { ffi::lua_gettop(self.state) as usize }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes sure that so many values can be pushed.
    #[must_use]
    pub fn has_room(&mut self, count: usize) -> bool {
        // SAFETY: the state is alive as long as this borrow.
        unsafe { ffi::lua_checkstack(self.state, count as c_int) != 0 }
    }

    /// The type of a value.
    pub fn kind(&self, index: i32) -> Kind {
        // SAFETY: any index may be asked for.
        match unsafe { ffi::lua_type(self.state, index) } {
            ffi::LUA_TNONE => Kind::None,
            ffi::LUA_TNIL => Kind::Nil,
            ffi::LUA_TBOOLEAN => Kind::Boolean,
            ffi::LUA_TLIGHTUSERDATA => Kind::Pointer,
            ffi::LUA_TNUMBER => Kind::Number,
            ffi::LUA_TSTRING => Kind::String,
            ffi::LUA_TTABLE => Kind::Table,
            ffi::LUA_TFUNCTION => Kind::Function,
            _ => Kind::Other,
        }
    }

    /// The type's name, as error texts have it.
    pub fn type_name(&self, index: i32) -> String {
        // SAFETY: any index may be asked for; the names are static.
        let name = unsafe { CStr::from_ptr(ffi::lua_typename(self.state, ffi::lua_type(self.state, index))) };
        name.to_string_lossy().into_owned()
    }

    /// Everything but `nil` and `false` is true.
    pub fn is_true(&self, index: i32) -> bool {
        // SAFETY: any index may be asked for.
        unsafe { ffi::lua_toboolean(self.state, index) != 0 }
    }

    /// A number, or a string that reads as one.
    pub fn number(&self, index: i32) -> Option<f64> {
        let mut is_number = 0;
        // SAFETY: any index may be asked for; the value is not changed.
        let number = unsafe { ffi::lua_tonumberx(self.state, index, &mut is_number) };
        (is_number != 0).then_some(number)
    }

    /// The bytes of a string. They stay where they are as long as nothing is popped or pushed.
    pub fn bytes(&self, index: i32) -> Option<&[u8]> {
        if self.kind(index) != Kind::String {
            return None;
        }
        let mut len = 0;
        // SAFETY: the value is a string, so it is not converted; it is on the stack, so it lives as long as this borrow,
        // during which nothing can be popped.
        unsafe {
            let start = ffi::lua_tolstring(self.state, index, &mut len);
            Some(std::slice::from_raw_parts(start.cast(), len))
        }
    }

    /// The bytes of a string, or of a number as Lua 5.1 prints it.
    pub fn text(&self, index: i32) -> Option<Vec<u8>> {
        match self.kind(index) {
            Kind::String => self.bytes(index).map(<[u8]>::to_vec),
            Kind::Number => self.number(index).map(number_text),
            _ => None,
        }
    }

    /// Pushes the entry of a table that comes after the key on top, which it takes; `false` at the end.
    pub fn next(&mut self, table: i32) -> bool {
        // SAFETY: the key on top is `nil` or a key of the table, which has not been changed since.
        unsafe { ffi::lua_next(self.state, table) != 0 }
    }

    /// Pushes the metatable of a table, if it has one.
    pub fn metatable(&mut self, table: i32) -> bool {
        // SAFETY: the index is there.
        unsafe { ffi::lua_getmetatable(self.state, table) != 0 }
    }

    /// Whether the table at an index may not be changed.
    pub fn is_readonly(&self, table: i32) -> bool {
        // SAFETY: the index is that of a table.
        unsafe { ffi::lua_getreadonly(self.state, table) != 0 }
    }

    /// Calls the function under so many arguments; `false` if it raised the error that is on top then.
    pub fn call(&mut self, arguments: usize, results: Option<usize>) -> bool {
        let results = results.map_or(ffi::LUA_MULTRET, |count| count as c_int);
        // SAFETY: a function and its arguments are on the stack.
        unsafe { ffi::lua_pcall(self.state, arguments as c_int, results, 0) == ffi::LUA_OK }
    }

    /// Pushes a function written in Rust.
    pub fn push_function(&mut self, function: NativeFunction) {
        // SAFETY: `enter` reads the pointer back as what it is here.
        unsafe {
            ffi::lua_pushlightuserdata(self.state, function as *mut std::ffi::c_void);
            ffi::lua_pushcclosure(self.state, enter, 1);
        }
    }

    /// The place in the source at which the function `level` calls further out is, and the source's name.
    pub fn place(&self, level: i32) -> Place {
        // SAFETY: plain data that the call fills.
        let mut debug: ffi::lua_Debug = unsafe { std::mem::zeroed() };
        // SAFETY: the format is one that exists; the texts that come out are read before anything else happens.
        unsafe {
            if ffi::lua_getinfo(self.state, level, c"sl".as_ptr(), &mut debug) == 0 {
                return Place::None;
            }
            if CStr::from_ptr(debug.what) == c"C" {
                return Place::Native;
            }
            Place::Line(CStr::from_ptr(debug.short_src).to_string_lossy().into_owned(), debug.currentline)
        }
    }

    /// The error that an argument is not what it must be, in Lua's words.
    pub fn bad_argument(index: usize, function: &str, what: &str) -> Raise {
        format!("bad argument #{index} to '{function}' ({what})").into()
    }

    /// An argument that must be a number.
    ///
    /// # Errors
    /// It is none.
    pub fn check_number(&self, index: usize, function: &str) -> Result<f64, Raise> {
        self.number(index as i32).ok_or_else(|| self.wrong_type(index, function, "number"))
    }

    /// An argument that must be a string, or a number that stands for one.
    ///
    /// # Errors
    /// It is neither.
    pub fn check_text(&self, index: usize, function: &str) -> Result<Vec<u8>, Raise> {
        self.text(index as i32).ok_or_else(|| self.wrong_type(index, function, "string"))
    }

    fn wrong_type(&self, index: usize, function: &str, expected: &str) -> Raise {
        let found = match self.kind(index as i32) {
            Kind::None => "no value".to_owned(),
            _ => self.type_name(index as i32),
        };
        Self::bad_argument(index, function, &format!("{expected} expected, got {found}"))
    }
}

/// Where a function is.
pub enum Place {
    /// There are not so many calls.
    None,
    /// In code that is not Lua's.
    Native,
    /// In a source, at a line.
    Line(String, i32),
}

/// A number as Lua 5.1 prints it.
pub fn number_text(number: f64) -> Vec<u8> {
    let mut buffer = crate::types::number::FloatBuf::new();
    if number.is_nan() {
        return if number.is_sign_negative() { b"-nan".to_vec() } else { b"nan".to_vec() };
    }
    crate::types::number::format_general(number, 14, &mut buffer).to_vec()
}

/// What Lua calls in place of a function written in Rust.
unsafe extern "C-unwind" fn enter(state: *mut lua_State) -> c_int {
    // SAFETY: the upvalue was made by `push_function`.
    let function = unsafe {
        let pointer = ffi::lua_tolightuserdata(state, ffi::lua_upvalueindex(1));
        std::mem::transmute::<*mut std::ffi::c_void, NativeFunction>(pointer)
    };
    match function(&mut Stack { state }) {
        Ok(results) => return results as c_int,
        Err(Raise::Top) => {}
        // SAFETY: three values fit into what every function has room for.
        Err(Raise::Text(text)) => unsafe {
            ffi::luaL_where(state, 1);
            ffi::lua_pushlstring_(state, text.as_ptr().cast(), text.len());
            ffi::lua_concat(state, 2);
            drop(text);
        },
    }
    // SAFETY: nothing that has a destructor is left in this frame.
    unsafe { ffi::lua_error(state) }
}
