use std::os::unix::ffi::OsStringExt;

use super::*;

#[test]
fn a_folder_whose_name_is_not_utf8_is_named() {
    let identity = SocketIdentity {
        server: "localhost".into(),
        port: 1,
        addresses: vec![SocketAddr::from(([127, 0, 0, 1], 1))],
        dir: std::ffi::OsString::from_vec(b"/tmp/\xff".to_vec()).into(),
    };
    let line = to_line(&identity.greeting(&UserName::parse("hans").unwrap()));
    let greeting: Greeting = read_value(&mut line.as_bytes()).unwrap();
    assert_eq!(greeting.dir, "/tmp/\u{fffd}");
}

#[test]
fn a_side_whose_thread_panics_counts_no_longer() {
    let sides = AtomicUsize::new(SIDES_MAX - 1);
    let last = CountedSide::new(&sides);
    assert!(last.is_free && !CountedSide::new(&sides).is_free);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _last = last;
        panic!("in its thread");
    }));
    assert!(panicked.is_err() && CountedSide::new(&sides).is_free);
}
