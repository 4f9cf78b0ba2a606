//! The server's addresses, and the local addresses that reach it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

/// Addresses of one server that are tried.
const ADDRESSES_MAX: usize = 8;

/// Every address of the server, in the resolver's order, each once. `localhost` is both loopback addresses, even if the
/// resolver knows only one of them (RFC 6761, section 6.3).
pub fn resolve(server: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    // Users copy IPv6 addresses with the brackets that separate them from a port.
    let bare = server.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(server);
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let is_localhost = bare.eq_ignore_ascii_case("localhost");
    let loopbacks: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let known = loopbacks.into_iter().filter(|_| is_localhost).map(|ip| SocketAddr::new(ip, port));
    for address in (bare, port).to_socket_addrs()?.chain(known) {
        if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(io::Error::other("the host name has no address")) } else { Ok(addresses) }
}

/// The local address of datagrams to `server`. Sends nothing.
fn local_ip_for(server: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    // Some systems refuse port 0; any other will do.
    socket.connect((server.ip(), server.port().max(1)))?;
    Ok(socket.local_addr()?.ip())
}

/// The local addresses of datagrams to `servers`, each once; unreachable servers are skipped.
///
/// # Errors
/// No server can be reached.
pub fn local_ips_for(servers: &[SocketAddr]) -> io::Result<Vec<IpAddr>> {
    let mut ips = Vec::new();
    let mut last_error = None;
    for &server in servers {
        match local_ip_for(server) {
            Ok(ip) if !ips.contains(&ip) => ips.push(ip),
            Ok(_) => (),
            Err(error) => last_error = Some(error),
        }
    }
    match last_error {
        Some(error) if ips.is_empty() => Err(error),
        _ => Ok(ips),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_ip_for_loopback_is_loopback() {
        let ip = local_ip_for((Ipv4Addr::LOCALHOST, 9).into()).expect("a loopback interface");
        assert!(ip.is_loopback());
    }

    #[test]
    fn local_ips_are_listed_once() {
        let servers = ["127.0.0.1:9", "127.0.0.1:10"].map(|text| text.parse().unwrap());
        assert_eq!(local_ips_for(&servers).unwrap(), [IpAddr::from([127, 0, 0, 1])]);
    }

    #[test]
    fn addresses_are_resolved_in_any_notation() {
        assert_eq!(resolve("127.0.0.1", 7).unwrap(), ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(resolve("::1", 7).unwrap(), ["[::1]:7".parse().unwrap()]);
        assert_eq!(resolve("[::1]", 7).unwrap(), ["[::1]:7".parse().unwrap()]);
        let mut local = resolve("localhost", 7).unwrap();
        local.sort();
        assert_eq!(local, ["127.0.0.1:7".parse().unwrap(), "[::1]:7".parse().unwrap()]);
        assert!(resolve("", 7).is_err());
    }
}
