//! The date for `strftime_now`, in UTC.

use std::fmt::Write as _;

use crate::budget::Budget;
use crate::error::Error;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// Formats a moment, given in seconds since 1970, as C's `strftime` does.
pub(crate) fn format(seconds: u64, pattern: &str, budget: &mut Budget) -> Result<String, Error> {
    // The longest field, "September 30", takes less than 16 bytes for each of the two that ask for it.
    budget.bytes(pattern.len().saturating_mul(16))?;
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    let month_name = MONTHS[month as usize - 1];
    let weekday = WEEKDAYS[(days % 7) as usize];
    let mut out = String::new();
    let mut chars = pattern.chars();
    while let Some(ch) = chars.next() {
        if ch != '%' {
            out.push(ch);
            continue;
        }
        // Writing to a string cannot fail.
        let _ = match chars.next() {
            Some('Y') => write!(out, "{year}"),
            Some('y') => write!(out, "{:02}", year % 100),
            Some('m') => write!(out, "{month:02}"),
            Some('d') => write!(out, "{day:02}"),
            Some('e') => write!(out, "{day:2}"),
            Some('b' | 'h') => write!(out, "{}", &month_name[..3]),
            Some('B') => write!(out, "{month_name}"),
            Some('a') => write!(out, "{}", &weekday[..3]),
            Some('A') => write!(out, "{weekday}"),
            Some('H') => write!(out, "{hour:02}"),
            Some('I') => write!(out, "{:02}", (hour + 11) % 12 + 1),
            Some('p') => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
            Some('M') => write!(out, "{minute:02}"),
            Some('S') => write!(out, "{second:02}"),
            Some('F') => write!(out, "{year}-{month:02}-{day:02}"),
            Some('T' | 'X') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            Some('R') => write!(out, "{hour:02}:{minute:02}"),
            Some('D' | 'x') => write!(out, "{month:02}/{day:02}/{:02}", year % 100),
            Some('c') => {
                let time = format_args!("{hour:02}:{minute:02}:{second:02}");
                write!(out, "{} {} {day:2} {time} {year}", &weekday[..3], &month_name[..3])
            }
            Some('j') => write!(out, "{:03}", day_of_year(year, month, day)),
            Some('Z') => write!(out, "UTC"),
            Some('z') => write!(out, "+0000"),
            Some('%') => write!(out, "%"),
            Some('-') => match chars.next() {
                Some('d') => write!(out, "{day}"),
                Some('m') => write!(out, "{month}"),
                Some('H') => write!(out, "{hour}"),
                Some('I') => write!(out, "{}", (hour + 11) % 12 + 1),
                Some('M') => write!(out, "{minute}"),
                Some('S') => write!(out, "{second}"),
                Some('j') => write!(out, "{}", day_of_year(year, month, day)),
                field => return Err(unknown("%-", field)),
            },
            field => return Err(unknown("%", field)),
        };
    }
    Ok(out)
}

fn unknown(prefix: &str, field: Option<char>) -> Error {
    let field = field.map_or(String::new(), String::from);
    Error::new(format!(
        "strftime_now: the field {prefix}{field} is not known; %Y, %B, %d and %H are, among others"
    ))
}

/// From 1.
fn day_of_year(year: u64, month: u64, day: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month as usize - 1];
    before + u64::from(is_leap && month > 2) + day
}

/// Year, month and day of a day since 1970, by the rules of the Gregorian calendar with years that begin in March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let budget = &mut Budget::new(0, 0);
        for (seconds, expected) in [
            (0, "Thu 01 Jan 1970 00:00:00"),
            (951_782_400, "Tue 29 Feb 2000 00:00:00"),
            (1_721_995_199, "Fri 26 Jul 2024 11:59:59"),
            (1_798_761_599, "Thu 31 Dec 2026 23:59:59"),
            (4_107_542_400, "Mon 01 Mar 2100 00:00:00"),
        ] {
            assert_eq!(format(seconds, "%a %d %b %Y %H:%M:%S", budget).unwrap(), expected);
        }
        assert_eq!(format(0, "%-d %B %y %%", budget).unwrap(), "1 January 70 %");
        assert_eq!(
            format(951_868_799, "%c|%R|%D|%j|%-I", budget).unwrap(),
            "Tue Feb 29 23:59:59 2000|23:59|02/29/00|060|11"
        );
        assert!(format(0, "%Q", budget).is_err());
    }
}
