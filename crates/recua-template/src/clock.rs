//! The time on a clock on the wall, and `strftime_now`, which writes it.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::budget::{Budget, Buffer};
use crate::error::Error;

/// A moment as clocks on the wall somewhere show it.
///
/// A [`SystemTime`] alone turns into the time of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    // Since 1970 in UTC.
    seconds: i64,
    microseconds: u32,
    // What the local time is ahead of UTC, in seconds.
    offset: i64,
}

impl LocalTime {
    /// A moment where clocks are so many seconds ahead of UTC; 3600 in Paris in winter.
    pub fn new(moment: SystemTime, seconds_ahead_of_utc: i32) -> LocalTime {
        let (seconds, microseconds) = match moment.duration_since(UNIX_EPOCH) {
            Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_micros()),
            // Before 1970, to the second.
            Err(error) => (i64::try_from(error.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds), 0),
        };
        // Years of more than four digits are of no use to a prompt.
        let seconds = seconds.clamp(-SECONDS_MAX, SECONDS_MAX);
        LocalTime { seconds, microseconds, offset: seconds_ahead_of_utc.into() }
    }
}

impl From<SystemTime> for LocalTime {
    fn from(moment: SystemTime) -> LocalTime {
        LocalTime::new(moment, 0)
    }
}

/// The end of the year 9999.
const SECONDS_MAX: i64 = 253_402_300_799;

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
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A moment, taken apart.
struct Parts {
    year: i64,
    month: i64,
    day: i64,
    // From 0.
    day_of_year: i64,
    // From Sunday, 0.
    weekday: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Parts {
    fn of(time: LocalTime) -> Parts {
        let local = time.seconds + time.offset;
        let (days, second) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        let (year, month, day) = date(days);
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month as usize - 1];
        Parts {
            year,
            month,
            day,
            day_of_year: before + i64::from(is_leap && month > 2) + day - 1,
            weekday: (days + 4).rem_euclid(7),
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }

    /// The year and the number of the week by ISO 8601.
    fn iso_week(&self) -> (i64, i64) {
        // The week belongs to the year of its Thursday.
        let thursday = self.day_of_year + 3 - (self.weekday + 6) % 7;
        let length = |year: i64| 365 + i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
        if thursday < 0 {
            (self.year - 1, (thursday + length(self.year - 1)) / 7 + 1)
        } else if thursday >= length(self.year) {
            (self.year + 1, 1)
        } else {
            (self.year, thursday / 7 + 1)
        }
    }
}

/// Formats a moment as Python does with the C library of GNU; a field that is unknown stays as it is.
pub(crate) fn format(time: LocalTime, pattern: &str, budget: &mut Budget) -> Result<Buffer, Error> {
    let parts = Parts::of(time);
    let mut out = Buffer::new(budget)?;
    let mut rest = pattern;
    while let Some((text, field)) = rest.split_once('%') {
        out.push_str(text, budget)?;
        let flags = field.len() - field.trim_start_matches(['-', '_', '0', '^', '#']).len();
        let (flags, after) = field.split_at(flags);
        let mut chars = after.chars();
        let kind = chars.next();
        rest = chars.as_str();
        match kind.and_then(|kind| write(&parts, time, kind, flags)) {
            Some(text) => out.push_str(&text, budget)?,
            None => {
                out.push('%', budget)?;
                out.push_str(&field[..field.len() - rest.len()], budget)?;
            }
        }
    }
    out.push_str(rest, budget)?;
    Ok(out)
}

/// One field, if it is known.
fn write(parts: &Parts, time: LocalTime, kind: char, flags: &str) -> Option<String> {
    let Parts { year, month, day, day_of_year, weekday, hour, minute, second } = *parts;
    let month_name = MONTHS[month as usize - 1];
    let weekday_name = WEEKDAYS[weekday as usize];
    let hour_12 = (hour + 11) % 12 + 1;
    // The padding of a number is a matter of its field, and of the flag.
    let pad = flags.chars().rfind(|flag| "-_0".contains(*flag));
    let number = |value: i64, width: usize, by_default: char| match pad.unwrap_or(by_default) {
        '-' => value.to_string(),
        '_' => format!("{value:width$}"),
        _ => format!("{value:0width$}"),
    };
    let text = match kind {
        'Y' => number(year, 1, '0'),
        'C' => number(year.div_euclid(100), 2, '0'),
        'y' => number(year.rem_euclid(100), 2, '0'),
        'm' => number(month, 2, '0'),
        'd' => number(day, 2, '0'),
        'e' => number(day, 2, '_'),
        'H' => number(hour, 2, '0'),
        'k' => number(hour, 2, '_'),
        'I' => number(hour_12, 2, '0'),
        'l' => number(hour_12, 2, '_'),
        'M' => number(minute, 2, '0'),
        'S' => number(second, 2, '0'),
        'f' => format!("{:06}", time.microseconds),
        's' => time.seconds.to_string(),
        'j' => number(day_of_year + 1, 3, '0'),
        'u' => ((weekday + 6) % 7 + 1).to_string(),
        'w' => weekday.to_string(),
        'U' => number((day_of_year + 7 - weekday) / 7, 2, '0'),
        'W' => number((day_of_year + 7 - (weekday + 6) % 7) / 7, 2, '0'),
        'V' => number(parts.iso_week().1, 2, '0'),
        'G' => number(parts.iso_week().0, 1, '0'),
        'g' => number(parts.iso_week().0.rem_euclid(100), 2, '0'),
        'b' | 'h' => month_name[..3].to_owned(),
        'B' => month_name.to_owned(),
        'a' => weekday_name[..3].to_owned(),
        'A' => weekday_name.to_owned(),
        'p' if flags.contains('#') => if hour < 12 { "am" } else { "pm" }.to_owned(),
        'P' => if hour < 12 { "am" } else { "pm" }.to_owned(),
        'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
        'F' => format!("{year}-{month:02}-{day:02}"),
        'T' | 'X' => format!("{hour:02}:{minute:02}:{second:02}"),
        'r' => format!("{hour_12:02}:{minute:02}:{second:02} {}", if hour < 12 { "AM" } else { "PM" }),
        'R' => format!("{hour:02}:{minute:02}"),
        'D' | 'x' => format!("{month:02}/{day:02}/{:02}", year.rem_euclid(100)),
        'c' => format!(
            "{} {} {day:2} {hour:02}:{minute:02}:{second:02} {year}",
            &weekday_name[..3],
            &month_name[..3]
        ),
        // Python's time here knows no zone.
        'z' | 'Z' => String::new(),
        'n' => "\n".to_owned(),
        't' => "\t".to_owned(),
        '%' => "%".to_owned(),
        _ => return None,
    };
    let is_name = matches!(kind, 'a' | 'A' | 'b' | 'B' | 'h');
    Some(if flags.contains('^') || (is_name && flags.contains('#')) { text.to_uppercase() } else { text })
}

/// Year, month and day of a day since 1970, by the rules of the Gregorian calendar with years that begin in March.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::budget::Limits;

