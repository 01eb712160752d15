//! The system's limit on open descriptors, which bounds the clients.

use crate::config::Id;
use crate::instance::Instance;

/// Descriptors that are neither clients' nor the admin server's: listeners, event queues, files.
const RESERVED: u64 = 64;

/// Raises the limit to what `maxclients` needs, as far as the system lets us; else lowers `maxclients`, so that a client
/// too many is told so rather than left waiting.
pub fn fit(instance: &Instance) {
    let admin = if instance.config.admin.listen.is_some() { crate::admin::DESCRIPTORS as u64 } else { 0 };
    let reserved = RESERVED + admin;
    let wanted = instance.settings.int(Id::Maxclients) as u64 + reserved;
    let Ok(limit) = raise(wanted) else {
        return tracing::warn!("the limit on open descriptors is unknown");
    };
    if limit < wanted {
        let clients = limit.saturating_sub(reserved).max(1).to_string();
        tracing::warn!(limit, %clients, "maxclients is lowered to what the limit on open descriptors allows");
        if let Err(error) = instance.settings.set(&[("maxclients", &clients)]) {
            tracing::warn!(%error, "maxclients cannot be lowered");
        }
    }
}

/// Raises the soft limit to `wanted` or to the hard limit; returns it.
fn raise(wanted: u64) -> std::io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a structure of our own that lives through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    if limit.rlim_cur >= wanted {
        return Ok(limit.rlim_cur);
    }
    let raised = libc::rlimit { rlim_cur: wanted.min(limit.rlim_max), ..limit };
    // SAFETY: as above; the call only reads it.
    let failed = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } != 0;
    Ok(if failed { limit.rlim_cur } else { raised.rlim_cur })
}
