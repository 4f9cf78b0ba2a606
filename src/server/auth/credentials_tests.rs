use std::fs::{self, Permissions};

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::common::opaque::{ClientLogin, ServerLogin};

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn parse(text: &[u8]) -> Result<Credentials, CredentialsError> {
    Credentials::parse(text, Path::new("creds.txt"))
}

fn password(credentials: &Credentials, name: &str) -> Vec<u8> {
    match &credentials.users[name] {
        Credential::Plaintext(password) => password.to_vec(),
        Credential::Record(_) => panic!("a record"),
    }
}

fn has_sample_users(credentials: Credentials) -> bool {
    credentials.versioned(&[1; 32]).has_sample_users
}

/// The version of one user's line in a file that has one.
fn version(text: &[u8], name: &str, key: &[u8; 32]) -> CredentialVersion {
    let users = parse(text).unwrap().versioned(key).users;
    users.iter().find(|line| line.user == user(name)).unwrap().version
}

fn error(text: &[u8]) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn the_sample_file_is_parsed() {
    let credentials = parse(include_bytes!("../../../credentials.txt")).unwrap();
    assert_eq!(credentials.users.len(), 3);
    assert_eq!(password(&credentials, "hans"), b"falcon*solo");
    assert!(has_sample_users(credentials));
}

#[test]
fn the_rest_of_a_line_is_the_password_unchanged() {
    let text = b"# comment\n\nhans  two  spaces \r\n \t\nvader \xff\x00\t#\nyoda last";
    let credentials = parse(text).unwrap();
    assert_eq!(credentials.users.len(), 3);
    assert_eq!(password(&credentials, "hans"), b" two  spaces ");
    assert_eq!(password(&credentials, "vader"), b"\xff\x00\t#");
    assert_eq!(password(&credentials, "yoda"), b"last");
    assert!(!has_sample_users(credentials));
    assert!(parse(b"").unwrap().users.is_empty());
}

#[test]
fn a_byte_order_mark_in_front_is_skipped() {
    let credentials = parse(b"\xef\xbb\xbfhans falcon*solo\r\nvader sithlord**\r\n").unwrap();
    assert_eq!(password(&credentials, "hans"), b"falcon*solo");
    assert_eq!(password(&credentials, "vader"), b"sithlord**");
    assert!(parse(b"\xef\xbb\xbf").unwrap().users.is_empty());
    assert!(parse(b"\xef\xbb\xbf# comment\n").unwrap().users.is_empty());
    assert!(error(b"hans x\n\xef\xbb\xbfvader x\n").contains("line 2"), "only in front of the text");
    for text in [&b"\xff\xfeh\0a\0n\0s\0"[..], b"\xfe\xff\0h\0a\0n\0s"] {
        assert_eq!(error(text), "creds.txt, line 1: the file is UTF-16 text; save it as UTF-8");
    }
}

#[test]
fn errors_name_file_and_line_and_never_a_password() {
    assert_eq!(error(b"hans secret1\n# c\nhans secret2\n"), "creds.txt, lines 1 and 3: duplicate user hans");
    let no_password = "creds.txt, line 2: a user name, one space and a password are needed; the password is missing";
    assert_eq!(error(b"a b\nhans\n"), no_password);
    assert_eq!(error(b"a b\nhans \n"), no_password);
    assert_eq!(error(b"a b\nhans \r\n"), no_password);
    assert_eq!(error(b" hans secret\n"), "creds.txt, line 1: a user name cannot be empty");
    assert_eq!(error("häns secret\n".as_bytes()), "creds.txt, line 1: a user name is printable ASCII without spaces");
    assert_eq!(error(b"\xff secret\n"), "creds.txt, line 1: a user name is printable ASCII without spaces");
    let long = ["x".repeat(65).as_bytes(), b" secret"].concat();
    assert_eq!(error(&long), "creds.txt, line 1: a user name has at most 64 characters");
    assert!(parse(&[b"a ", "x".repeat(256).as_bytes()].concat()).is_ok());
    assert_eq!(
        error(&[b"a ", "x".repeat(257).as_bytes()].concat()),
        "creds.txt, line 1: a password has at most 256 bytes",
    );
    for bad in ["a $fileshare$", "a $fileshare$1$00", "a $fileshare$2$secret", "a $fileshare$secret"] {
        let error = error(bad.as_bytes());
        assert!(error.starts_with("creds.txt, line 1: the record is damaged") && !error.contains("secret"), "{error}");
    }
    let missing = Credentials::read(Path::new("/nonexistent/creds.txt")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read the credentials in /nonexistent/creds.txt: "), "{missing}");
}

#[test]
fn debug_output_holds_no_password() {
    let credentials = parse(b"hans secret").unwrap();
    assert!(!format!("{credentials:?}").contains("secret") && format!("{credentials:?}").contains("hans"));
}

#[test]
fn a_record_line_logs_in_its_user_only() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let line = record_line(&user("hans"), b"falcon*solo", &mut rng, KeyStretching::Insecure);
    assert!(line.starts_with("hans $fileshare$1$") && !line.contains("falcon"));
    let credentials = parse(format!("{line}\r\nvader x\n").as_bytes()).unwrap();
    let Credential::Record(record) = &credentials.users["hans"] else { panic!("not a record") };
    let mut login = |name: &str, password: &[u8]| {
        let (client, ke1) = ClientLogin::start(&mut rng, password);
        let (_, ke2) = ServerLogin::start(&mut rng, record, &user(name), &ke1);
        client.finish(&mut rng, &user(name), password, &ke2, KeyStretching::Insecure).is_ok()
    };
    assert!(login("hans", b"falcon*solo") && !login("hans", b"falcon") && !login("vader", b"falcon*solo"));
    assert_eq!(password(&credentials, "vader"), b"x");
    // A record with a digit too few or another character is refused.
    assert!(parse(&line.as_bytes()[..line.len() - 2]).is_err());
    assert!(parse(format!("{line} ").as_bytes()).is_err());
}

