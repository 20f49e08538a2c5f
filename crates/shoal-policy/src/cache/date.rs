//! HTTP dates (RFC 9110 §5.6.7): three forms, any case, GMT or nothing.

use http::header::HeaderName;

use super::fields::Fields;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// A moment that tells centuries apart where nobody says what time it is: 1 Jan 2026, Unix seconds.
pub const RECENT: u64 = 1_767_225_600;
/// Seconds of fifty years: a year of two digits that is further ahead is one of the past.
const MOST_AHEAD: u64 = 50 * 31_556_952;
/// 31 Dec 9999 23:59:59: no form can say more.
const LAST_DATE: u64 = 253_402_300_799;

/// The date in the first line of a field, Unix seconds; `None` = absent or not a date. `now` is for [`parse_date`].
pub fn read_date(fields: &impl Fields, name: &HeaderName, now: u64) -> Option<u64> {
    let line = fields.line(name).filter(|line| line.is_ascii())?;
    parse_date(std::str::from_utf8(line).ok()?, now)
}

/// IMF-fixdate, RFC 850 or asctime form, Unix seconds. Dates before 1970 are 1970. By `now`, roughly, it is known what
/// century a year of two digits belongs to.
pub fn parse_date(text: &str, now: u64) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    match *words {
        // sun, 06 nov 1994 08:49:37 gmt
        [weekday, day, month, year, time, "gmt"] if weekday.ends_with(',') && year.len() == 4 => {
            seconds(number(year, 4)?, month_number(month)?, number(day, 2)?, time)
        }
        // sunday, 06-nov-94 08:49:37 gmt
        [weekday, date, time, "gmt"] if weekday.ends_with(',') => {
            let mut parts = date.split('-');
            let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
            if parts.next().is_some() || year.len() != 2 {
                return None;
            }
            let (year, month, day) = (number(year, 2)?, month_number(month)?, number(day, 2)?);
            this_century(year, now, |year| seconds(year, month, day, time))
        }
        // sun nov  6 08:49:37 1994
        [weekday, month, day, time, year] if weekday.len() == 3 && year.len() == 4 => {
            seconds(number(year, 4)?, month_number(month)?, number(day, 2)?, time)
        }
        _ => None,
    }
}

/// RFC 9110 §5.6.7: the date that `of` makes of the year, unless that is more than fifty years ahead; then of the one a
/// century before. A leap day that this century lacks is looked for there, too.
fn this_century(year: u64, now: u64, of: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    let now = now.min(LAST_DATE);
    let this_year = 1970 + now / 31_556_952;
    // The next century may be less than fifty years away.
    let centuries = [1, 0].map(|ahead| this_year / 100 * 100 + ahead * 100 + year);
    let ahead = |date: &u64| *date <= now + MOST_AHEAD;
    let found = centuries.into_iter().find_map(|year| of(year).filter(ahead));
    found.or_else(|| of(this_year / 100 * 100 - 100 + year))
}

fn number(text: &str, most_digits: usize) -> Option<u64> {
    let fits = !text.is_empty() && text.len() <= most_digits && text.bytes().all(|b| b.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

fn month_number(name: &str) -> Option<u64> {
    MONTHS.iter().position(|month| *month == name).map(|index| index as u64 + 1)
}

fn seconds(year: u64, month: u64, day: u64, time: &str) -> Option<u64> {
    let mut parts = time.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || [hour, minute, second].iter().any(|part| part.len() != 2) {
        return None;
    }
    let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
    // 60 is a leap second.
    if hour > 23 || minute > 59 || second > 60 || day == 0 || day > days_in(year, month) {
        return None;
    }
    let days = days_since_epoch(year, month, day);
    let total = days * 86_400 + i64::try_from(hour * 3600 + minute * 60 + second).ok()?;
    Some(u64::try_from(total).unwrap_or(0))
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + is_leap(year) as u64,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Civil date to days, counting from March so that the leap day comes last.
fn days_since_epoch(year: u64, month: u64, day: u64) -> i64 {
    let year = if month <= 2 { year as i64 - 1 } else { year as i64 };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month as i64 + 9) % 12) + 2) / 5 + day as i64 - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_read_and_nothing_else() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("sun, 06 NOV 1994 08:49:37 gmt", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Thu, 29 Feb 2024 23:59:60 GMT", Some(1_709_251_200)),
            ("Sun, 06 Nov 1994 08:49:37 EST", None),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("Sun, 06 Nov 1994 08:49:37 +0100", None),
            ("Sun, 32 Nov 1994 08:49:37 GMT", None),
            ("Wed, 29 Feb 2023 00:00:00 GMT", None),
            ("Sun, 06 Nov 1994 8:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sunday, 06-Nov-94\"08:49:37 GMT", None),
            ("Sunday, 06-Nov-9408:49:37 GMT", None),
            ("0", None),
            ("", None),
        ] {
            assert_eq!(parse_date(text, 784_111_777), expected, "{text:?}");
        }
    }

    #[test]
    fn years_of_two_digits_are_at_most_fifty_years_ahead() {
        // 1994, 2026, 2099.
        let [then, now, later] = [784_111_777, 1_795_000_000, 4_080_000_000];
        for (now, text, year) in [
            (then, "94", 1994),
            (then, "43", 2043),
            (then, "45", 1945),
            (now, "94", 1994),
            (now, "26", 2026),
            (now, "75", 2075),
            (now, "77", 1977),
            (later, "05", 2105),
            (later, "99", 2099),
            (u64::MAX, "99", 9999),
        ] {
            let date = parse_date(&format!("Sunday, 06-Nov-{text} 08:49:37 GMT"), now);
            assert_eq!(date, seconds(year, 11, 6, "08:49:37"), "{text} in {now}");
        }
        assert_eq!(parse_date("Sunday, 31-Nov-94 08:49:37 GMT", now), None);
        assert_eq!(parse_date("Sunday, 29-Feb-00 00:00:00 GMT", 0), Some(951_782_400), "1900 had none");
    }

    #[test]
    fn it_agrees_with_httpdate() {
        for days in (0..40_000u64).step_by(13) {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(days * 86_400 + days % 86_400);
            let expected = days * 86_400 + days % 86_400;
            assert_eq!(parse_date(&httpdate::fmt_http_date(time), 0), Some(expected));
        }
    }
}
