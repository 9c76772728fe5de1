//! Points in time and lengths of time, as file systems and people have them.

use std::fmt;
use std::time::Duration;

/// A point in time: seconds since 1970 (negative before) and nanoseconds below one second. ext4
/// accepts years whose nanoseconds overflow an `i64`, so the two stand apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp {
    /// Whole seconds since 1970-01-01T00:00:00Z, rounded down.
    pub secs: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nanos: u32,
}

/// Text that is not a time or a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not RFC 3339.
    #[error("not an RFC 3339 time: {0:?}")]
    NotTime(String),
    /// Not a length of time.
    #[error("not a duration: {0:?} (write a number with ms, s, m, h, d or w, like 5m or 24h)")]
    NotDuration(String),
}

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self { secs: 0, nanos: 0 };

    /// This time less a length of time, not before the earliest there is.
    #[must_use]
    pub fn minus(self, length: Duration) -> Self {
        let whole = i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
        let (nanos, borrow) = if self.nanos >= length.subsec_nanos() {
            (self.nanos - length.subsec_nanos(), 0)
        } else {
            (self.nanos + 1_000_000_000 - length.subsec_nanos(), 1)
        };
        Self { secs: self.secs.saturating_sub(whole).saturating_sub(borrow), nanos }
    }

    /// Milliseconds from `earlier` to this time; 0 where it is not earlier.
    #[must_use]
    pub fn millis_since(self, earlier: Self) -> u64 {
        let nanos = (i128::from(self.secs) - i128::from(earlier.secs)) * 1_000_000_000
            + i128::from(self.nanos)
            - i128::from(earlier.nanos);
        u64::try_from(nanos.max(0) / 1_000_000).unwrap_or(u64::MAX)
    }

    /// Reads an RFC 3339 time with any offset.
    ///
    /// # Errors
    /// [`TimeError::NotTime`].
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let wrong = || TimeError::NotTime(text.chars().take(60).collect());
        let time: jiff::Timestamp = text.trim().parse().map_err(|_| wrong())?;
        let nanos = time.as_nanosecond();
        let secs = i64::try_from(nanos.div_euclid(1_000_000_000)).map_err(|_| wrong())?;
        let nanos = u32::try_from(nanos.rem_euclid(1_000_000_000)).map_err(|_| wrong())?;
        Ok(Self { secs, nanos })
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC. A year outside of -9999 to 9999 is printed as seconds since 1970.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i32::try_from(self.nanos).unwrap_or(0);
        match jiff::Timestamp::new(self.secs, 0)
            .and_then(|t| t.checked_add(jiff::SignedDuration::new(0, nanos)))
        {
            Ok(time) => write!(f, "{time}"),
            Err(_) => write!(f, "@{}.{:09}", self.secs, self.nanos),
        }
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Reads `5m`, `24h`, `500ms`, `1h30m`, `14d`; a bare `0` is no time at all.
///
/// # Errors
/// [`TimeError::NotDuration`].
pub fn parse_duration(text: &str) -> Result<Duration, TimeError> {
    let wrong = || TimeError::NotDuration(text.chars().take(60).collect());
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let millis: u64 = match rest[..unit_end].trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(wrong()),
        };
        rest = &rest[unit_end..];
        let part = Duration::from_millis(number.checked_mul(millis).ok_or_else(wrong)?);
        total = total.checked_add(part).ok_or_else(wrong)?;
    }
    Ok(total)
}

/// Writes a length of time for people: `0.42 s`, `12 s`, `3m 20s`, `2h 5m`, `14d`.
#[must_use]
pub fn human_duration(length: Duration) -> String {
    let secs = length.as_secs();
    match secs {
        0..10 => format!("{:.2} s", length.as_secs_f64()),
        10..60 => format!("{secs} s"),
        60..3_600 => format!("{}m {}s", secs / 60, secs % 60),
        3_600..172_800 => format!("{}h {}m", secs / 3_600, secs % 3_600 / 60),
        _ => format!("{}d", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_trip() {
        let before_1970 = Timestamp { secs: -1, nanos: 999_999_999 };
        for time in [Timestamp::EPOCH, before_1970, Timestamp { secs: 4_102_444_800, nanos: 1 }] {
            assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
        }
        assert_eq!(before_1970.to_string(), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(
            Timestamp { secs: i64::MAX, nanos: 0 }.to_string(),
            "@9223372036854775807.000000000"
        );
    }

    #[test]
    fn subtraction_borrows() {
        let time = Timestamp { secs: 10, nanos: 5 };
        assert_eq!(time.minus(Duration::from_nanos(6)), Timestamp { secs: 9, nanos: 999_999_999 });
        assert_eq!(time.millis_since(Timestamp { secs: 8, nanos: 0 }), 2000);
        assert_eq!(Timestamp::EPOCH.millis_since(time), 0);
    }

    #[test]
    fn durations_are_read_as_written() {
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("14d"), Ok(Duration::from_secs(14 * 86_400)));
        for wrong in ["", "5", "m", "5 parsecs", "-5m", "99999999999999999999s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