#[test]
fn a_version_changes_only_with_the_secret() {
    let key = [1; 32];
    let old = b"# one\nhans secret\nvader other\nyoda gone\n";
    let new = b"vader another\nhans secret\r\nluke new";
    assert_eq!(version(old, "hans", &key), version(new, "hans", &key));
    assert_ne!(version(old, "vader", &key), version(new, "vader", &key));
    assert_ne!(version(old, "hans", &key), version(old, "hans", &[2; 32]));

    // A password that becomes a record, and a second record of the same password, are new versions.
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut record = || record_line(&user("hans"), b"secret", &mut rng, KeyStretching::Insecure);
    let (one, two) = (version(record().as_bytes(), "hans", &key), version(record().as_bytes(), "hans", &key));
    assert_ne!(version(old, "hans", &key), one);
    assert_ne!(one, two);
}

#[test]
fn a_file_that_is_too_large_is_refused_and_not_cut() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "\n".repeat(FILE_MAX_BYTES as usize)).unwrap();
    assert!(Credentials::read(file.path()).unwrap().users.is_empty());
    fs::write(&file, "\n".repeat(FILE_MAX_BYTES as usize + 1)).unwrap();
    assert!(matches!(Credentials::read(file.path()), Err(CredentialsError::TooLarge { .. })));
}

#[test]
fn a_world_readable_file_is_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials.txt");
    fs::write(&path, "hans secret\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let warnings = Credentials::read(&path).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("chmod 600") && !warnings[0].contains("secret"));
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert!(Credentials::read(&path).unwrap().warnings.is_empty());
}

proptest! {
    #[test]
    fn every_malformed_file_gives_one_line_that_names_it(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = parse(&text) {
            let line = error.to_string();
            prop_assert!(line.starts_with("creds.txt, line") && !line.contains('\n'));
        }
    }

    #[test]
    fn a_password_of_any_other_bytes_is_read_unchanged(password in proptest::collection::vec(any::<u8>(), 1..257)) {
        prop_assume!(!password.contains(&b'\n') && !password.ends_with(b"\r") && !password.starts_with(b"$fileshare$"));
        for end in ["", "\n", "\r\n"] {
            let text = [b"hans ", password.as_slice(), end.as_bytes()].concat();
            prop_assert_eq!(&super::tests::password(&parse(&text).unwrap(), "hans"), &password);
        }
    }
}

#[test]
fn a_file_parsed_in_parallel_keeps_the_order_of_its_lines() {
    let line = |number: usize| format!("user{number} password {number}\n");
    let mut text: String = (0..2_000).map(line).collect();
    let users = Credentials::parse(text.as_bytes(), Path::new("long")).unwrap().users;
    assert_eq!(users.len(), 2_000);
    let last = &users[&UserName::parse("user1999").unwrap()];
    assert!(matches!(last, Credential::Plaintext(password) if password.as_slice() == b"password 1999"));
    text.push_str("user7 again\nbad\n");
    let error = Credentials::parse(text.as_bytes(), Path::new("long")).unwrap_err().to_string();
    assert!(error.contains("lines 8 and 2001"), "the first error: {error}");
}
