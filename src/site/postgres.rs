//! PostgreSQL URLs: shown without their secrets, and told apart.

use std::fmt;

use zeroize::Zeroizing;

/// Text that is never printed and is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes over the text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for the client that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What a database is to the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatabaseRole {
    /// `Postgres.URL`.
    Main,
    /// `Postgres.InstrumentationURL`, where it names another database.
    Instrumentation,
}

impl DatabaseRole {
    /// The role's name on the command line and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Instrumentation => "instrumentation",
        }
    }
}

/// A PostgreSQL database of the site.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Postgres {
    /// What it is to the site.
    pub role: DatabaseRole,
    /// The URL without user's password and without parameters that are not known to be harmless.
    pub url_redacted: String,
    /// The URL as configured.
    #[serde(skip)]
    pub url: SecretText,
    /// The password that stands beside the URL, as configured: plain, or as the server encrypts it.
    #[serde(skip)]
    pub password: Option<SecretText>,
    /// Where the URL came from.
    pub from: super::settings::Origin,
}

/// Parameters of a URL whose values may be shown.
const HARMLESS: [&str; 9] = [
    "sslmode",
    "options",
    "application_name",
    "connect_timeout",
    "host",
    "port",
    "dbname",
    "user",
    "target_session_attrs",
];

/// The URL for people: no password, no unknown parameter. A text that is no URL is not shown.
#[must_use]
pub fn redact(url: &str) -> String {
    let Some((scheme, user, rest)) = split(url) else {
        return "(not a URL, not shown)".to_string();
    };
    let mut shown = format!("{scheme}://");
    if let Some(user) = user {
        let (name, password) = user.split_once(':').map_or((user, false), |(n, _)| (n, true));
        shown.push_str(name);
        shown.push_str(if password { ":***@" } else { "@" });
    }
    let (place, query) = rest.split_once('?').map_or((rest, None), |(p, q)| (p, Some(q)));
    shown.push_str(place);
    for (at, pair) in query.into_iter().flat_map(|q| q.split('&')).enumerate() {
        shown.push(if at == 0 { '?' } else { '&' });
        let name = pair.split('=').next().unwrap_or("");
        if HARMLESS.contains(&name) {
            shown.push_str(pair);
        } else {
            shown.push_str("***");
        }
    }
    crate::base::path::printable(shown.as_bytes())
}

/// Scheme, user information and the rest. The last `@` of all ends the user information, so that a
/// password with an unescaped `/`, `?` or `@` is never taken for a host and shown.
fn split(url: &str) -> Option<(&str, Option<&str>, &str)> {
    let (scheme, rest) = url.trim().split_once("://")?;
    let known = ["postgres", "postgresql"].iter().any(|s| scheme.eq_ignore_ascii_case(s));
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    known.then_some((scheme, user, rest))
}

/// Whether the URL itself holds a password.
#[must_use]
pub fn has_password(url: &str) -> bool {
    let Some((_, user, rest)) = split(url) else { return false };
    let in_user = user.and_then(|u| u.split_once(':')).is_some_and(|(_, p)| !p.is_empty());
    let query = rest.split_once('?').map_or("", |(_, q)| q);
    in_user || query.split('&').any(|p| p.strip_prefix("password=").is_some_and(|v| !v.is_empty()))
}

/// Whether two URLs surely name one database: same hosts, ports and name. User, password, search
/// path and the like do not count.
#[must_use]
pub fn same_database(one: &str, other: &str) -> bool {
    match (place(one), place(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one.trim() == other.trim(),
    }
}

/// Hosts with ports, and the database's name; `None` where parameters say them, or nothing does.
fn place(url: &str) -> Option<(Vec<String>, String)> {
    let (_, _, rest) = split(url)?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let elsewhere = |p: &str| {
        ["host=", "hostaddr=", "port=", "dbname=", "service="].iter().any(|n| p.starts_with(n))
    };
    if query.split('&').any(elsewhere) {
        return None;
    }
    let (hosts, name) = place.split_once('/')?;
    let with_port = |host: &str| {
        let host = host.to_ascii_lowercase();
        let after_address = host.rsplit(']').next().unwrap_or("");
        let has_port = after_address.contains(':');
        if has_port { host } else { format!("{host}:5432") }
    };
    (!name.is_empty()).then(|| (hosts.split(',').map(with_port).collect(), name.to_string()))
}

#[cfg(test)]
mod tests;
