//! The process's environment, as something that tests can set.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Where environment variables are looked up.
#[derive(Debug, Clone)]
pub enum Env {
    /// The process's own.
    Process,
    /// These and no others.
    Fixed(BTreeMap<String, OsString>),
}

impl Env {
    /// These and no others.
    #[must_use]
    pub fn fixed(variables: &[(&str, &str)]) -> Self {
        Self::Fixed(variables.iter().map(|(k, v)| ((*k).to_owned(), OsString::from(v))).collect())
    }

    /// A variable's value, also an empty one.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<OsString> {
        match self {
            Self::Process => std::env::var_os(name),
            Self::Fixed(variables) => variables.get(name).cloned(),
        }
    }

    /// A variable's value; an empty one counts as not set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<OsString> {
        self.raw(name).filter(|value| !value.is_empty())
    }

    /// A directory for which only an absolute path counts, as the XDG rules have it.
    #[must_use]
    pub fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }
}
