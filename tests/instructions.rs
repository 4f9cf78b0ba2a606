//! The comparison of `cargo bench --bench instructions` can fail, and the committed figures are readable.

#[path = "../benches/instructions/figures.rs"]
mod figures;

use figures::{Figures, complaints, parse};

fn figures(values: &[(&str, u64)]) -> Figures {
    values.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn a_growth_over_five_per_cent_is_a_complaint() {
    let committed = figures(&[("heartbeat", 10_000), ("login", 2_000)]);
    assert_eq!(complaints(&committed, &committed), Vec::<String>::new());
    assert_eq!(complaints(&committed, &figures(&[("heartbeat", 10_500), ("login", 100)])), Vec::<String>::new());
    assert_eq!(
        complaints(&committed, &figures(&[("heartbeat", 10_501), ("login", 2_000)])),
        ["heartbeat: 10501 instructions, +5.0 % of the committed 10000"]
    );
}

#[test]
fn a_figure_without_its_counterpart_is_a_complaint() {
    assert_eq!(
        complaints(&figures(&[("heartbeat", 1)]), &figures(&[("seal", 1)])),
        ["seal: there is no committed figure", "heartbeat: it was not measured"]
    );
}

#[test]
fn figures_are_names_with_positive_numbers() {
    assert_eq!(parse("# comment\nseal\t12\nlogin\t3\n"), Ok(figures(&[("login", 3), ("seal", 12)])));
    for wrong in ["seal", "seal\t", "seal 12", "seal\t0", "seal\t-1", "seal\t1\t2"] {
        assert_eq!(parse(wrong), Err(format!("no name, tab and number: {wrong}")));
    }
}

#[test]
fn the_committed_figures_are_readable() {
    let committed = parse(include_str!("../benches/instructions.tsv")).expect("names and numbers");
    for name in ["heartbeat", "login", "publish", "seal", "search"] {
        assert!(committed.contains_key(name), "{name}");
    }
}
