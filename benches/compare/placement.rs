//! Which cores the servers and the load generator get.

use std::io;
use std::mem;

use crate::args::Options;

/// A set of core numbers; never empty.
#[derive(Clone)]
pub struct Cores(pub Vec<usize>);

impl Cores {
    /// Pins the calling thread, and what it starts from now on.
    pub fn pin(&self) -> io::Result<()> {
        // SAFETY: an all-zero cpu_set_t is the empty set.
        let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
        for &core in &self.0 {
            // SAFETY: CPU_SET checks the index against the size of the set.
            unsafe { libc::CPU_SET(core, &mut set) };
        }
        // SAFETY: the set is valid for the size given, and thread 0 is the caller.
        match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub fn list(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

/// The servers' cores and the load generator's: disjoint.
pub struct Placement {
    pub server: Cores,
    pub generator: Cores,
}

impl Placement {
    /// Gives servers `wanted` cores and the generator the rest; `None` when none would be left for it.
    pub fn new(options: &Options, wanted: usize) -> Result<Option<Self>, String> {
        let usable = usable_cores().map_err(|e| format!("cannot read the CPU affinity: {e}"))?;
        let server: Vec<usize> = match &options.server_cores {
            Some(cores) => cores.iter().copied().take(wanted).collect(),
            None => usable.iter().rev().copied().take(wanted).collect(),
        };
        if let Some(core) = server.iter().find(|core| !usable.contains(core)) {
            return Err(format!("core {core} is not usable by this process"));
        }
        let generator: Vec<usize> = usable.into_iter().filter(|core| !server.contains(core)).collect();
        if server.len() < wanted || generator.is_empty() {
            return Ok(None);
        }
        Ok(Some(Placement { server: Cores(server), generator: Cores(generator) }))
    }
}

fn usable_cores() -> io::Result<Vec<usize>> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set is valid for the size given, and thread 0 is the caller.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: CPU_ISSET is asked only for indices inside the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect())
}
