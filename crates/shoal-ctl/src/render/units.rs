//! Times and sizes in few characters.

pub(super) use shoal_model::units::date;
pub use shoal_model::units::moment;

use crate::output::Style;

/// `17 B`, `1.2 KiB`, `3.4 GiB`.
pub(super) fn bytes(count: u64) -> String {
    let mut size = count as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while size >= 1024.0
        && let Some(larger) = units.next()
    {
        size /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{count} B") } else { format!("{size:.1} {unit}") }
}

/// The two largest units: `12s`, `3m 4s`, `2h 3m`, `5d 1h`.
pub fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// `5h 2m left`, `1 day left`, `30 days left`, `expired`.
pub(super) fn days_left(unix: i64, style: Style) -> String {
    match days_until(unix, style) {
        days if days < 0 => "expired".to_owned(),
        0 => format!("{} left", span(unix.unsigned_abs().saturating_sub(style.now))),
        1 => "1 day left".to_owned(),
        days => format!("{days} days left"),
    }
}

/// Whole days; below 0 = it is over.
pub(super) fn days_until(unix: i64, style: Style) -> i64 {
    let now = i64::try_from(style.now).unwrap_or(i64::MAX);
    unix.saturating_sub(now).div_euclid(86_400)
}

/// `hits` as a share of `all`, `-` when there is nothing to share.
pub(super) fn percent(hits: u64, all: u64) -> String {
    if all == 0 { "-".to_owned() } else { format!("{}%", (u128::from(hits) * 100 / u128::from(all))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (seconds, text) in [(0, "0s"), (59, "59s"), (184, "3m 4s"), (7_380, "2h 3m"), (435_600, "5d 1h")]
        {
            assert_eq!(span(seconds), text);
        }
        assert_eq!((percent(1, 0), percent(1, 3), percent(3, 3)), ("-".into(), "33%".into(), "100%".into()));
    }
}
