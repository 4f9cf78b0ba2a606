use super::*;
use crate::client::shell::tokenizer::TokenizeError;

fn ok(line: &str) -> Command {
    parse(line.as_bytes()).unwrap().unwrap()
}

fn err(line: &str) -> UsageError {
    parse(line.as_bytes()).unwrap_err()
}

fn file(text: &str) -> PathArg {
    PathArg { text: text.into(), pattern: None }
}

fn auth(user: &str, password: &[u8]) -> Command {
    Command::Auth { user: user.into(), password: Some(Zeroizing::new(password.to_vec())) }
}

#[test]
fn the_rest_of_an_auth_line_is_the_password_as_it_is() {
    assert_eq!(ok("auth hans falcon*solo"), auth("hans", b"falcon*solo"));
    assert_eq!(ok("auth vader sithlord**\n"), auth("vader", b"sithlord**"));
    assert_eq!(ok("auth hans  two  spaces # \\ 'quote \r\n"), auth("hans", b" two  spaces # \\ 'quote "));
    assert_eq!(ok("  auth hans x\r"), auth("hans", b"x\r"));
    assert_eq!(parse(b"auth hans \xff\xfe").unwrap().unwrap(), auth("hans", b"\xff\xfe"));
    assert_eq!(ok("auth hans"), Command::Auth { user: "hans".into(), password: None });
    assert_eq!(ok("auth hans "), Command::Auth { user: "hans".into(), password: None });
    assert_eq!(err("auth"), UsageError::Arity(Verb::Auth));
}

#[test]
fn blank_lines_and_comments_are_skipped() {
    for line in ["", "\n", "  \t", "# get a", "  # 'open", "\r\n"] {
        assert_eq!(parse(line.as_bytes()), Ok(None), "{line:?}");
    }
    assert_eq!(
        ok("get a#b #c"),
        Command::Get { files: vec![file("a#b"), file("#c")], share: false, wait: None, dry_run: false, output: None }
    );
}

#[test]
fn some_commands_have_another_name() {
    for line in ["xit", "exit", "quit", " 'quit' "] {
        assert_eq!(ok(line), Command::Xit, "{line}");
    }
    assert_eq!((ok("?"), ok("? lap")), (ok("help"), ok("help lap")));
    assert_eq!(ok("help exit"), Command::Help { verb: Some(Verb::Xit) });
    assert_eq!(err("exit now"), UsageError::Arity(Verb::Xit));
}

#[test]
fn an_unquoted_ampersand_at_the_end_makes_a_job() {
    let job = |line: &str| match ok(line) {
        Command::Job { command, ignores_failure: false } => *command,
        other => panic!("{line}: {other:?}"),
    };
    for (line, without) in [
        ("get a &", "get a"),
        ("get a&b & \t\r\n", "get a&b"),
        ("get a\\\\ &", "get a\\\\"),
        ("get -- -a &", "get -- -a"),
        ("pub --to vader a &", "pub --to vader a"),
        ("wait peer vader 5 &", "wait peer vader 5"),
        ("get & &", "get '&'"),
    ] {
        assert_eq!(job(line), ok(without), "{line}");
    }
    for line in
        ["get a '&'", "get a \"&\"", "get a \\&", "get a ''&", "get a&", "get a\\ &", "get & a", "sch &", "unp &"]
    {
        assert!(!matches!(ok(line), Command::Job { .. }), "{line}");
    }
    assert_eq!(ok("auth hans &"), auth("hans", b"&"));
    assert_eq!(err("get &"), UsageError::Arity(Verb::Get));
    assert_eq!(err("lap &"), UsageError::Arity(Verb::Lap));
    assert_eq!(err("get -o - a &"), UsageError::OutputOfJob);
    assert_eq!(job_text(b" get  'a b' & \r\n"), "get  'a b'");
}

