//! The page for people, in one file, which reads `/stats.json`.

use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};

pub const HTML: &str = include_str!("page.html");

/// The Content-Security-Policy: the page's own style and script, requests to this server, and nothing else.
pub fn content_security_policy() -> String {
    let hash = |element| format!("'sha256-{}'", Base64::encode_string(&Sha256::digest(text_of(element))));
    format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("style"),
        hash("script")
    )
}

/// The text in the page's only element of this name.
fn text_of(element: &str) -> &'static str {
    let (_, rest) = HTML.split_once(&format!("<{element}>")).expect("the page has the element");
    rest.split_once(&format!("</{element}>")).expect("it ends").0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::histogram::BOUNDS_US;

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        let addresses = HTML.match_indices("//").filter(|(at, _)| HTML[..*at].ends_with("http:"));
        let addresses: Vec<_> = addresses.map(|(at, _)| HTML[at..].split('"').next().unwrap()).collect();
        assert_eq!(addresses, ["//www.w3.org/2000/svg"], "a name of XML, not an address");
        assert!(!HTML.contains("https:") && !HTML.contains("@import") && !HTML.contains("url("));
        for attribute in [" src=", " style=", " onload=", " onclick=", "innerHTML", "eval("] {
            assert!(!HTML.contains(attribute), "{attribute}");
        }
        assert_eq!(HTML.matches("href=").count(), 1, "the icon, which is empty");
    }

    #[test]
    fn the_policy_permits_the_style_and_the_script_alone() {
        assert_eq!((HTML.matches("<style>").count(), HTML.matches("<script").count()), (1, 1));
        let policy = content_security_policy();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        for (begin, end) in [("<style>", "</style>"), ("<script>", "</script>")] {
            let text = &HTML[HTML.find(begin).unwrap() + begin.len()..HTML.find(end).unwrap()];
            let hash = Base64::encode_string(&Sha256::digest(text));
            assert!(!text.is_empty() && policy.contains(&format!("'sha256-{hash}'")), "{begin}");
        }
        assert_eq!(policy.matches("'sha256-").count(), 2);
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    }

    #[test]
    fn a_time_above_all_bounds_is_shown_as_such() {
        let bound_us = *BOUNDS_US.last().unwrap();
        assert!(HTML.contains(&format!("\"over {} s\"", bound_us / 1_000_000)));
    }

    /// The page reads these by their names.
    #[test]
    fn every_element_that_the_script_uses_is_there() {
        let used = text_of("script").split("element(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        for id in used.chain(["sessions", "publications", "journal_queue", "kernel_drops"]) {
            assert_eq!(HTML.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
        }
    }
}
