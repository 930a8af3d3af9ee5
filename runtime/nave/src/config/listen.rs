//! Addresses to listen on, as people write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where a service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Nowhere.
    Off,
    /// On these addresses, with the same port. The first has to work; the others may be missing on this machine.
    On(Vec<SocketAddr>),
}

impl Listen {
    /// Every interface, both families. A socket serves one family, so there are two.
    pub(crate) fn everywhere(port: u16) -> Self {
        Self::On(vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()])
    }

    /// Only this machine.
    pub(crate) fn loopback(port: u16) -> Self {
        Self::On(vec![(Ipv4Addr::LOCALHOST, port).into()])
    }

    /// Reads `off`, `ADDRESS:PORT`, `[::]:PORT` and `:PORT` (every interface, both families), `localhost:PORT`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self::Off);
        }
        if let Some(port) = text.strip_prefix(':') {
            return port.parse().map(Self::everywhere).map_err(|_| explain(text));
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            let port: u16 = port.parse().map_err(|_| explain(text))?;
            return Ok(Self::On(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]));
        }
        let address: SocketAddr = text.parse().map_err(|_| explain(text))?;
        if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            return Ok(Self::everywhere(address.port()));
        }
        Ok(Self::On(vec![address]))
    }

    /// Whether other machines can reach it.
    pub(crate) fn is_public(&self) -> bool {
        matches!(self, Self::On(addresses) if addresses.iter().any(|address| !address.ip().is_loopback()))
    }
}

impl fmt::Display for Listen {
    /// As it would be written.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::On(addresses) = self else { return formatter.write_str("off") };
        match &**addresses {
            [first, _] if *self == Self::everywhere(first.port()) => write!(formatter, "[::]:{}", first.port()),
            [first, _] => write!(formatter, "localhost:{}", first.port()),
            addresses => formatter.write_str(&addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}

fn explain(text: &str) -> String {
    format!(
        "`{text}` is not an address to listen on: write an IP address and a port (`192.168.1.5:8883`), `[::]:8883` for \
         every interface, `localhost:8883` for this machine only, or `off`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let on = |addresses: &[&str]| Listen::On(addresses.iter().map(|text| text.parse().unwrap()).collect());
        assert_eq!(Listen::parse("off"), Ok(Listen::Off));
        assert_eq!(Listen::parse("[::]:8883"), Ok(on(&["0.0.0.0:8883", "[::]:8883"])));
        assert_eq!(Listen::parse(":443"), Ok(Listen::everywhere(443)));
        assert_eq!(Listen::parse("0.0.0.0:443"), Ok(on(&["0.0.0.0:443"])));
        assert_eq!(Listen::parse("localhost:0"), Ok(on(&["127.0.0.1:0", "[::1]:0"])));
        for text in ["off", "[::]:8883", "0.0.0.0:443", "localhost:0", "[::1]:5"] {
            assert_eq!(Listen::parse(text).unwrap().to_string(), text);
        }
        for wrong in ["", "8883", "example.org:8883", ":x", "1.2.3.4", "localhost:99999"] {
            assert!(Listen::parse(wrong).unwrap_err().contains("`off`"), "{wrong}");
        }
        assert!(Listen::everywhere(1).is_public() && !Listen::loopback(1).is_public() && !Listen::Off.is_public());
    }
}
