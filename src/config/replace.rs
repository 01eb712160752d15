//! Files that are replaced as a whole.

use std::fs::{OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Puts other text in the place of a file: a reader sees the old or the new one, never half of it. Who could not read the
/// old one cannot read the new one; where there was none, its owner alone can.
///
/// # Errors
/// If it cannot be written or replaced.
pub fn replace_file(path: &Path, text: &[u8]) -> std::io::Result<()> {
    // Through a link, the file it leads to is replaced, not the link.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{:08x}", fastrand::u32(..)));
    let permissions = std::fs::metadata(path).ok().map(|metadata| metadata.permissions());
    let written =
        write(temporary.as_ref(), text, permissions).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // What cannot be removed was perhaps never there; the first error says more.
        drop(std::fs::remove_file(&temporary));
    }
    written
}

fn write(path: &Path, text: &[u8], permissions: Option<Permissions>) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    permissions.map_or(Ok(()), |permissions| file.set_permissions(permissions))?;
    file.write_all(text)?;
    file.sync_all()
}
