//! Addresses of the services under load, which must be loopback or private ones.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use http::{HeaderValue, Uri, uri::Authority};
use vote_tools::{FrontendClient, Link};

use crate::error::LoadError;

/// URL of the form `http://HOST:PORT`, without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url(Authority);

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not of the form http://HOST:PORT");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let bare = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
        let authority =
            uri.authority().filter(|a| bare && a.port_u16().is_some() && !a.as_str().contains('@'));
        authority.cloned().map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

/// Host that may be put under load. Connections use the addresses that were checked; the name is not resolved again.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) url: Url,
    header: HeaderValue,
    addresses: Vec<SocketAddr>,
}

impl Host {
    /// Resolves the host of a URL and checks that all its addresses are loopback or private.
    ///
    /// # Errors
    /// Fails if the name can't be resolved, or if one of its addresses is public.
    pub(crate) async fn resolve(url: &Url) -> Result<Self, LoadError> {
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host(url.0.as_str())
            .await
            .map_err(|source| LoadError::Resolve { url: url.clone(), source })?
            .collect();
        if let Some(foreign) = addresses.iter().map(SocketAddr::ip).find(|ip| !is_own(*ip)) {
            return Err(LoadError::Usage(format!(
                "{url} resolves to {foreign}, which is neither a loopback nor a private address; this tool puts load \
                 on your own test hosts only: use a host in 127.0.0.0/8, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, \
                 ::1 or fc00::/7"
            )));
        }
        let header = HeaderValue::from_str(url.0.as_str()).map_err(|_| {
            LoadError::Usage(format!("{url}: the host has characters that a Host header can't contain"))
        })?;
        Ok(Self { url: url.clone(), header, addresses })
    }

    /// Returns a link to the host. `request_timeout` limits connecting, and each answer.
    pub(crate) fn link(&self, request_timeout: Duration) -> Link {
        Link::new(self.header.clone(), self.addresses.clone(), request_timeout)
    }

    /// Returns a client that posts votes to the host. `request_timeout` limits connecting, and each answer.
    pub(crate) fn client(&self, request_timeout: Duration) -> FrontendClient {
        FrontendClient::new(self.link(request_timeout))
    }
}

fn is_own(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(v4) => is_own(v4.into()),
            None => ip == Ipv6Addr::LOCALHOST || ip.is_unique_local(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_a_port_and_nothing_else() {
        for good in ["http://localhost:8080", "http://127.0.0.1:1/", "http://[fd00::1]:80"] {
            assert!(good.parse::<Url>().is_ok(), "{good}");
        }
        for bad in [
            "localhost:8080",
            "https://localhost:8080",
            "http://localhost",
            "http://localhost:8080/polls",
            "http://localhost:8080?x",
            "http://me@localhost:8080",
            "http://localhost:99999",
            "",
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_loopback_and_private_addresses_are_allowed() {
        for own in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "::1",
            "fd12::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_own(own.parse().unwrap()), "{own}");
        }
        for foreign in [
            "8.8.8.8",
            "172.32.0.1",
            "0.0.0.0",
            "100.64.0.1",
            "169.254.169.254",
            "::",
            "2001:db8::1",
            "fe80::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(!is_own(foreign.parse().unwrap()), "{foreign}");
        }
    }

    #[tokio::test]
    async fn the_error_for_a_public_host_names_its_address() {
        let e = Host::resolve(&"http://8.8.8.8:80".parse().unwrap()).await.unwrap_err();
        assert!(
            matches!(&e, LoadError::Usage(text) if text.contains("8.8.8.8") && text.contains("own")),
            "{e}"
        );
    }
}
