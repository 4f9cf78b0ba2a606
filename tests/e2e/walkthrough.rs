//! A complete example, line by line: three shells on one host.

use std::fs;

use crate::test_support::{TestEnv, seeded_bytes};

#[test]
fn three_shells_on_one_host() {
    let env = TestEnv::new();
    let assignment = seeded_bytes(1, 300_000);
    let movie = seeded_bytes(2, 2 << 20);
    let rfc = b"RFC 768: User Datagram Protocol\n".repeat(100);
    let hans_side = env.client("hans").file("Assignment.pdf", &assignment);
    let vader_side = env.client("vader").file("movie.mp4", &movie).file("rfc768.txt", &rfc);
    let yoda_side = env.client("yoda");
    let (hans_dir, vader_dir, yoda_dir) =
        (hans_side.dir().to_owned(), vader_side.dir().to_owned(), yoda_side.dir().to_owned());

    let mut hans = hans_side.spawn();
    hans.log_in("hans");
    hans.run_command("lap", &["No active peers"]);
    hans.run_command("pub Assignment.pdf", &["File published successfully"]);
    hans.run_command("lpf", &["1 file published:", "Assignment.pdf"]);
    hans.run_command("unp Assignment.pdf", &["File unpublished successfully"]);
    hans.run_command("unp Assignment.pdf", &["File unpublication failed"]);
    hans.run_command("pub Assignment.pdf", &["File published successfully"]);

    let mut vader = vader_side.spawn();
    vader.run_command("auth hans falcon*solo", &["Authentication failed. Please try again."]);
    vader.wait_err("active");
    vader.log_in("vader");
    vader.run_command("lap", &["1 active peer:", "hans"]);
    vader.run_command("pub movie.mp4", &["File published successfully"]);
    vader.run_command("pub rfc768.txt", &["File published successfully"]);
    vader.run_command("sch pdf", &["1 file found:", "Assignment.pdf"]);
    vader.run_command("get assignment.pdf", &["File not found"]);

    let mut yoda = yoda_side.spawn();
    yoda.log_in("yoda");
    yoda.run_command("sch i", &["2 files found:", "Assignment.pdf", "movie.mp4"]);

    // All commands run before the first result is read, and hans's client serves meanwhile.
    yoda.send("get Assignment.pdf movie.mp4");
    hans.send("get movie.mp4");
    vader.send("get Assignment.pdf");
    hans.send("lap");
    yoda.expect_lines(&["Assignment.pdf downloaded successfully", "movie.mp4 downloaded successfully"]);
    hans.expect_lines(&["movie.mp4 downloaded successfully", "2 active peers:", "vader", "yoda"]);
    vader.expect_lines(&["Assignment.pdf downloaded successfully"]);
    for copy in [&vader_dir, &yoda_dir] {
        assert!(fs::read(copy.join("Assignment.pdf")).expect("a copy") == assignment, "{copy:?}");
    }
    for copy in [&hans_dir, &yoda_dir] {
        assert!(fs::read(copy.join("movie.mp4")).expect("a copy") == movie, "{copy:?}");
    }

    vader.run_command("pub Assignment.pdf", &["File published successfully"]);
    vader.run_command("sch pdf", &["No files found"]);
    yoda.run_command("lap", &["2 active peers:", "hans", "vader"]);

    hans.kill();
    env.wait_log("hans timed out");
    yoda.run_command("lap", &["1 active peer:", "vader"]);
    fs::remove_file(yoda_dir.join("Assignment.pdf")).expect("yoda's own copy");
    yoda.run_command("get Assignment.pdf", &["Assignment.pdf downloaded successfully"]);
    assert!(fs::read(yoda_dir.join("Assignment.pdf")).expect("a copy") == assignment);

    vader.run_command("xit", &["Goodbye!"]);
    assert_eq!(vader.finish().code, 4, "the first failure of vader's script was the refused login");
    yoda.run_command("get rfc768.txt", &["File not found"]);

    let mut vader = env.client("vader").spawn();
    vader.log_in("vader");
    vader.run_command("lpf", &["3 files published:", "Assignment.pdf", "movie.mp4", "rfc768.txt"]);
    yoda.run_command("get rfc768.txt", &["rfc768.txt downloaded successfully"]);
    assert_eq!(fs::read(yoda_dir.join("rfc768.txt")).expect("a copy"), rfc);
}
