//! The address of a client behind a trusted proxy: the `real_ip` keys.

use std::net::{IpAddr, SocketAddr};

use mfserv_core::route::RealIp;
use mfserv_h1::Fields;

/// A network, `ADDRESS` or `ADDRESS/BITS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads a network; `None` if the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (base, bits) = text.split_once('/').map_or((text, None), |(b, n)| (b, Some(n)));
        let base: IpAddr = base.trim().parse().ok()?;
        let width = if base.is_ipv4() { 32 } else { 128 };
        let bits: u32 = bits.map_or(Some(width), |bits| bits.trim().parse().ok())?;
        match base.to_canonical() {
            _ if bits > width => None,
            // `::ffff:10.0.0.0/104`: clients of IPv4 are known by their own addresses.
            base @ IpAddr::V4(_) if width == 128 => {
                Some(Self { base, bits: bits.checked_sub(96)? })
            }
            base => Some(Self { base, bits }),
        }
    }

    /// True if the address is in the network.
    pub fn contains(self, address: IpAddr) -> bool {
        let (left, right, width) = match (address, self.base) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let (left, right): (u128, u128) = (left, right);
        let ignored = width - self.bits;
        ignored == 128 || (left >> ignored) == (right >> ignored)
    }
}

/// The trusted proxies, and the header in which they name their client.
#[derive(Debug)]
pub struct Trust {
    header: String,
    recursive: bool,
    proxies: Vec<Network>,
}

impl Trust {
    /// Reads the settings; the error says why they cannot be used.
    pub fn new(settings: &RealIp) -> Result<Self, String> {
        let network = |text: &String| {
            Network::parse(text).ok_or_else(|| format!("real_ip: {text:?} is no network"))
        };
        Ok(Self {
            header: settings.header.clone(),
            recursive: settings.recursive,
            proxies: settings.proxies.iter().map(network).collect::<Result<_, _>>()?,
        })
    }

    /// True for a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(address))
    }

    /// The client's address in the header of a trusted proxy: the last address, or, if
    /// `recursive`, the last address that is no trusted proxy itself. What stands left of
    /// something that is no address is ignored.
    pub fn client_address(&self, fields: &Fields) -> Option<IpAddr> {
        let values: Vec<&[u8]> = fields
            .iter()
            .filter(|(_, written, _)| written.eq_ignore_ascii_case(self.header.as_bytes()))
            .flat_map(|(_, _, value)| value.split(|&b| b == b','))
            .map(<[u8]>::trim_ascii)
            .collect();
        let mut found = None;
        for value in values.into_iter().rev() {
            let Some(address) = parse_address(value) else { break };
            found = Some(address);
            if !self.recursive || !self.trusts(address) {
                break;
            }
        }
        found
    }
}

/// `ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT`.
pub fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.parse::<IpAddr>().or_else(|_| {
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        inner.unwrap_or_default().parse::<IpAddr>()
    });
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    bare.or_else(|_| with_port()).ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mfserv_h1::RequestHead;

    #[test]
    fn networks_are_compared_by_their_bits() {
        for (address, network, inside) in [
            ("10.1.2.3", "10.0.0.0/8", true),
            ("11.1.2.3", "10.0.0.0/8", false),
            ("10.1.2.3", "::ffff:10.0.0.0/104", true),
            ("11.1.2.3", "::ffff:10.0.0.0/104", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "0.0.0.0/0", true),
            ("10.1.2.3", "::/0", false),
            ("fe80::1", "fe80::/10", true),
            ("fe80::1", "::/0", true),
        ] {
            let network = Network::parse(network).unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{address} {network:?}");
        }
        for bad in ["10.0.0.0/33", "nonsense", "", "10.0.0.0/", "::/129", "10.0.0.0/-1"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }

    fn client(recursive: bool, fields: &str) -> Option<String> {
        let trust = Trust::new(&RealIp {
            header: "X-Forwarded-For".into(),
            recursive,
            proxies: vec!["10.0.0.0/8".into(), "fd00::/8".into()],
        });
        let mut head = RequestHead::default();
        head.read(format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes(), 100).unwrap();
        trust.unwrap().client_address(&head.fields).map(|address| address.to_string())
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxy_is_the_clients() {
        for (recursive, fields, expected) in [
            (true, "", None),
            (true, "X-Forwarded-For: 1.2.3.4\r\n", Some("1.2.3.4")),
            (true, "x-forwarded-for: 9.9.9.9, 1.2.3.4, 10.0.0.1\r\n", Some("1.2.3.4")),
            (false, "X-Forwarded-For: 9.9.9.9, 1.2.3.4, 10.0.0.1\r\n", Some("10.0.0.1")),
            (true, "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 10.0.0.1\r\n", Some("1.2.3.4")),
            (true, "X-Forwarded-For: 10.0.0.2, 10.0.0.1\r\n", Some("10.0.0.2")),
            (true, "X-Forwarded-For: 1.2.3.4, unknown, 10.0.0.1\r\n", Some("10.0.0.1")),
            (true, "X-Forwarded-For: 1.2.3.4, bad\r\n", None),
            (true, "X-Forwarded-For: 1.2.3.4:567\r\n", Some("1.2.3.4")),
            (true, "X-Forwarded-For: [2001:db8::1]:80, fd00::1\r\n", Some("2001:db8::1")),
            (true, "X-Forwarded-For: ::ffff:1.2.3.4\r\n", Some("1.2.3.4")),
            (true, "X-Real-IP: 1.2.3.4\r\n", None),
        ] {
            assert_eq!(client(recursive, fields).as_deref(), expected, "{recursive} {fields:?}");
        }
    }
}
