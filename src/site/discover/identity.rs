//! What the site is called, and which PostgreSQL databases are its own.

use std::path::Path;

use super::sources::List;
use super::{DiscoverInput, Locator, Provider, Source, SourceKind};
use crate::base::path::{bytes, lossy, printable};
use crate::site::postgres::{
    DatabaseRole, Postgres, SecretText, has_password, redact, same_database,
};
use crate::site::resources::Role;
use crate::site::settings::{Origin, Settings};

impl List<'_> {
    pub(super) fn postgres(&mut self, settings: &Settings, provider: &Provider) -> Vec<Postgres> {
        if *provider != Provider::Postgres {
            return Vec::new();
        }
        let Some(url) = settings.get("Postgres", "URL") else {
            let message = "Database.Provider is postgres, but there is no Postgres.URL".to_string();
            self.warn("postgres-no-url", message);
            return Vec::new();
        };
        let mut databases = Vec::new();
        self.database(&mut databases, settings, DatabaseRole::Main, url);
        let second = settings.get("Postgres", "InstrumentationURL");
        if let Some(second) = second.filter(|second| !same_database(url, second)) {
            self.database(&mut databases, settings, DatabaseRole::Instrumentation, second);
        }
        databases
    }

    fn database(
        &mut self,
        databases: &mut Vec<Postgres>,
        settings: &Settings,
        role: DatabaseRole,
        url: &str,
    ) {
        let (key, password_key) = match role {
            DatabaseRole::Main => ("URL", "Password"),
            DatabaseRole::Instrumentation => ("InstrumentationURL", "InstrumentationPassword"),
        };
        let password = settings
            .get("Postgres", password_key)
            .or_else(|| settings.get("Postgres", "Password"))
            .map(|text| SecretText::new(text.to_string()));
        if password.is_none() && !has_password(url) {
            let message = format!(
                "Postgres.{key} has no password, and there is none in Postgres.{password_key} or \
                 the environment"
            );
            self.warn("postgres-no-password", message);
        }
        let from = settings.find("Postgres", key).map_or(Origin::Default, |s| s.origin.clone());
        let url_redacted = redact(url);
        self.sources.push(Source {
            roles: vec![Role::Postgres],
            locator: Locator::Database(url_redacted.clone()),
            setting: Some(format!("Postgres.{key}")),
            origin: Some(from.clone()),
            exists: true,
            shared: true,
            kind: SourceKind::Other,
            secret: true,
            critical: role == DatabaseRole::Main,
        });
        let url = SecretText::new(url.to_string());
        databases.push(Postgres { role, url_redacted, url, password, from });
    }

    /// The site's name, and whether it is only this machine's.
    pub(super) fn label(&mut self, input: &DiscoverInput, settings: &Settings) -> (String, bool) {
        let given = input.site_name.clone().filter(|name| !name.trim().is_empty());
        let address = || settings.get("Server", "Address").and_then(host);
        if let Some(name) = given.or_else(address) {
            return (name, false);
        }
        let asked = || {
            let name = nix::unistd::gethostname().ok()?;
            Some(lossy(bytes(Path::new(&name))).into_owned())
        };
        let name = input.hostname.clone().or_else(asked).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| "localhost".to_string());
        let message = format!(
            "the site has no name and no Server.Address, so it is called {:?} after this machine; \
             the nodes of one site must agree on its name",
            printable(name.as_bytes())
        );
        self.warn("label-from-hostname", message);
        (name, true)
    }
}

/// The host of an address, lower-case, without port.
pub(super) fn host(address: &str) -> Option<String> {
    let rest = address.trim().split_once("://").map_or(address.trim(), |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority.rsplit('@').next()?;
    let host = match place.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => place.split(':').next()?,
    };
    let plain = |c: char| !c.is_control() && !c.is_whitespace();
    (!host.is_empty() && host.chars().all(plain)).then(|| host.to_lowercase())
}
