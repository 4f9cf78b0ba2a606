//! Validated domain types. Each is parsed at the boundary; a value that exists is valid: a `FileName` can be joined to a
//! directory, printed on a terminal and typed into `get`.
//!
//! The rules of names are listed in README.md ("Names"). Must not know how a name is stored, sent or displayed.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::limits::{FILE_COMPONENT_MAX_BYTES, FILE_NAME_MAX_BYTES, USER_NAME_MAX_BYTES};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UserNameError {
    #[error("a user name cannot be empty")]
    Empty,
    #[error("a user name has at most {USER_NAME_MAX_BYTES} characters")]
    TooLong,
    /// A space, or a character other than printable ASCII.
    #[error("a user name is printable ASCII without spaces")]
    BadCharacter,
    /// `#` starts a comment in the credentials file.
    #[error("a user name cannot start with '#'")]
    Comment,
}

/// A password, wiped when dropped.
pub type Password = Zeroizing<Vec<u8>>;

/// 1 to 64 printable ASCII characters, no space, not starting with `#`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Arc<str>);

impl UserName {
    pub fn parse(text: &str) -> Result<Self, UserNameError> {
        if text.is_empty() {
            return Err(UserNameError::Empty);
        }
        if text.len() > USER_NAME_MAX_BYTES {
            return Err(UserNameError::TooLong);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UserNameError::BadCharacter);
        }
        if text.starts_with('#') {
            return Err(UserNameError::Comment);
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileNameError {
    #[error("a file name cannot be empty")]
    Empty,
    #[error("a file name has at most {FILE_NAME_MAX_BYTES} bytes")]
    TooLong,
    #[error("each part of a file name has at most {FILE_COMPONENT_MAX_BYTES} bytes")]
    ComponentTooLong,
    #[error("a file name is relative to the shared folder and cannot start with '/'")]
    Absolute,
    /// `//` or a trailing `/`.
    #[error("a file name cannot have an empty part")]
    EmptyComponent,
    #[error("a file name cannot have '.' or '..' as a part")]
    DotComponent,
    /// `\`, which is a separator on other systems.
    #[error("a file name cannot contain a backslash")]
    Backslash,
    /// A control character: Unicode Cc, a bidi control, U+2028 or U+2029.
    #[error("a file name cannot contain control characters")]
    Control,
}

/// A published name: a relative UTF-8 path of at most 512 bytes whose components are 1 to 255 bytes, without `.`, `..`,
/// `\` or control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(Arc<str>);

impl FileName {
    /// Does not normalize: `./a` is an error here. The client normalizes the paths that a user types.
    pub fn parse(text: &str) -> Result<Self, FileNameError> {
        if text.is_empty() {
            return Err(FileNameError::Empty);
        }
        if text.len() > FILE_NAME_MAX_BYTES {
            return Err(FileNameError::TooLong);
        }
        if text.starts_with('/') {
            return Err(FileNameError::Absolute);
        }
        if text.contains('\\') {
            return Err(FileNameError::Backslash);
        }
        // Most names are ASCII, and a starting server parses a million of them.
        let has_control = match text.is_ascii() {
            true => text.bytes().any(|byte| byte.is_ascii_control()),
            false => text.chars().any(is_control),
        };
        if has_control {
            return Err(FileNameError::Control);
        }
        text.split('/').try_for_each(check_component)?;
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components, separated by `/` in the name, outermost directory first. There is at least one.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

fn check_component(part: &str) -> Result<(), FileNameError> {
    match part {
        "" => Err(FileNameError::EmptyComponent),
        "." | ".." => Err(FileNameError::DotComponent),
        _ if part.len() > FILE_COMPONENT_MAX_BYTES => Err(FileNameError::ComponentTooLong),
        _ => Ok(()),
    }
}

/// Characters not allowed in a published name because they can reorder or break the text on a terminal: Unicode Cc, the
/// bidi controls (UAX #9: ALM, LRM, RLM, embeddings, overrides, isolates), U+2028 and U+2029.
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The BLAKE3 hash of a whole content, as `b3sum` prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// 64 lower-case hex digits.
    pub fn to_hex(self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// Whether the hex form starts with `prefix`, in upper or lower case.
    pub fn starts_with_hex(&self, prefix: &str) -> bool {
        prefix.len() <= 64 && self.to_hex().starts_with(&prefix.to_ascii_lowercase())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({})", hex::encode(&self.0[..6]))
    }
}

/// Identifies a session on the wire: 8 random bytes, and 8 bytes of MAC under a key of the server, so that the server
/// distinguishes an id that it once issued from random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", hex::encode(&self.0[..8]))
    }
}

/// Identifies a request. Strictly increasing within a client instance, from 1.
#[derive(Default, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// Identifies one instance of a client, from login to logout. It is the server's clock at login in microseconds since
/// 1970, raised where needed so that a user's later instance always has the larger id. A resumption keeps it, and so does
/// a login after a refused ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId(pub u64);

/// A digest of all publications of one user: an order-independent sum of their hashes, made by `server::index`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct PublicationsDigest(pub [u8; 16]);

impl fmt::Debug for PublicationsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicationsDigest({})", hex::encode(self.0))
    }
}

/// Which users: a digest of a set, by which another set is noticed, also of as many users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct UsersDigest(pub u32);