#[test]
fn wait_takes_the_number_of_a_job_or_all() {
    let of_job = |number, timeout| Command::Wait { target: WaitTarget::Job { number, timeout } };
    let second = Some(Duration::from_secs(1));
    assert_eq!((ok("wait 7"), ok("wait 7 1")), (of_job(7, None), of_job(7, second)));
    assert_eq!(ok("wait all 1"), Command::Wait { target: WaitTarget::All { timeout: second } });
    assert_eq!(ok("cancel 7"), Command::Cancel { number: 7 });
    for line in ["wait 7 1 1", "wait all 1 1", "wait job 7", "wait '\n' 7", "wait -7", "wait"] {
        assert!(
            matches!(err(line), UsageError::Arity(Verb::Wait) | UsageError::Option { .. } | UsageError::LineBreak),
            "{line}"
        );
    }
    assert_eq!(err("cancel a"), UsageError::Number("a".into()));
    assert_eq!(err("wait 99999999999999999999"), UsageError::Number("99999999999999999999".into()));
    assert_eq!(err("wait 7 x"), UsageError::Seconds("x".into()));
}

#[test]
fn pub_takes_an_audience() {
    let user = |name: &str| UserName::parse(name).unwrap();
    let expected = Command::Pub {
        to: vec![user("vader"), user("yoda")],
        files: vec![file("a"), file("b c")],
        stdin: false,
        watch: false,
    };
    assert_eq!(ok("pub --to vader --to=yoda a 'b c'"), expected);
    assert_eq!(ok("pub a --to vader 'b c' --to yoda"), expected);
    assert_eq!(ok("pub -- --to"), Command::Pub { to: vec![], files: vec![file("--to")], stdin: false, watch: false });
    assert_eq!(err("pub --to vader"), UsageError::Arity(Verb::Pub));
    assert_eq!(err("pub a --to"), UsageError::Arity(Verb::Pub));
    assert!(matches!(err("pub --to 'a b' x"), UsageError::User(..)));
}

#[test]
fn sch_takes_flags_in_any_form() {
    let search = |substring: &str, ignore_case, long| Command::Sch { substring: substring.into(), ignore_case, long };
    assert_eq!(ok("sch pdf"), search("pdf", false, false));
    assert_eq!(ok("sch -i -l pdf"), search("pdf", true, true));
    assert_eq!(ok("sch pdf -li"), search("pdf", true, true));
    assert_eq!(ok("sch --ignore-case pdf"), search("pdf", true, false));
    assert_eq!(ok("sch -- -l"), search("-l", false, false));
    assert_eq!(ok("sch -"), search("-", false, false));
    assert_eq!(ok("sch ''"), search("", false, false));
    assert_eq!(ok("sch 'a b'"), search("a b", false, false));
    assert_eq!(err("sch a b"), UsageError::Arity(Verb::Sch));
    assert_eq!(err("sch"), UsageError::Arity(Verb::Sch));
    assert_eq!(err("sch -x a"), UsageError::Option { verb: Verb::Sch, option: "-x".into() });
}

#[test]
fn get_takes_names_and_patterns() {
    let pattern = PathArg { text: "*.pdf".into(), pattern: Some("*.pdf".into()) };
    let files = vec![file("a b"), pattern, file("photos/")];
    assert_eq!(
        ok("get --share 'a b' *.pdf ./photos/"),
        Command::Get { files, share: true, wait: None, dry_run: false, output: None }
    );
    assert_eq!(
        ok("get '*.pdf'"),
        Command::Get { files: vec![file("*.pdf")], share: false, wait: None, dry_run: false, output: None }
    );
    assert_eq!(err("get"), UsageError::Arity(Verb::Get));
    assert_eq!(err("get --share=x a"), UsageError::Option { verb: Verb::Get, option: "--share=x".into() });
}

#[test]
fn file_arguments_stay_in_the_folder() {
    for verb in ["get", "pub", "unp"] {
        for path in ["/etc/passwd", "..", "../a", "a/../b", "a/..", "''"] {
            assert!(matches!(err(&format!("{verb} x {path}")), UsageError::Path(..)), "{verb} {path}");
        }
    }
}

#[test]
fn commands_without_operands_reject_operands() {
    assert_eq!(ok("lap"), Command::Lap { long: false });
    assert_eq!(ok("lpf\r\n"), Command::Lpf { long: false });
    assert_eq!(ok("xit"), Command::Xit);
    for line in ["lap x", "lpf x", "xit now", "help get put", "unp"] {
        assert!(matches!(err(line), UsageError::Arity(_)), "{line}");
    }
    assert_eq!(ok("help"), Command::Help { verb: None });
    assert_eq!(ok("help get"), Command::Help { verb: Some(Verb::Get) });
}

