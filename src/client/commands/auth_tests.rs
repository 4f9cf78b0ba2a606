use std::time::Duration;

use super::login_at_startup;

use crate::client::commands::test_support::{TestClient, content, file, user};
use crate::client::control::LoginError;
use crate::client::exit_code::ExitCode;
use crate::common::types::{Audience, Content};

const ACTIVE: LoginError = LoginError::AlreadyActive { liveness: Duration::from_secs(3) };

const WELCOME: &str = "Welcome, hans!\nAvailable commands are: get, lap, lpf, pub, sch, unp, xit\n";
const REFUSED: &str = "Authentication failed. Please try again.\n";

#[test]
fn a_login_greets() {
    let client = TestClient::new();
    let (code, out, err) = client.run("auth hans falcon*solo ");
    assert_eq!((code, out.as_str(), err.as_str()), (ExitCode::Success, WELCOME, ""));
    assert_eq!(client.calls(), ["login hans falcon*solo "]);
}

#[test]
fn a_refused_login_gives_the_reason_on_stderr_only() {
    let client = TestClient::new();
    client.script().logins = vec![LoginError::Refused, ACTIVE, LoginError::Throttled(3)];
    for why in ["the user name or the password is wrong", "this user is already active", "too many attempts"] {
        let (code, out, err) = client.run("auth hans x");
        assert_eq!((code, out.as_str()), (ExitCode::NotAuthenticated, REFUSED));
        assert!(err.starts_with(&format!("client: {why}")) && err.lines().count() == 1, "{err}");
        assert!(!client.context.publications.is_loading(), "nothing is going to be listed");
    }
    assert_eq!(client.run("auth hans x").1, WELCOME);
}

#[test]
fn an_unusable_server_is_not_a_refusal() {
    let client = TestClient::new();
    client.script().logins = vec![LoginError::Unreachable, LoginError::Version { server: 2, client: 1 }];
    for why in [
        "the server does not answer at 127.0.0.1:12000: does it run there, on this port?",
        "the server speaks protocol version 2, this client 1: update the older one",
    ] {
        assert_eq!(client.run("auth hans x"), (ExitCode::Unreachable, String::new(), format!("client: {why}\n")));
    }
}

#[test]
fn a_second_login_keeps_the_session() {
    let client = TestClient::logged_in();
    let (code, out, err) = client.run("auth yoda x");
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (ExitCode::NotAuthenticated, REFUSED, "client: already logged in as hans\n")
    );
    assert!(client.calls().is_empty());
    assert_eq!(client.run("lap").0, ExitCode::Success);
}

#[test]
fn invalid_names_and_passwords_are_refused_locally() {
    let client = TestClient::new();
    for line in ["auth 'a b' x", "auth hans", &format!("auth hans {}", "x".repeat(257))] {
        let (code, out, err) = client.run(line);
        assert_eq!((code, out.as_str(), err.lines().count()), (ExitCode::NotAuthenticated, REFUSED, 1), "{line}");
    }
    assert!(client.calls().is_empty());
    let client = client.with_password("stored");
    assert_eq!(client.run("auth hans").0, ExitCode::Success);
    assert_eq!(client.calls(), ["login hans stored"]);
}

#[test]
fn a_startup_login_waits_for_an_active_user_to_end() {
    let client = TestClient::new().with_password("pw");
    client.script().logins = vec![ACTIVE, LoginError::Throttled(1), ACTIVE];
    assert_eq!(login_at_startup(&client.context, "hans"), ExitCode::Success);
    assert_eq!(client.printed().0, WELCOME);
    assert_eq!(client.calls().len(), 4);
    assert_eq!(*client.login_waits.lock().unwrap(), [500, 1_000, 500].map(Duration::from_millis));
}

#[test]
fn a_startup_login_is_not_repeated_after_a_refusal() {
    let client = TestClient::new().with_password("pw");
    for once in [LoginError::Refused, LoginError::Unreachable] {
        client.script().logins = vec![once.clone()];
        assert_ne!(login_at_startup(&client.context, "hans"), ExitCode::Success, "{once}");
        assert_eq!(client.calls().len(), 1, "{once}");
    }
}

#[test]
fn a_startup_login_gives_up_in_time_whatever_it_is_told() {
    let client = TestClient::new().with_password("pw");
    let active = |liveness_ms| LoginError::AlreadyActive { liveness: Duration::from_millis(liveness_ms) };
    for (error, in_all_ms, longest_ms) in [
        (active(3_000), 4_000, 500),
        (active(10_200), 11_200, 500),
        (LoginError::Throttled(0), 30_000, 1_000),
        (LoginError::Throttled(4), 30_000, 4_000),
        (LoginError::Throttled(u16::MAX), 30_000, 5_000),
    ] {
        client.script().logins = vec![error.clone(); 1_000];
        assert_eq!(login_at_startup(&client.context, "hans"), ExitCode::NotAuthenticated);
        assert_eq!(client.printed(), (REFUSED.into(), format!("client: {error}\n")));
        let waits = std::mem::take(&mut *client.login_waits.lock().unwrap());
        assert_eq!(waits.iter().sum::<Duration>(), Duration::from_millis(in_all_ms), "{error}");
        assert_eq!(waits.iter().max(), Some(&Duration::from_millis(longest_ms)), "{error}");
        assert_eq!(client.calls().len(), 1 + waits.len(), "an attempt after each wait");
    }
}

#[test]
fn earlier_publications_are_served_before_the_greeting() {
    let client = TestClient::new();
    let some = Audience::only(vec![user("yoda")]);
    client.script().own.insert(file("all"), (content(1), Audience::Everyone));
    client.script().own.insert(file("some"), (content(2), some.clone()));
    client.context.uploads.publications().publish(&file("another user's"), content(3), Audience::Everyone);
    client.run("auth hans pw");
    drop(client.context.publications.restricted_among(std::iter::empty()));
    let served = client.served();
    assert_eq!(served.len(), 2);
    assert_eq!(served[&file("some")], (content(2), some));
    assert_eq!(client.context.publications.names_with_prefix("a", 9), [file("all")]);
}

#[test]
fn a_client_at_a_loopback_address_gets_a_warning_after_login() {
    let client = TestClient::new();
    client.script().local_only = true;
    let (_, out, err) = client.run("auth hans pw");
    assert_eq!(out, WELCOME);
    assert!(err.contains("loopback"), "{err}");
}

#[test]
fn a_publication_stays_although_only_a_partial_file_exists() {
    let client = TestClient::new();
    let large = Content { size: 2 << 20, ..content(1) };
    let part = format!(".{}.part", "01".repeat(16));
    {
        let mut state = client.script();
        for name in ["cut/off", "cut/there", "unstarted", "cut/small"] {
            let content = if name == "cut/small" { content(1) } else { large };
            state.own.insert(file(name), (content, Audience::Everyone));
        }
    }
    std::fs::create_dir(client.dir.path().join("cut")).unwrap();
    for name in ["cut/there", &format!("cut/{part}")] {
        std::fs::write(client.dir.path().join(name), vec![1; 2 << 20]).unwrap();
    }
    client.run("auth hans pw");
    assert!(
        !client.context.publications.is_known_absent(&file("cut/off")),
        "an interrupted get of an own file leaves the same behind"
    );
    let left: Vec<String> = client.script().own.keys().map(ToString::to_string).collect();
    assert_eq!(left, ["cut/off", "cut/small", "cut/there", "unstarted"]);
}