impl UsersDigest {
    /// Of one user: the first 4 bytes of BLAKE3 of the name.
    pub fn of(user: &UserName) -> Self {
        let hash = blake3::hash(user.as_str().as_bytes());
        Self(u32::from_be_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes")))
    }
}

/// Of a set: the digests of its users, combined by exclusive or.
impl FromIterator<Self> for UsersDigest {
    fn from_iter<I: IntoIterator<Item = Self>>(users: I) -> Self {
        Self(users.into_iter().fold(0, |digest, user| digest ^ user.0))
    }
}

/// The content of a published file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Content {
    pub hash: ContentHash,
    /// Bytes.
    pub size: u64,
    /// Modification time of the publisher's file, milliseconds since 1970; negative before.
    pub mtime_ms: i64,
}

/// A file name with its content: what a user publishes or downloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedContent {
    pub name: FileName,
    pub content: Content,
}

/// Identifies a content published under a name. Publishers of the same name and hash that report another size do not serve
/// this content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRef {
    pub name: FileName,
    pub hash: ContentHash,
    /// Bytes.
    pub size: u64,
}

impl From<&NamedContent> for ContentRef {
    fn from(NamedContent { name, content }: &NamedContent) -> Self {
        Self { name: name.clone(), hash: content.hash, size: content.size }
    }
}

/// The users who may see and download a publication, besides its owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Audience {
    #[default]
    Everyone,
    /// Only these users, sorted and without duplicates.
    Only(Vec<UserName>),
}

impl Audience {
    /// An audience of these users, in any order; duplicates are removed.
    pub fn only(mut users: Vec<UserName>) -> Self {
        users.sort();
        users.dedup();
        Self::Only(users)
    }

    /// Whether `user` may see and download the publication.
    pub fn includes(&self, user: &UserName) -> bool {
        match self {
            Self::Everyone => true,
            Self::Only(users) => users.binary_search(user).is_ok(),
        }
    }
}

/// What the text types have in common besides their rules.
macro_rules! text_type {
    ($type:ident, $error:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <&str>::deserialize(deserializer)?;
                Self::parse(text).map_err(serde::de::Error::custom)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $type {
            type Err = $error;
            fn from_str(text: &str) -> Result<Self, $error> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

text_type!(UserName, UserNameError);
text_type!(FileName, FileNameError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_follow_their_rules() {
        assert!(UserName::parse("hans").is_ok());
        assert!(UserName::parse(&"x".repeat(64)).is_ok());
        assert_eq!(UserName::parse(""), Err(UserNameError::Empty));
        assert_eq!(UserName::parse(&"x".repeat(65)), Err(UserNameError::TooLong));
        for bad in ["a b", "a\tb", "a\n", "é", "a\x7f", "\x1b[31m"] {
            assert_eq!(UserName::parse(bad), Err(UserNameError::BadCharacter), "{bad:?}");
        }
        assert_eq!(UserName::parse("#hans"), Err(UserNameError::Comment));
    }

    #[test]
    fn file_names_follow_their_rules() {
        for good in ["a", "a b/c", "photos/ä.jpg", ".hidden", "...", "a..b", "~", "-x", "a#b", "*"] {
            assert!(FileName::parse(good).is_ok(), "{good:?}");
        }
        assert!(FileName::parse(&"x".repeat(255)).is_ok());
        assert!(FileName::parse(&format!("{}/{}/y", "x".repeat(255), "x".repeat(254))).is_ok());
        let cases = [
            ("", FileNameError::Empty),
            ("/etc/passwd", FileNameError::Absolute),
            ("a//b", FileNameError::EmptyComponent),
            ("a/", FileNameError::EmptyComponent),
            (".", FileNameError::DotComponent),
            ("a/../b", FileNameError::DotComponent),
            ("./a", FileNameError::DotComponent),
            ("a\\b", FileNameError::Backslash),
            ("a\0", FileNameError::Control),
            ("a\u{85}", FileNameError::Control),
            ("a\u{202e}gpj", FileNameError::Control),
            ("a\u{2028}", FileNameError::Control),
            ("a\u{200f}", FileNameError::Control),
        ];
        for (bad, why) in cases {
            assert_eq!(FileName::parse(bad), Err(why), "{bad:?}");
        }
        assert_eq!(FileName::parse(&"x".repeat(256)), Err(FileNameError::ComponentTooLong));
        let long = vec!["x".repeat(200); 3].join("/");
        assert_eq!(FileName::parse(&long), Err(FileNameError::TooLong));
    }

    #[test]
    fn an_audience_includes_its_members_only() {
        let user = |name: &str| UserName::parse(name).unwrap();
        let audience = Audience::only(vec![user("yoda"), user("vader"), user("yoda")]);
        assert_eq!(audience, Audience::Only(vec![user("vader"), user("yoda")]));
        assert!(audience.includes(&user("vader")) && !audience.includes(&user("hans")));
        assert!(Audience::Everyone.includes(&user("hans")));
    }

    #[test]
    fn bad_names_do_not_decode() {
        let bytes = postcard::to_stdvec("../etc").unwrap();
        assert!(postcard::from_bytes::<FileName>(&bytes).is_err());
        assert!(postcard::from_bytes::<UserName>(&postcard::to_stdvec("a b").unwrap()).is_err());
    }

    #[test]
    fn hash_prefixes_match_in_any_case() {
        let hash = ContentHash([0xab; 32]);
        assert!(hash.starts_with_hex("ABab") && !hash.starts_with_hex("abac"));
        assert!(!hash.starts_with_hex(&"ab".repeat(33)));
    }
}
