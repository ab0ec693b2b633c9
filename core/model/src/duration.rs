//! Durations as people write them: `10s`, `5m`, `2h`, `30d`, `500ms`.

use std::time::Duration;

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationProblem {
    /// No digits at the beginning.
    #[error("a duration begins with a whole number")]
    Number,
    /// The unit is missing or unknown.
    #[error("a duration ends in ms, s, m, h or d")]
    Unit,
    /// Longer than 100 years: surely a slip, and sums of it could overflow.
    #[error("a duration is at most 36500d")]
    TooLong,
}

/// The units, longest first, with their milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const MAX_MS: u64 = 36_500 * 86_400_000;

/// Parses one number with a unit: `10s`, `300s`, `5m`, `2h`, `30d`, `500ms`.
///
/// # Errors
/// [`DurationProblem`] says which part is wrong.
pub fn parse_duration(text: &str) -> Result<Duration, DurationProblem> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(DurationProblem::Number);
    }
    let factor = UNITS.iter().find(|(name, _)| *name == unit).ok_or(DurationProblem::Unit)?.1;
    let number: u64 = number.parse().map_err(|_| DurationProblem::TooLong)?;
    let ms = number.checked_mul(factor).filter(|ms| *ms <= MAX_MS).ok_or(DurationProblem::TooLong)?;
    Ok(Duration::from_millis(ms))
}

/// Prints a duration in the largest unit that shows it exactly; parts of a millisecond are dropped.
pub fn format_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    for (name, factor) in UNITS {
        if ms.is_multiple_of(factor) {
            return format!("{}{name}", ms / factor);
        }
    }
    format!("{ms}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        assert_eq!(parse_duration(""), Err(DurationProblem::Number));
        assert_eq!(parse_duration("-1s"), Err(DurationProblem::Number));
        assert_eq!(parse_duration("10"), Err(DurationProblem::Unit));
        assert_eq!(parse_duration("10 s"), Err(DurationProblem::Unit));
        assert_eq!(parse_duration("99999999999999999999d"), Err(DurationProblem::TooLong));
        assert_eq!(parse_duration("36501d"), Err(DurationProblem::TooLong));
    }

    #[test]
    fn the_largest_exact_unit_is_printed() {
        assert_eq!(format_duration(Duration::from_secs(300)), "5m");
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
        assert_eq!(format_duration(Duration::ZERO), "0s");
    }
}
