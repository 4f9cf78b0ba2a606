//! Sizes and times for people.

use std::time::Duration;

const BYTE_UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const AGE_UNITS: [(u64, &str); 5] = [(365 * 86_400, "years"), (86_400, "days"), (3_600, "h"), (60, "min"), (1, "s")];

/// `17 B`, `1.3 GiB`, `400 MiB`: two digits at least, but for bytes.
pub fn bytes(count: u64) -> String {
    let (mut value, mut unit) = (count as f64, 0);
    while value.round() >= 1_024.0 {
        value /= 1_024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 9.95);
    format!("{value:.digits$} {}", BYTE_UNITS[unit])
}

/// The largest unit of which there are two, or one of the smallest: `90 s`, `2 min`, `26 h`, `3 days`.
pub fn age(seconds: u64) -> String {
    let (size, unit) = AGE_UNITS.into_iter().find(|(size, _)| seconds >= 2 * size).unwrap_or((1, "s"));
    format!("{} {unit}", seconds / size)
}

/// `0.31 s`, `12.5 s`, `2 min 5 s`
pub fn elapsed(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 60.. => format!("{} min {} s", seconds / 60, seconds % 60),
        10.. => format!("{:.1} s", time.as_secs_f64()),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_digits_or_more() {
        let expected =
            ["0 B", "9 B", "1023 B", "1.0 KiB", "9.9 KiB", "10 KiB", "400 MiB", "1.0 GiB", "1.3 GiB", "16 EiB"];
        let g = 1 << 30;
        let sizes = [0, 9, 1_023, 1_024, 10_140, 10_200, 400 << 20, g - 1, g + g / 3, u64::MAX];
        assert_eq!(sizes.map(bytes), expected);
    }

    #[test]
    fn ages_have_one_unit() {
        let ages = [0, 1, 119, 120, 7_199, 7_200, 172_799, 172_800, 730 * 86_400];
        assert_eq!(ages.map(age), ["0 s", "1 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days", "2 years"]);
    }

    #[test]
    fn short_times_are_exact() {
        let times = [0, 314, 9_994, 12_340, 125_000].map(Duration::from_millis);
        assert_eq!(times.map(elapsed), ["0.00 s", "0.31 s", "9.99 s", "12.3 s", "2 min 5 s"]);
    }
}
