//! Address prefixes: what counts as one party when resources are shared fairly among addresses.

use std::net::{IpAddr, Ipv4Addr};

/// An IPv4 address or an IPv6 /64: the smallest prefix that one host is assumed to own completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressPrefix {
    /// A /32, also of an IPv4-mapped IPv6 address.
    V4(Ipv4Addr),
    /// A /64; after [`network`](Self::network) a /48, with the last two bytes zero.
    V6([u8; 8]),
}

impl AddressPrefix {
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => Self::V6(*v6.octets().first_chunk().expect("an IPv6 address has 16 bytes")),
        }
    }

    /// The network of this prefix (/32 or /48), for bounds on floods: a site is often assigned an IPv6 /48.
    pub fn network(self) -> Self {
        match self {
            Self::V4(_) => self,
            Self::V6([a, b, c, d, e, f, ..]) => Self::V6([a, b, c, d, e, f, 0, 0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> AddressPrefix {
        AddressPrefix::of(text.parse().unwrap())
    }

    #[test]
    fn an_ipv6_prefix_is_a_64_and_its_network_a_48() {
        assert_eq!(prefix("2001:db8::1"), prefix("2001:db8::ffff:1"));
        assert_ne!(prefix("2001:db8::1"), prefix("2001:db8:0:1::1"));
        assert_eq!(prefix("::ffff:10.0.0.1"), prefix("10.0.0.1"));
        assert_ne!(prefix("127.0.0.1"), prefix("127.0.0.2"));
        assert_eq!(prefix("2001:db8:0:1::1").network(), prefix("2001:db8:0:ffff::1").network());
        assert_ne!(prefix("2001:db8:0:1::1").network(), prefix("2001:db8:1:1::1").network());
        assert_ne!(prefix("127.0.0.1").network(), prefix("127.0.0.2").network());
    }
}
