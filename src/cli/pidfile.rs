//! `pidfile`: the file that says which process the server is, for as long as it runs.

use std::path::PathBuf;

/// A file that this process has written. Removed with it.
pub(super) struct Pidfile(PathBuf);

impl Pidfile {
    /// Writes the file, if a name is given. As with Redis, a server whose file cannot be written serves all the same.
    pub(super) fn write(name: String) -> Option<Pidfile> {
        if name.is_empty() {
            return None;
        }
        match std::fs::write(&name, format!("{}\n", std::process::id())) {
            Ok(()) => Some(Pidfile(PathBuf::from(name))),
            Err(error) => {
                tracing::warn!(%error, name, "the pidfile cannot be written");
                None
            }
        }
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, name = %self.0.display(), "the pidfile cannot be removed");
        }
    }
}