    #[test]
    fn dates() {
        let budget = &mut Budget::new(Limits { steps: 1000, bytes: 1000 });
        let mut format = |seconds: i64, offset, pattern| {
            let since = Duration::from_secs(seconds.unsigned_abs());
            let moment = if seconds < 0 { UNIX_EPOCH - since } else { UNIX_EPOCH + since };
            format(LocalTime::new(moment, offset), pattern, budget).unwrap().into_string()
        };
        for (seconds, expected) in [
            (0, "Thu 01 Jan 1970 00:00:00"),
            (-1, "Wed 31 Dec 1969 23:59:59"),
            (951_782_400, "Tue 29 Feb 2000 00:00:00"),
            (1_721_995_199, "Fri 26 Jul 2024 11:59:59"),
            (1_798_761_599, "Thu 31 Dec 2026 23:59:59"),
            (4_107_542_400, "Mon 01 Mar 2100 00:00:00"),
        ] {
            assert_eq!(format(seconds, 0, "%a %d %b %Y %H:%M:%S"), expected);
        }
        assert_eq!(format(0, 0, "%-d %B %y %%"), "1 January 70 %");
        // What clocks show two hours east and half an hour west of there.
        assert_eq!(format(1_798_761_599, 7200, "%Y-%m-%d %H:%M"), "2027-01-01 01:59");
        assert_eq!(format(0, -1800, "%Y-%m-%d %H:%M"), "1969-12-31 23:30");
        assert_eq!(
            format(951_868_799, 0, "%c|%R|%D|%j|%-I|%_H|%^b|%#p|%s"),
            "Tue Feb 29 23:59:59 2000|23:59|02/29/00|060|11|23|FEB|pm|951868799"
        );
        assert_eq!(format(1_798_761_599, 0, "%G-W%V-%u %U %W %w %C%g"), "2026-W53-4 52 52 4 2026");
        assert_eq!(format(1_798_848_000, 0, "%G-W%V-%u|%k%l|%Z%z"), "2026-W53-6| 012|");
        assert_eq!(format(0, 0, "%Q %-Q %"), "%Q %-Q %");
    }
}
