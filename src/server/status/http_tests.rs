use proptest::prelude::*;

use super::*;

fn get(target: &str, host: &str) -> Option<Result<Resource, HttpError>> {
    parse(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n").as_bytes())
}

#[test]
fn each_resource_has_its_path() {
    let paths = [
        ("/", Ok(Resource::Page)),
        ("/metrics", Ok(Resource::Metrics)),
        ("/metrics?x=1", Ok(Resource::Metrics)),
        ("/stats.json", Ok(Resource::Stats)),
        ("/healthz", Ok(Resource::Health)),
        ("/metrics/", Err(HttpError::Path)),
        ("/../etc/passwd", Err(HttpError::Path)),
        ("*", Err(HttpError::Path)),
    ];
    for (path, expected) in paths {
        assert_eq!(get(path, "localhost"), Some(expected), "{path}");
    }
}

#[test]
fn the_host_is_an_address_or_localhost() {
    for host in ["127.0.0.1", "127.0.0.1:9200", "localhost", "LocalHost:1", "[::1]", "[::1]:9200", "192.168.1.7:80"] {
        assert_eq!(get("/", host), Some(Ok(Resource::Page)), "{host}");
    }
    let refused = [
        "",
        "evil.example",
        "localhost.evil.example",
        "evil.example:9200",
        "127.0.0.1.evil.example",
        "127.0.0.1:x",
        "127.0.0.1:99999",
        "localhost:+80",
        "::1",
        "[::1",
        "[evil]",
        "[::1]x",
        "localhost:9200:1",
        "user@localhost",
        "localhost, evil.example",
    ];
    for host in refused {
        assert_eq!(get("/", host), Some(Err(HttpError::Host)), "{host}");
    }
    assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n"), Some(Err(HttpError::Malformed)));
    assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n"), Some(Err(HttpError::Host)));
    let twice = b"GET / HTTP/1.1\r\nHost: localhost\r\nhost: evil.example\r\n\r\n";
    assert_eq!(parse(twice), Some(Err(HttpError::Malformed)));
}

#[test]
fn only_get_is_allowed() {
    for method in ["POST", "PUT", "OPTIONS", "get"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(parse(request.as_bytes()), Some(Err(HttpError::Method)), "{method}");
    }
    assert_eq!(parse(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n"), Some(Err(HttpError::Head)));
    for error in [HttpError::Method, HttpError::Head] {
        let text = String::from_utf8(error_response(error)).unwrap();
        assert!(text.starts_with("HTTP/1.1 405 ") && text.contains("\r\nAllow: GET\r\n"), "{text}");
        assert_eq!(text.ends_with("\r\n\r\n"), error == HttpError::Head, "a response to HEAD has no body: {text}");
    }
}

#[test]
fn a_request_is_incomplete_until_its_last_byte() {
    let request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    for end in 0..request.len() {
        assert_eq!(parse(&request[..end]), None);
    }
    let followed = [request.as_slice(), b"GET junk"].concat();
    assert_eq!(parse(&followed), Some(Ok(Resource::Health)), "what follows is not looked at");
}

#[test]
fn a_request_that_is_too_large_or_none_is_refused() {
    let endless = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(REQUEST_MAX_BYTES));
    assert_eq!(parse(&endless.as_bytes()[..REQUEST_MAX_BYTES - 1]), None);
    assert_eq!(parse(&endless.as_bytes()[..REQUEST_MAX_BYTES]), Some(Err(HttpError::TooLarge)));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
    assert_eq!(parse(many.as_bytes()), Some(Err(HttpError::TooLarge)));
    for junk in [b"\x16\x03\x01\x02\x00\x01".as_slice(), b"GET / HTTP/2.0\r\n\r\n", b"SSH-2.0-OpenSSH\r\n\r\n", b"\0\0"]
    {
        assert_eq!(parse(junk), Some(Err(HttpError::Malformed)), "{junk:?}");
    }
}

/// The status code, the headers and the body of a response.
fn parts(response: Vec<u8>) -> (u16, Vec<(String, String)>, String) {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    let body = parsed.parse(&response).unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let headers = parsed.headers.iter().map(|header| (header.name.to_ascii_lowercase(), text(header.value))).collect();
    (parsed.code.unwrap(), headers, text(&response[body..]))
}

#[test]
fn a_response_ends_with_its_connection() {
    let all = [
        (200, "a 1\n", metrics_response("a 1\n")),
        (200, "{}", json_response("{}")),
        (200, "ok\n", health_response(None)),
        (503, "stalled\n", health_response(Some("stalled"))),
        (200, "<p>", page_response("<p>", "default-src 'none'")),
        (421, "open this page by an IP address or as localhost\n", error_response(HttpError::Host)),
    ];
    for (code, body, response) in all {
        let (theirs, headers, text) = parts(response);
        assert_eq!((theirs, text.as_str()), (code, body));
        for (name, value) in [
            ("content-length", body.len().to_string().as_str()),
            ("connection", "close"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert!(headers.contains(&(name.into(), value.into())), "{name} in {headers:?}");
        }
        assert!(headers.iter().any(|(name, _)| name == "content-type"));
    }
}

proptest! {
    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..60) {
        parse(&bytes);
        let mut request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
        request.splice(cut.min(request.len()).., bytes);
        parse(&request);
    }
}