#[test]
fn invalid_lines_are_explained() {
    assert_eq!(err("put a"), UsageError::Unknown("put".into()));
    assert_eq!(err("GET a"), UsageError::Unknown("GET".into()));
    assert_eq!(err("help put"), UsageError::Unknown("put".into()));
    assert_eq!(err("get 'a"), UsageError::Tokenize(TokenizeError::Unterminated('\'')));
    assert_eq!(parse(b"get \xff"), Err(UsageError::NotUtf8));
    assert_eq!(parse(b"\xff"), Err(UsageError::NotUtf8));
}

#[test]
fn patterns_survive_option_parsing() {
    let pattern = |text: &str, pattern: &str| PathArg { text: text.into(), pattern: Some(pattern.into()) };
    let files = vec![pattern("*", "*"), file("*"), pattern("-*", "-*"), file("-x")];
    assert_eq!(
        ok("get --share * '*' -- -* -x"),
        Command::Get { files, share: true, wait: None, dry_run: false, output: None }
    );
    assert_eq!(err("get -* a"), UsageError::Option { verb: Verb::Get, option: "-*".into() });
    let to = vec![UserName::parse("v*").unwrap(), UserName::parse("-x").unwrap()];
    assert_eq!(ok("pub --to=v* --to -x a"), Command::Pub { to, files: vec![file("a")], stdin: false, watch: false });
    assert_eq!(ok("sch a*"), Command::Sch { substring: "a*".into(), ignore_case: false, long: false });
}

#[test]
fn every_command_but_auth_is_known_to_the_option_parser() {
    let known = <Command as clap::CommandFactory>::command();
    let mut names: Vec<&str> = known.get_subcommands().map(clap::Command::get_name).collect();
    names.sort_unstable();
    assert_eq!(names, Verb::ALL.map(Verb::name)[1..]);
}

#[test]
fn a_leading_dash_is_stripped() {
    assert_eq!(strip_ignore_prefix(b"-get a"), Some(&b"get a"[..]));
    assert_eq!(strip_ignore_prefix(b"  - get a"), Some(&b" get a"[..]));
    assert_eq!(strip_ignore_prefix(b"get -a"), None);
}

#[test]
fn lines_with_passwords_are_recognized() {
    for line in ["auth hans pw", "  auth hans", "'auth' x y", "AUTH hans pw", "'open"] {
        assert!(may_hold_password(line), "{line}");
    }
    for line in ["", "get auth", "lap"] {
        assert!(!may_hold_password(line), "{line}");
    }
}

#[test]
fn a_typed_password_never_shows() {
    assert!(!format!("{:?}", auth("hans", b"falcon")).contains("102, 97"));
    assert!(!format!("{:?}", parse(b"auth hans falcon")).contains("falcon"));
}

#[test]
fn wait_takes_a_condition_and_a_time() {
    let user = UserName::parse("vader").unwrap();
    let secs = Duration::from_secs;
    let wait = |target| Command::Wait { target };
    assert_eq!(ok("wait peer vader"), wait(WaitTarget::Peer { user: user.clone(), timeout: secs(30) }));
    assert_eq!(ok("wait gone vader 0"), wait(WaitTarget::Gone { user, timeout: secs(0) }));
    let name = FileName::parse("a b.pdf").unwrap();
    let timeout = Duration::from_millis(1_500);
    assert_eq!(ok("wait file './a b.pdf' 1.5"), wait(WaitTarget::File { name, timeout }));
    for line in ["wait", "wait peer", "wait file", "wait nobody vader", "wait peer vader 1 2", "wait peer vader file"] {
        let error = err(line);
        assert!(matches!(error, UsageError::Arity(Verb::Wait) | UsageError::Seconds(_)), "{line}: {error:?}");
    }
    for seconds in ["-1", "x", "nan", "inf", "1e9", "''"] {
        assert!(parse(format!("wait peer vader {seconds}").as_bytes()).is_err(), "{seconds}");
    }
    assert!(matches!(err("wait file *.pdf"), UsageError::FileName(_)));
    assert!(matches!(err("wait file photos/"), UsageError::FileName(_)));
    assert!(matches!(err("wait file ../a"), UsageError::Path(..)));
    assert!(matches!(err("wait peer 'a b'"), UsageError::User(..)));
    assert!(matches!(ok("get --wait 2 a"), Command::Get { wait: Some(wait), .. } if wait == secs(2)));
    assert_eq!(err("get --wait x a"), UsageError::Seconds("x".into()));
}

