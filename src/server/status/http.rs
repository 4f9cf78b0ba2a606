//! Requests and responses of HTTP/1.1, as far as the status page needs it: one GET on each connection, without a body.
//!
//! Defended: a request has at most [`REQUEST_MAX_BYTES`]. `Host` must be an IP address or `localhost`: a web page from
//! elsewhere whose name was pointed at this host (DNS rebinding) cannot read the figures. Nothing of a request is in a
//! response.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Of the request line and the headers.
pub const REQUEST_MAX_BYTES: usize = 4_096;
/// A browser sends about 20.
const HEADERS_MAX: usize = 64;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Page,
    Metrics,
    Stats,
    Health,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpError {
    Malformed,
    /// `Host` is a name of another host.
    Host,
    Path,
    Method,
    /// The method is HEAD, whose responses have no body.
    Head,
    TooLarge,
}

impl HttpError {
    /// The status line, and a line for people.
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Malformed => ("400 Bad Request", "not an HTTP/1.1 request"),
            Self::Host => ("421 Misdirected Request", "open this page by an IP address or as localhost"),
            Self::Path => ("404 Not Found", "there are /, /metrics, /stats.json and /healthz"),
            Self::Method => ("405 Method Not Allowed", "only GET is allowed"),
            Self::Head => ("405 Method Not Allowed", ""),
            Self::TooLarge => ("431 Request Header Fields Too Large", "a request has at most 4096 bytes"),
        }
    }
}

/// Parses what was received so far. `None`: the request is not complete.
pub fn parse(received: &[u8]) -> Option<Result<Resource, HttpError>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(received) {
        Ok(httparse::Status::Complete(bytes)) if bytes <= REQUEST_MAX_BYTES => Some(resource(&request)),
        Ok(httparse::Status::Partial) if received.len() < REQUEST_MAX_BYTES => None,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Some(Err(HttpError::TooLarge)),
        Err(_) => Some(Err(HttpError::Malformed)),
    }
}

fn resource(request: &httparse::Request<'_, '_>) -> Result<Resource, HttpError> {
    let hosts: Vec<_> = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host")).collect();
    match hosts[..] {
        [host] if is_allowed_host(host.value) => {}
        [_] => return Err(HttpError::Host),
        _ => return Err(HttpError::Malformed),
    }
    match request.method {
        Some("GET") => {}
        Some("HEAD") => return Err(HttpError::Head),
        _ => return Err(HttpError::Method),
    }
    let target = request.path.unwrap_or_default();
    match target.split_once('?').map_or(target, |(path, _)| path) {
        "/" => Ok(Resource::Page),
        "/metrics" => Ok(Resource::Metrics),
        "/stats.json" => Ok(Resource::Stats),
        "/healthz" => Ok(Resource::Health),
        _ => Err(HttpError::Path),
    }
}

/// Whether it is an IP address or `localhost`, with or without a port.
fn is_allowed_host(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, port)) if v6.parse::<Ipv6Addr>().is_ok() => ("localhost", port),
        Some(_) => return false,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_number = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_number);
    is_port && (name.parse::<Ipv4Addr>().is_ok() || name.eq_ignore_ascii_case("localhost"))
}

/// A whole response, after which the connection ends. `headers` are lines with their ends.
fn response(status: &str, content_type: &str, headers: &str, body: &str) -> Vec<u8> {
    let bytes = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {bytes}\r\nConnection: close\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n\
         {headers}\r\n{body}"
    )
    .into_bytes()
}

pub fn metrics_response(metrics: &str) -> Vec<u8> {
    response("200 OK", "text/plain; version=0.0.4; charset=utf-8", "", metrics)
}

pub fn json_response(json: &str) -> Vec<u8> {
    response("200 OK", "application/json", "", json)
}

/// `problem`: why the server is not healthy.
pub fn health_response(problem: Option<&str>) -> Vec<u8> {
    match problem {
        None => response("200 OK", "text/plain", "", "ok\n"),
        Some(problem) => response("503 Service Unavailable", "text/plain", "", &format!("{problem}\n")),
    }
}

/// `policy`: the page's Content-Security-Policy.
pub fn page_response(page: &str, policy: &str) -> Vec<u8> {
    let headers = format!("Content-Security-Policy: {policy}\r\nReferrer-Policy: no-referrer\r\n");
    response("200 OK", "text/html; charset=utf-8", &headers, page)
}

pub fn error_response(error: HttpError) -> Vec<u8> {
    let (status, text) = error.texts();
    let headers = if matches!(error, HttpError::Method | HttpError::Head) { "Allow: GET\r\n" } else { "" };
    let body = if text.is_empty() { String::new() } else { format!("{text}\n") };
    response(status, "text/plain", headers, &body)
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
