//! Asking a service over HTTP whether it is well.

use std::time::Duration;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
#[error("there is no answer")]
pub struct NoAnswer(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Why a URL cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HealthUrlError {
    /// TLS is not spoken.
    #[error("{0}: only http:// can be asked; name a plain port of this machine")]
    Tls(String),
    /// It is none.
    #[error("{0} is no URL of the form http://HOST[:PORT]/PATH")]
    NotAUrl(String),
}

/// Something that can be asked whether it is well.
pub trait Health: Send + Sync {
    /// What is asked, for people.
    fn url(&self) -> String;

    /// Asks once; the status code of the answer, which is not followed where it leads elsewhere.
    ///
    /// # Errors
    /// [`NoAnswer`] within this time.
    fn ask(&self, within: Duration) -> Result<u16, NoAnswer>;
}

/// A URL that is asked by `GET` without a proxy.
pub struct HealthUrl {
    url: String,
    agent: ureq::Agent,
}

impl HealthUrl {
    /// A URL as it was configured. Nothing is asked yet.
    ///
    /// # Errors
    /// [`HealthUrlError`].
    pub fn new(url: &str) -> Result<Self, HealthUrlError> {
        let parsed: ureq::http::Uri =
            url.parse().map_err(|_| HealthUrlError::NotAUrl(url.to_owned()))?;
        match parsed.scheme_str() {
            Some("http") if parsed.host().is_some_and(|host| !host.is_empty()) => {}
            Some("https") => return Err(HealthUrlError::Tls(url.to_owned())),
            _ => return Err(HealthUrlError::NotAUrl(url.to_owned())),
        }
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("cabk/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { url: url.to_owned(), agent: config.into() })
    }
}

impl Health for HealthUrl {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn ask(&self, within: Duration) -> Result<u16, NoAnswer> {
        let request = self.agent.get(&self.url).config().timeout_global(Some(within)).build();
        let answer = request.call().map_err(|error| NoAnswer(error.into()))?;
        Ok(answer.status().as_u16())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Answers each connection with one of these, in turn; then it is gone.
    fn server(answers: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/ping?x=1", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 1024];
                let read = stream.read(&mut head).unwrap();
                assert!(head[..read].starts_with(b"GET /ping?x=1 HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        url
    }

    #[test]
    fn codes_are_told_and_nothing_is_followed() {
        let url = server(&[
            "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n",
            "nonsense\r\n\r\n",
        ]);
        let health = HealthUrl::new(&url).unwrap();
        assert_eq!(health.url(), url);
        let codes: Vec<u16> = (0..3).map(|_| health.ask(5 * SECOND).unwrap()).collect();
        assert_eq!(codes, [204, 503, 302]);
        health.ask(5 * SECOND).unwrap_err();
        // Nobody listens any more.
        let error = health.ask(5 * SECOND).unwrap_err();
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn silence_is_bounded() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let began = crate::host::clock::SystemClock;
        let from = crate::host::clock::Clock::monotonic(&began);
        HealthUrl::new(&url).unwrap().ask(Duration::from_millis(200)).unwrap_err();
        let took = crate::host::clock::Clock::monotonic(&began).saturating_sub(from);
        assert!(took < 5 * SECOND, "{took:?}");
    }

    #[test]
    fn what_cannot_be_asked_is_told_beforehand() {
        let refused = |url: &str| HealthUrl::new(url).map(|_| ()).unwrap_err();
        assert!(matches!(refused("https://connect/__ping__"), HealthUrlError::Tls(_)));
        for url in ["ftp://h/", "/path", "connect:3939", "http://", "http:///x", "", "a b"] {
            assert!(matches!(refused(url), HealthUrlError::NotAUrl(_)), "{url}");
        }
    }
}
