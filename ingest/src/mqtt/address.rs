//! Where a broker is: scheme, host and port of `url`, and a path for websockets.

use crate::credentials::mistake;
use crate::decode::OptionError;
use url::{Host, Url};

/// What is offered, for a person who wrote something else.
const SCHEMES: &str = "mqtt://host:port, mqtts://host:port, ws://host:port/path or wss://host:port/path";

/// A broker's address, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// With TLS.
    pub(super) secure: bool,
    /// The whole URL, where MQTT goes through a websocket.
    pub(super) websocket: Option<String>,
    /// IPv6 addresses stand in brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// Reads `mqtt`, `tcp`, `mqtts`, `ws` and `wss`; ports by default are those of IANA: 1883, 8883, 80, 443.
    pub(super) fn parse(text: &str) -> Result<Self, OptionError> {
        let url = Url::parse(text).map_err(|e| mistake("url", format!("`{text}`: {e}"), Some("mqtt://127.0.0.1:1883")))?;
        let (secure, websocket, port) = match url.scheme() {
            "mqtt" | "tcp" => (false, false, 1883),
            "mqtts" => (true, false, 8883),
            "ws" => (false, true, 80),
            "wss" => (true, true, 443),
            other => return Err(mistake("url", format!("scheme `{other}` is not known"), Some(SCHEMES))),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(mistake("url", "has a user name or password in it", Some("`username` and `password = { env = \"NAME\" }`")));
        }
        if url.fragment().is_some() || (!websocket && (!matches!(url.path(), "" | "/") || url.query().is_some())) {
            return Err(mistake("url", format!("`{text}` has something behind host and port"), None));
        }
        let host = url.host_str().filter(|h| !h.is_empty()).ok_or_else(|| mistake("url", format!("`{text}` has no host"), None))?;
        // The client hands the host to TLS as it stands, and brackets are no part of a name there.
        if secure && (host.starts_with('[') || matches!(url.host(), Some(Host::Ipv6(_)))) {
            return Err(mistake(
                "url",
                format!("`{text}` asks for TLS to an IPv6 address"),
                Some("a host name, as in the broker's certificate"),
            ));
        }
        let port = url.port().unwrap_or(port);
        Ok(Self { secure, websocket: websocket.then(|| url.to_string()), host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> (bool, bool, String, u16) {
        let address = Address::parse(url).unwrap();
        (address.secure, address.websocket.is_some(), address.host, address.port)
    }

    #[test]
    fn each_scheme_has_its_port() {
        assert_eq!(place("mqtt://broker:99"), (false, false, "broker".into(), 99));
        assert_eq!(place("mqtt://broker"), (false, false, "broker".into(), 1883));
        assert_eq!(place("tcp://[::1]:99/"), (false, false, "[::1]".into(), 99));
        assert_eq!(place("mqtts://broker"), (true, false, "broker".into(), 8883));
        assert_eq!(place("ws://broker/mqtt"), (false, true, "broker".into(), 80));
        assert_eq!(place("wss://broker/mqtt?x=1"), (true, true, "broker".into(), 443));
    }

    #[test]
    fn what_else_stands_in_a_url_is_a_mistake() {
        for broken in ["http://h", "mqtt://u:p@h", "mqtt://h/x", "mqtts://h/x", "mqtts://[::1]", "ws://h/#x", "h:1883", ""] {
            assert_eq!(Address::parse(broken).unwrap_err().path, "url", "{broken}");
        }
    }
}
