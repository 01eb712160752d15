//! Libraries of functions: loading their code, which registers the functions, into a thread's machine.

use std::collections::HashMap;
use std::sync::Arc;

use super::Lua;
use super::prepare::cannot_load;
use crate::clock;
use crate::instance::Instance;
use crate::libraries::{BAD_NAME, FunctionInfo, Library, Restore, SOURCE_NAME, folded, is_name};
use crate::lua::{Function, Host, Interrupt};
use crate::protocol::{Args, Protocol, ReplyError};
use crate::scripts::Flags;
use crate::types::rdb;

/// How long a library's code may run, in nanoseconds.
const LOAD_TIME: u64 = 500_000_000;

/// A function that a machine has loaded.
#[derive(Clone)]
pub(super) struct LoadedFunction {
    pub function: Function,
    pub info: Arc<FunctionInfo>,
    library: Arc<Library>,
}

/// The functions of a machine.
#[derive(Default)]
pub(super) struct LoadedFunctions {
    by_name: HashMap<Vec<u8>, LoadedFunction>,
    generation: u64,
}

impl Lua {
    /// `FUNCTION LOAD`: makes a library known; returns its name.
    pub(super) fn load_library(
        &mut self,
        instance: &Instance,
        args: Args<'_>,
    ) -> Result<Vec<u8>, ReplyError> {
        let options = args.take(args.len() - 1).skip(2);
        for option in options.iter() {
            if !option.eq_ignore_ascii_case(b"replace") {
                return Err(ReplyError::showing("ERR Unknown option given: ", option, ""));
            }
        }
        let mut library = Library::compile(args.at(args.len() - 1))?;
        let replaces = !options.is_empty();
        if !replaces && instance.libraries.get(&library.name).is_some() {
            return Err(ReplyError::showing("ERR Library '", &library.name, "' already exists"));
        }
        self.register(&mut library)?;
        let name = library.name.clone();
        instance.libraries.add(Arc::new(library), replaces)?;
        Ok(name)
    }

    /// `FUNCTION RESTORE`.
    pub(super) fn restore_libraries(
        &mut self,
        instance: &Instance,
        args: Args<'_>,
    ) -> Result<(), ReplyError> {
        let how = match args.len() {
            3 => Restore::Append,
            _ if args.is(3, "append") => Restore::Append,
            _ if args.is(3, "replace") => Restore::Replace,
            _ if args.is(3, "flush") => Restore::Flush,
            _ => {
                return Err(ReplyError::fixed(
                    "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
                ));
            }
        };
        let sources = rdb::decode_libraries(args.at(2)).map_err(|invalid| match invalid {
            rdb::Invalid::Footer => ReplyError::from(invalid),
            rdb::Invalid::Data => ReplyError::fixed("ERR failed loading the given functions payload"),
        })?;
        let mut libraries: Vec<Arc<Library>> = Vec::new();
        for source in sources {
            let mut library = Library::compile(&source)?;
            if libraries.iter().any(|other| other.name == library.name) {
                return Err(ReplyError::showing("ERR Library '", &library.name, "' already exists"));
            }
            self.register(&mut library)?;
            libraries.push(Arc::new(library));
        }
        instance.libraries.restore(libraries, how)
    }

    /// Runs a library's code to see what it registers.
    fn register(&mut self, library: &mut Library) -> Result<(), ReplyError> {
        let (registered, result) = self.run_library(library);
        for (function, _) in &registered {
            self.machine.unload(*function);
        }
        result?;
        if registered.is_empty() {
            return Err(ReplyError::fixed("ERR No functions registered"));
        }
        library.functions = registered.into_iter().map(|(_, info)| info).collect();
        Ok(())
    }

    fn run_library(&mut self, library: &Library) -> (Vec<(Function, FunctionInfo)>, Result<(), ReplyError>) {
        let main = match self.machine.load(&library.bytecode, SOURCE_NAME, true) {
            Ok(main) => main,
            Err(failure) => return (Vec::new(), Err(cannot_load(&failure))),
        };
        let mut host = LoadHost { begin: clock::ticks(), registered: Vec::new() };
        let result = self.machine.load_library(&mut host, main).map_err(|failure| {
            ReplyError::new([b"ERR Error registering functions: ", failure.text.as_slice()].concat())
        });
        self.machine.unload(main);
        (host.registered, result)
    }

    /// The function of a name, loaded into this machine.
    pub(super) fn function(
        &mut self,
        instance: &Instance,
        name: &[u8],
    ) -> Result<LoadedFunction, ReplyError> {
        let generation = instance.libraries.generation();
        if self.functions.generation != generation {
            self.functions.generation = generation;
            self.forget_functions(instance);
        }
        let name = folded(name);
        if let Some(loaded) = self.functions.by_name.get(&name) {
            return Ok(loaded.clone());
        }
        let not_found = || ReplyError::fixed("ERR Function not found");
        let library = instance.libraries.of_function(&name).ok_or_else(not_found)?;
        let (registered, result) = self.run_library(&library);
        for (function, info) in registered {
            let loaded = LoadedFunction { function, info: Arc::new(info), library: library.clone() };
            self.functions.by_name.insert(folded(&loaded.info.name), loaded);
        }
        result?;
        self.functions.by_name.get(&name).cloned().ok_or_else(not_found)
    }

    /// Forgets the functions of libraries that are no more.
    fn forget_functions(&mut self, instance: &Instance) {
        let machine = &mut self.machine;
        self.functions.by_name.retain(|_, loaded| {
            let current = instance.libraries.get(&loaded.library.name);
            let stays = current.is_some_and(|current| Arc::ptr_eq(&current, &loaded.library));
            if !stays {
                machine.unload(loaded.function);
            }
            stays
        });
    }
}

/// What a library's code runs in: it may register functions, and nothing else.
struct LoadHost {
    begin: u64,
    registered: Vec<(Function, FunctionInfo)>,
}

impl Host for LoadHost {
    fn call(&mut self, _: Args<'_>, _: &mut Vec<u8>) -> Result<(), ReplyError> {
        Err(ReplyError::fixed("ERR redis.call can only be called inside a script invocation"))
    }

    fn protocol(&self) -> Protocol {
        Protocol::Resp2
    }

    fn set_protocol(&mut self, _: Protocol) {}

    fn may_run(&mut self, _: Args<'_>) -> Option<bool> {
        None
    }

    fn log(&mut self, level: i32, message: &[u8]) {
        super::host::log(level, message);
    }

    fn interrupt(&mut self) -> Interrupt {
        if clock::nanos_between(self.begin, clock::ticks()) < LOAD_TIME {
            Interrupt::Continue
        } else {
            Interrupt::Kill("FUNCTION LOAD timeout")
        }
    }

    fn register(
        &mut self,
        name: Vec<u8>,
        description: Option<Vec<u8>>,
        flags: Vec<Vec<u8>>,
        function: Function,
    ) -> Result<(), Vec<u8>> {
        let mut bits = 0;
        for flag in flags {
            bits |= Flags::named(&flag.to_ascii_lowercase()).ok_or("unknown flag given")?;
        }
        if !is_name(&name) {
            return Err(BAD_NAME.into());
        }
        if self.registered.iter().any(|(_, info)| folded(&info.name) == folded(&name)) {
            return Err(b"Function already exists in the library".to_vec());
        }
        self.registered.push((function, FunctionInfo { name, description, flags: Flags(bits) }));
        Ok(())
    }
}
