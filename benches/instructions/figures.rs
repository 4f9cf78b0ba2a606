//! Numbers of instructions, as `benches/instructions.tsv` holds them, and their comparison.

use std::collections::BTreeMap;

/// Instructions by the name of what executes them.
pub type Figures = BTreeMap<String, u64>;

/// The largest growth that is accepted, per cent. Compilers and C libraries of other machines change less than that.
pub const GROWTH_MAX_PERCENT: u64 = 5;

/// Reads a name, a tab and a number from each line; lines that begin with `#` are comments.
pub fn parse(text: &str) -> Result<Figures, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let figure = |line: &str| {
        let (name, count) = line.split_once('\t')?;
        Some((name.to_owned(), count.parse().ok().filter(|count| *count > 0)?))
    };
    lines.map(|line| figure(line).ok_or_else(|| format!("no name, tab and number: {line}"))).collect()
}

/// Says what is wrong with the measured figures, a line each: those that have grown, and those that only one side has.
pub fn complaints(committed: &Figures, measured: &Figures) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, &after) in measured {
        match committed.get(name) {
            None => complaints.push(format!("{name}: there is no committed figure")),
            Some(&before) if after * 100 > before * (100 + GROWTH_MAX_PERCENT) => complaints.push(format!(
                "{name}: {after} instructions, {:+.1} % of the committed {before}",
                growth_percent(before, after)
            )),
            Some(_) => {}
        }
    }
    let missing = committed.keys().filter(|name| !measured.contains_key(*name));
    complaints.extend(missing.map(|name| format!("{name}: it was not measured")));
    complaints
}

pub fn growth_percent(before: u64, after: u64) -> f64 {
    (after as f64 / before as f64 - 1.0) * 100.0
}