#[test]
fn a_command_is_one_line() {
    assert_eq!(ok("lap\r\n"), Command::Lap { long: false });
    for line in ["lap\nxit", "pub 'a\nb'", "auth hans secret\nxit", "\nlap"] {
        assert_eq!(err(line), UsageError::LineBreak, "{line:?}");
    }
}

#[test]
fn a_command_with_a_password_is_recognised() {
    for line in ["auth hans secret", " -auth hans secret", "'auth' hans \u{e9}", "auth x  "] {
        assert!(holds_password(line.as_bytes()), "{line:?}");
    }
    assert!(holds_password(b"auth hans \xff"));
    for line in ["auth hans", "auth", "-auth hans", "sch 'auth hans secret'", "#auth hans secret"] {
        assert!(!holds_password(line.as_bytes()), "{line:?}");
    }
}

#[test]
fn an_audience_with_too_many_users_is_refused_with_the_limit() {
    let line = |users: usize| {
        let to: String = (0..users).map(|user| format!("--to user{user} ")).collect();
        parse(format!("pub {to}--to user0 x").as_bytes())
    };
    assert!(line(AUDIENCE_MAX_USERS).is_ok(), "a user who is named twice counts once");
    let error = line(AUDIENCE_MAX_USERS + 1).unwrap_err();
    assert_eq!(error.to_string(), "--to: an audience has at most 4096 users");
}

#[test]
fn cat_and_output_take_one_name() {
    let name = |text: &str| FileName::parse(text).unwrap();
    let get = |output| Command::Get { files: vec![file("a#12ab")], share: false, wait: None, dry_run: false, output };
    assert_eq!(ok("cat ./a#12ab"), Command::Cat { file: file("a#12ab"), wait: None });
    assert_eq!(ok("cat --wait 5 '*.pdf'"), Command::Cat { file: file("*.pdf"), wait: Some(Duration::from_secs(5)) });
    assert_eq!(ok("get -o - a#12ab"), ok("cat a#12ab"), "standard output is that of cat");
    assert_eq!(ok("get a#12ab -o ./b/c"), get(Some(GetOutput::File(name("b/c")))));
    assert_eq!(ok("get --output 'b*' a#12ab"), get(Some(GetOutput::File(name("b*")))));
    assert!(matches!(ok("get -n -o - a"), Command::Get { dry_run: true, output: Some(GetOutput::Stdout), .. }));
    assert!(matches!(ok("get --dry-run a b"), Command::Get { dry_run: true, output: None, .. }));
    for line in ["get -o b a c", "get -o b *.pdf", "get -o b folder/", "get -o - a c", "get -n -o - a c"] {
        assert_eq!(err(line), UsageError::OneFile("-o"), "{line}");
    }
    for line in ["cat *.pdf", "cat folder/", "cat ."] {
        assert_eq!(err(line), UsageError::OneFile("cat"), "{line}");
    }
    assert_eq!(err("get -o b/ a"), UsageError::FileName("b/".into()));
    assert_eq!(err("get -o b* a"), UsageError::FileName("b*".into()));
    assert!(matches!(err("get -o ../b a"), UsageError::Path(..)));
    for (line, verb) in [
        ("cat", Verb::Cat),
        ("cat a b", Verb::Cat),
        ("get -o a", Verb::Get),
        ("get --share -o b a", Verb::Get),
        ("pub --stdin", Verb::Pub),
    ] {
        assert_eq!(err(line), UsageError::Arity(verb), "{line}");
    }
}

#[test]
fn standard_input_is_published_under_one_name() {
    let to = vec![UserName::parse("vader").unwrap()];
    let expected = Command::Pub { to, files: vec![file("a/b")], stdin: true, watch: false };
    assert_eq!(ok("pub --stdin --to vader ./a/b"), expected);
    assert_eq!(ok("pub --to vader a/b --stdin"), expected);
    for line in ["pub --stdin a b", "pub --stdin *.log", "pub --stdin logs/", "pub --stdin ."] {
        assert_eq!(err(line), UsageError::OneFile("--stdin"), "{line}");
    }
}
