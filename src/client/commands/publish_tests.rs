use std::sync::{Arc, Barrier};

use super::*;
use crate::client::commands::test_support::{Bench, content, file, user};

#[test]
fn a_file_is_published_and_served() {
    let bench = Bench::logged_in();
    bench.local("a b", 1);
    let (code, out, err) = bench.run("pub './a b'");
    assert_eq!((code, out.as_str(), err.as_str()), (ExitCode::Success, "File published successfully\n", ""));
    assert_eq!(bench.world.state().own[&file("a b")], (content(1), Audience::Everyone));
    assert_eq!(bench.world.state().served[&file("a b")], (content(1), Audience::Everyone));
    assert_eq!(bench.run("pub 'a b'").1, "File published successfully\n");
}

#[test]
fn every_name_is_tried_and_each_counts_once() {
    let bench = Bench::logged_in();
    for name in ["a.pdf", "b.pdf", "c"] {
        bench.local(name, 1);
    }
    bench.world.state().files.insert(file("locked"), None);
    let (code, out, err) = bench.run("pub missing *.pdf a.pdf locked c");
    assert_eq!(
        (code, out.as_str()),
        (ExitCode::LocalFile, "3 files published successfully\nFile publication failed\n")
    );
    let reasons: Vec<&str> = err.lines().collect();
    assert_eq!(reasons.len(), 2, "{err}");
    assert!(reasons[0].starts_with("client: missing: no such file") && reasons[1].starts_with("client: locked: "));
    assert_eq!(bench.world.calls().iter().filter(|call| call.starts_with("publish")).count(), 3);
}

#[test]
fn nothing_is_published_after_an_interrupt() {
    for interrupting in ["a", "b", "c"] {
        let bench = Bench::logged_in();
        for name in ["a", "b", "c"] {
            bench.local(name, 1);
        }
        let state = Arc::clone(&bench.context.state);
        let _busy = bench.context.state.begin_command();
        bench.world.state().hashing = Some(Arc::new(move |hashed| {
            if *hashed == file(interrupting) {
                state.cancel();
            }
        }));
        let failed = (ExitCode::Interrupted, "File publication failed\n".into(), "client: interrupted\n".into());
        assert_eq!(bench.run("pub a b c"), failed);
        assert!(bench.world.state().own.is_empty() && bench.world.state().served.is_empty());
    }
}

#[test]
fn small_files_are_hashed_side_by_side() {
    let bench = Bench::logged_in();
    for name in ["a", "b"] {
        bench.local(name, 1);
    }
    let both = Barrier::new(2);
    bench.world.state().hashing = Some(Arc::new(move |_| {
        both.wait();
    }));
    assert_eq!(bench.run("pub a b").1, "2 files published successfully\n");
}

#[test]
fn progress_is_that_of_all_files_together() {
    let bench = Bench::logged_in();
    let all = TotalProgress::new(&bench.context.state, bench.context.console.progress(), 30);
    let [first, second] = [(); 2].map(|()| FileProgress { all: &all, counted: AtomicU64::new(0) });
    let done = || all.done.load(Relaxed);
    first.hashed(&file("a"), 4, 10);
    second.hashed(&file("b"), 6, 20);
    assert_eq!(done(), 10);
    first.hashed(&file("a"), 9, 10);
    assert_eq!(done(), 15);
    // What was found in the cache, or read by others than the one who watches.
    first.count(&file("a"), 10);
    second.count(&file("b"), 20);
    assert_eq!(done(), 30);
}

#[test]
fn nothing_to_publish_is_a_failure() {
    let bench = Bench::logged_in();
    for line in ["pub nothing", "pub *.nothing"] {
        let (code, out, err) = bench.run(line);
        assert_eq!((code, out.as_str(), err.lines().count()), (ExitCode::LocalFile, "File publication failed\n", 1));
    }
    assert!(bench.world.calls().is_empty());
}

#[test]
fn an_audience_is_kept_until_it_is_opened_and_that_is_noted() {
    let bench = Bench::logged_in();
    bench.local("a", 1);
    assert_eq!(bench.run("pub --to vader --to yoda a").2, "");
    let some = Audience::only(vec![user("vader"), user("yoda")]);
    assert_eq!(bench.world.state().served[&file("a")].1, some);
    assert_eq!(bench.world.state().own[&file("a")].1, some);
    assert_eq!(bench.run("pub --to yoda a").2, "");
    let (code, _, err) = bench.run("pub a");
    assert_eq!((code, err.as_str()), (ExitCode::Success, "client: a: was published to some, now everyone sees it\n"));
    assert_eq!(bench.run("pub a").2, "");
    assert_eq!(bench.world.state().served[&file("a")].1, Audience::Everyone);
}

#[test]
fn a_server_that_is_gone_fails_all() {
    let bench = Bench::logged_in();
    bench.local("a", 1);
    bench.world.state().down = Some(RequestError::Unreachable);
    let reason = "client: the server does not answer\n";
    assert_eq!(bench.run("pub a"), (ExitCode::Unreachable, "File publication failed\n".into(), reason.into()));
    assert_eq!(bench.run("unp a"), (ExitCode::Unreachable, "File unpublication failed\n".into(), reason.into()));
}

#[test]
fn what_is_withdrawn_is_not_served() {
    let bench = Bench::logged_in();
    bench.local("a", 1);
    bench.run("pub a");
    assert_eq!(bench.run("unp a"), (ExitCode::Success, "File unpublished successfully\n".into(), String::new()));
    assert!(bench.world.state().served.is_empty());
    let failed = (ExitCode::NotFound, "File unpublication failed\n".into(), "client: a: is not published\n".into());
    assert_eq!(bench.run("unp a"), failed);
}

#[test]
fn patterns_and_folders_mean_what_is_published() {
    let bench = Bench::logged_in();
    for name in ["a.pdf", "b.pdf", ".c.pdf", "x/d.pdf", "x/y/e", "r[1].txt"] {
        bench.world.state().own.insert(file(name), (content(1), Audience::Everyone));
    }
    assert_eq!(bench.run("unp *.pdf a.pdf").1, "2 files unpublished successfully\n");
    assert_eq!(bench.run("unp *.pdf").0, ExitCode::NotFound);
    assert_eq!(bench.run("unp x/").1, "2 files unpublished successfully\n");
    assert_eq!(bench.run("unp r[1].txt").1, "File unpublished successfully\n");
    let left: Vec<String> = bench.world.state().own.keys().map(ToString::to_string).collect();
    assert_eq!(left, [".c.pdf"]);
    let (code, out, err) = bench.run("unp nope .c.pdf *.x");
    let both = "File unpublished successfully\nFile unpublication failed\n";
    assert_eq!((code, out.as_str()), (ExitCode::NotFound, both));
    assert_eq!(err, "client: nope: is not published\nclient: *.x: is not published\n");
}
